//! What a caller shows: bearer tokens, signed bodies, certificates.
#![no_main]

use bytes::Bytes;
use coco_adapter::AuthnPolicy;
use coco_enclave::authn::{Authenticator, Credentials, Remembered};
use coco_enclave::session::PeerCertificate;
use coco_kv::{Store, View};
use libfuzzer_sys::fuzz_target;

/// A token in three parts, and a certificate that is none.
const SEEDS: [&str; 2] = [
    "eyJhbGciOiJSUzI1NiIsImtpZCI6ImEiLCJ0eXAiOiJKV1QifQ.\
     eyJpc3MiOiJodHRwczovL2EiLCJleHAiOjE4MDAwMDAwMDAsIm5iZiI6MX0.AAAA",
    "eyJhbGciOiJFUzI1NiIsImtpZCI6ImEifQ.eyJleHAiOjE4MDAwMDAwMDAsInRpZCI6ImIifQ.AAAA",
];

fuzz_target!(init: coco_fuzz::seed("enclave_authn", SEEDS), |bytes: &[u8]| {
    let mut request = http::Request::new(Bytes::copy_from_slice(bytes));
    let bearer = [b"Bearer ", bytes].concat();
    if let Ok(value) = http::HeaderValue::from_bytes(&bearer) {
        request.headers_mut().insert(http::header::AUTHORIZATION, value);
    }
    let cose = http::HeaderValue::from_static("application/cose");
    request.headers_mut().insert(http::header::CONTENT_TYPE, cose);
    let peer = PeerCertificate::from_der(bytes);
    let mut credentials = Credentials::new(&request, peer.as_ref(), 1_700_000_000_000);
    let policies = [
        AuthnPolicy::UserCert,
        AuthnPolicy::MemberCert,
        AuthnPolicy::NodeCert,
        AuthnPolicy::Jwt,
        AuthnPolicy::UserCoseSign1,
        AuthnPolicy::MemberCoseSign1,
        AuthnPolicy::ActiveMemberCoseSign1,
    ];
    let mut tx = Store::new(View(2)).begin();
    let caller = Authenticator::default().authenticate(
        &policies,
        &mut credentials,
        &mut Remembered::default(),
        &mut tx,
    );
    assert!(caller.is_err(), "nobody is registered");
});
