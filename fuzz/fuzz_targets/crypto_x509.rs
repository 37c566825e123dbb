//! Certificates and signing requests, DER and PEM.
#![no_main]

use coco_crypto::{Certificate, SigningRequest};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(certificate) = Certificate::from_der(bytes) {
        let _ = certificate.to_pem();
    }
    let _ = SigningRequest::from_der(bytes);
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = Certificate::from_pem(text);
        let _ = SigningRequest::from_pem(text);
    }
});
