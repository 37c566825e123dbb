//! What JavaScript hands to our own code: bytes and texts for each function of the `ccf` global.
#![no_main]

#[path = "../../crates/script/tests/harness/mod.rs"]
mod harness;
#[path = "../../crates/adapters/apps/tests/service/mod.rs"]
mod service;

use std::cell::RefCell;

use libfuzzer_sys::fuzz_target;
use service::Service;

/// The body is cut at each byte 0xff into arguments; the first byte chooses the function.
const APP: &str = r#"
const c = ccf.crypto, text = ccf.bufToStr, map = ccf.kv["records"];
const ways = ["ECDSA", "EdDSA", "RSA-PSS", "RSASSA-PKCS1-v1_5", "HMAC"].map(
    (name) => ({name, hash: "SHA-256", saltLength: 32}));
const wraps = ["RSA-OAEP", "AES-KWP", "RSA-OAEP-AES-KWP"].map((name) => ({name, aesKeySize: 256}));
const functions = [
    ...ways.map((way) => (a, b, d) => c.verifySignature(way, text(a), b, d)),
    ...ways.map((way) => (a, b) => c.sign(way, text(a), b)),
    ...wraps.map((wrap) => (a, b, d) => c.wrapKey(a, b, {...wrap, label: d})),
    ...wraps.map((wrap) => (a, b, d) => c.unwrapKey(a, b, {...wrap, label: d})),
    (a, b) => c.digest(text(b), a),
    (a) => c.isValidX509CertBundle(text(a)),
    (a, b) => c.isValidX509CertChain(text(a), text(b)),
    ...["pubPemToJwk", "pemToJwk", "pubRsaPemToJwk", "rsaPemToJwk", "pubEddsaPemToJwk",
        "eddsaPemToJwk"].map((name) => (a, b) => c[name](text(a), text(b))),
    ...["pubJwkToPem", "jwkToPem", "pubRsaJwkToPem", "rsaJwkToPem", "pubEddsaJwkToPem",
        "eddsaJwkToPem"].map((name) => (a) => c[name](ccf.bufToJsonCompatible(a))),
    (a) => ccf.pemToId(text(a)),
    (a) => ccf.jsonCompatibleToBuf(ccf.bufToJsonCompatible(a)),
    (a, b) => { map.set(a, b); map.has(b); map.get(a); map.getVersionOfPreviousWrite(a);
        map.forEach((value, key) => ccf.bufToStr(key)); map.delete(a); map.clear(); },
    (a) => ccf.kv[text(a)].size,
    (a, b) => ccf.consensus.getStatusForTxId(a.byteLength, b.byteLength),
    (a, b) => ccf.historical.getStateRange(a.byteLength, b.byteLength, 9, 9),
    (a) => ccf.rpc.setClaimsDigest(a),
    (a) => ccf.strToBuf(text(a)),
    (a) => eval(text(a)),
];
export function run(request) {
    const bytes = new Uint8Array(request.body.arrayBuffer());
    const parts = [];
    let start = 1;
    for (let at = 1; at <= bytes.length; at += 1) {
        if (at === bytes.length || bytes[at] === 255) {
            parts.push(bytes.slice(start, at).buffer);
            start = at + 1;
        }
    }
    while (parts.length < 3) { parts.push(new ArrayBuffer(0)); }
    try {
        functions[bytes[0] % functions.length](...parts);
    } catch (error) {
        return {body: String(error)};
    }
    return {body: "done"};
}
"#;

thread_local! {
    static SERVICE: RefCell<Service> = RefCell::new(Service::of(APP));
}

fn seeds() -> Vec<Vec<u8>> {
    let jwk = br#"{"kty":"EC","crv":"P-256","x":"AQAB","y":"AQAB","kid":"a"}"#;
    let pem = b"-----BEGIN PUBLIC KEY-----\nMFkw\n-----END PUBLIC KEY-----\n";
    let arguments: [&[u8]; 4] = [jwk, pem, b"a\xffb\xffc", b"\"json\"\xffSHA-256"];
    let seeds = (0..48).flat_map(|function| {
        arguments.map(|arguments| [&[function], arguments].concat())
    });
    seeds.collect()
}

fuzz_target!(init: coco_fuzz::seed("script_natives", seeds()), |bytes: &[u8]| {
    SERVICE.with_borrow(|service| {
        let reply = service.post(bytes.to_vec());
        if let Ok(response) = &reply.response {
            assert!(response.status().is_success());
        }
    });
});
