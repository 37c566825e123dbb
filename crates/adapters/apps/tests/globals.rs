//! The `ccf` global, exercised from JS.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

#[path = "../../../script/tests/harness/mod.rs"]
mod harness;
mod service;

use coco_crypto::x509::{DistinguishedName, Validity};
use coco_crypto::{Certificate, Curve, KeyPair};
use harness::{NOW_MS, TestEntropy};
use serde_json::{Value as Json, json};
use service::{Service, endpoint, with};

/// The value of an expression, after some statements.
fn eval(statements: &str, expression: &str) -> Json {
    let prelude = "const buf = ccf.strToBuf, str = ccf.bufToStr;
        const hex = (b) => Array.from(new Uint8Array(b), (x) => x.toString(16).padStart(2, '0')).join('');
        const caught = (f) => { try { f(); return 'nothing'; } catch (e) { return `${e.name}: ${e.message}`; } };";
    let service =
        Service::run(&format!("{prelude}\n{statements}\nreturn {{ body: [{expression}] }};"));
    service.options(&json!({"return_exception_details": true}));
    let reply = service.post("");
    let value: Json = match &reply.response {
        Ok(response) => serde_json::from_slice(response.body()).unwrap(),
        Err(error) => panic!("{statements}: {error:?}"),
    };
    value[0].clone()
}

#[test]
fn text_and_json_become_bytes_and_return() {
    assert_eq!(eval("", "str(buf('é€😀\\0x'))"), json!("é€😀\0x"));
    assert_eq!(eval("", "buf('é').byteLength"), json!(2));
    let value = "{ a: [1.5, null, 'x'], b: {} }";
    let round = format!("ccf.bufToJsonCompatible(ccf.jsonCompatibleToBuf({value}))");
    assert_eq!(eval("", &round), json!({"a": [1.5, null, "x"], "b": {}}));
    assert_eq!(eval("", "str(ccf.jsonCompatibleToBuf({ a: undefined, b: 1 }))"), r#"{"b":1}"#);
    for (wrong, error) in [
        ("ccf.strToBuf(7)", "TypeError: Argument s must be a string"),
        ("ccf.strToBuf()", "TypeError: "),
        ("ccf.strToBuf('\\ud800')", "TypeError: The string is not well-formed Unicode"),
        ("ccf.bufToStr('text')", "TypeError: Argument buffer must be an ArrayBuffer"),
        ("ccf.bufToStr(new Uint8Array(2))", "TypeError: Argument buffer must be an ArrayBuffer"),
        ("ccf.bufToJsonCompatible(buf('{'))", "SyntaxError: "),
        ("ccf.jsonCompatibleToBuf(undefined)", "TypeError: The value has no JSON representation"),
        ("ccf.jsonCompatibleToBuf(1n)", "TypeError: "),
    ] {
        let message = eval("", &format!("caught(() => {wrong})"));
        assert!(message.as_str().unwrap().starts_with(error), "{wrong}: {message}");
    }
}

#[test]
fn ccf_is_an_object_like_any_other() {
    assert_eq!(eval("", "'kv' in ccf && !('node' in ccf) && ccf.snp === undefined"), json!(true));
    let keys = eval("", "Object.keys(ccf)");
    for name in ["kv", "strToBuf", "crypto", "rpc", "historical", "consensus", "gov", "digest"] {
        assert!(keys.as_array().unwrap().contains(&json!(name)), "{name}: {keys}");
    }
    assert_eq!(eval("", "Object.keys(ccf.crypto).length"), json!(23));
    assert_eq!(eval("ccf.mine = 7; ccf.digest = 8;", "[ccf.mine, ccf.digest]"), json!([7, 8]));
    assert_eq!(eval("", "ccf.strToBuf === ccf.strToBuf && ccf.kv.x === ccf.kv.x"), json!(true));
    assert_eq!(eval("", "ccf.crypto.digest.name"), json!("digest"));
    assert_eq!(eval("", "typeof snp_attestation"), json!("undefined"));
    assert_eq!(eval("", "typeof performance"), json!("undefined"));
    for (switch, at_first) in [("enableUntrustedDateTime", true), ("enableMetricsLogging", false)] {
        let call = |set: bool| format!("ccf.{switch}({set})");
        let calls = [call(true), call(false), call(false), call(true)].join(",");
        assert_eq!(eval("", &format!("[{calls}]")), json!([at_first, true, false, false]));
    }
}

#[test]
fn maps_do_what_maps_do() {
    let statements = "
        const map = ccf.kv['records'];
        const list = () => { const out = []; map.forEach((v, k, m) => out.push([str(k), str(v), m === map])); return out; };
        const log = [map.size, map.has(buf('a')), map.get(buf('a')) === undefined];
        log.push(map.set(buf('b'), buf('2')) === map, map.set(buf('a'), buf('1')).size);
        log.push(str(map.get(buf('a'))), map.has(buf('b')), list());
        log.push(map.delete(buf('a')), map.delete(buf('a')), map.size);
        log.push(map.getVersionOfPreviousWrite(buf('b')) === undefined);
        map.clear();
        log.push(map.size, list());";
    let expected = json!([
        0,
        false,
        true,
        true,
        2,
        "1",
        true,
        [["a", "1", true], ["b", "2", true]],
        true,
        true,
        1,
        true,
        0,
        [],
    ]);
    assert_eq!(eval(statements, "log"), expected);
    for (wrong, error) in [
        ("ccf.kv.x.get('text')", "TypeError: Argument key must be an ArrayBuffer"),
        ("ccf.kv.x.get(new Uint8Array(1))", "TypeError: Argument key must be an ArrayBuffer"),
        ("ccf.kv.x.set(buf('k'), 'v')", "TypeError: Argument value must be an ArrayBuffer"),
        ("ccf.kv.x.set(buf('k'))", "TypeError: "),
        ("ccf.kv.x.get.call({}, buf('k'))", "TypeError: This method must be called on a map"),
        ("ccf.kv['']", "TypeError: The name of a map has 1 to 1024 bytes"),
        ("ccf.kv.x.forEach(() => { throw new Error('stop'); })", "nothing"),
        (
            "ccf.kv.x.set(buf('k'), buf('v')).forEach(() => { throw new Error('stop'); })",
            "Error: stop",
        ),
    ] {
        let message = eval("", &format!("caught(() => {wrong})"));
        assert!(message.as_str().unwrap().starts_with(error), "{wrong}: {message}");
    }
    // A name that an object's prototype has is a map too.
    assert_eq!(eval("", "ccf.kv.constructor.size"), json!(0));
}

#[test]
fn maps_change_while_they_are_walked() {
    let statements = "const map = ccf.kv.m; const seen = [];
        for (const k of ['a', 'b', 'c']) map.set(buf(k), buf(k));
        map.forEach((v, k) => { seen.push(str(k)); map.delete(buf('c')); map.set(buf('d'), buf('d')); });";
    assert_eq!(eval(statements, "[seen, map.size]"), json!([["a", "b", "c"], 3]));
}

#[test]
fn versions_and_values_of_earlier_transactions() {
    let service = Service::run(
        "const map = ccf.kv.m, k = ccf.strToBuf('k');
         const before = [map.getVersionOfPreviousWrite(k), map.has(k)];
         map.set(k, ccf.strToBuf('new'));
         return { body: [...before, map.getVersionOfPreviousWrite(k)] };",
    );
    assert_eq!(service.json(), json!([null, false, null]));
    // The application was installed at 1, so the write above was at 2.
    assert_eq!(service.json(), json!([2, true, 2]));
}

#[test]
fn access_follows_the_endpoints_mode() {
    let module = "const k = () => ccf.strToBuf('k');
        const may = (act) => { try { act(); return true; } catch (e) {
            if (!(e instanceof TypeError)) throw e;
            return false; } };
        export function run() {
            const rights = {};
            for (const name of ['records', 'public:records', 'public:ccf.gov.users.certs', 'public:ccf.internal.tree', 'ccf.gov.x']) {
                const map = ccf.kv[name];
                const reads = [() => map.has(k()), () => map.get(k()), () => map.size, () => map.forEach(() => {}), () => map.getVersionOfPreviousWrite(k())];
                const writes = [() => map.set(k(), k()), () => map.delete(k()), () => map.clear()];
                rights[name] = [reads, writes].map((acts) => { const m = new Set(acts.map(may)); if (m.size !== 1) throw new Error(name); return [...m][0]; });
            }
            return { body: rights };
        }";
    let endpoints = json!({
        "/run": {"post": endpoint("app.js", "run")},
        "/read": {"get": with(endpoint("app.js", "run"), "mode", json!("readonly"))},
    });
    let service = Service::new(&[("app.js", module)], endpoints);
    let (both, read, none) = (json!([true, true]), json!([true, false]), json!([false, false]));
    let expected = |own: &Json| {
        json!({
            "records": own, "public:records": own, "public:ccf.gov.users.certs": read,
            "public:ccf.internal.tree": read, "ccf.gov.x": none,
        })
    };
    assert_eq!(service.json(), expected(&both));
    let reply = service.request(service::get("/app/read"), &coco_adapter::Caller::NoAuth);
    assert_eq!(reply.json(), expected(&read));
}

#[test]
fn consensus_is_told() {
    assert_eq!(eval("", "ccf.consensus.getLastCommittedTxId()"), json!({"view": 2, "seqno": 40}));
    for (tx_id, status) in
        [("2, 40", "Committed"), ("2, 41", "Pending"), ("1, 3", "Invalid"), ("9, 9", "Unknown")]
    {
        assert_eq!(eval("", &format!("ccf.consensus.getStatusForTxId({tx_id})")), json!(status));
    }
    let views = "[ccf.consensus.getViewForSeqno(3), ccf.consensus.getViewForSeqno(99)]";
    assert_eq!(eval("", views), json!([2, null]));
    for wrong in ["-1", "1.5", "'7'", "NaN", "2 ** 60"] {
        let error = eval("", &format!("caught(() => ccf.consensus.getViewForSeqno({wrong}))"));
        assert_eq!(error, "RangeError: Argument seqno must be a non-negative integer", "{wrong}");
    }
}

#[test]
fn ranges_of_the_past_are_read() {
    let service = Service::run(
        "const states = ccf.historical.getStateRange(7, 3, 4, 60);
         if (states === null) return { statusCode: 202 };
         const seen = states.map(({ transactionId, receipt, kv }) =>
             [transactionId, receipt.signature, ccf.bufToStr(kv['m'].get(ccf.strToBuf('k')))]);
         return { body: [seen, ccf.historical.dropCachedStates(7), ccf.historical.dropCachedStates(8)] };",
    );
    assert_eq!(service.post("").response().status(), 202);
    service.node.remember(3, "m", b"k", b"three");
    service.node.remember(4, "m", b"k", b"four");
    let expected = json!([[["2.3", "AAAA", "three"], ["2.4", "AAAA", "four"]], true, false]);
    assert_eq!(service.json(), expected);
    for range in ["1, 0, 3", "1, 4, 3", "1, 1, 1000000"] {
        let error = eval("", &format!("caught(() => ccf.historical.getStateRange({range}, 1))"));
        assert!(error.as_str().unwrap().starts_with("RangeError: Invalid range"), "{error}");
    }
}

#[test]
fn digests_are_known() {
    for (name, start) in [("SHA-256", "ba7816bf"), ("SHA-384", "cb00753f"), ("SHA-512", "ddaf35a1")]
    {
        let digest = eval("", &format!("hex(ccf.crypto.digest('{name}', buf('abc')))"));
        assert!(digest.as_str().unwrap().starts_with(start), "{name}");
    }
    assert_eq!(eval("", "hex(ccf.digest('SHA-256', buf('abc'))).length"), json!(64));
    let error = eval("", "caught(() => ccf.crypto.digest('MD5', buf('')))");
    assert_eq!(error, "Error: the hash algorithm must be SHA-256, SHA-384 or SHA-512");
}

#[test]
fn signatures_verify() {
    let statements = "
        const crypto = ccf.crypto, data = buf('data'), out = {};
        const check = (name, algorithm, { privateKey, publicKey }) => {
            const signature = crypto.sign(algorithm, privateKey, data);
            out[name] = [
                crypto.verifySignature(algorithm, publicKey, signature, data),
                crypto.verifySignature(algorithm, publicKey, signature, buf('other')),
                crypto.verifySignature(algorithm, publicKey, buf('short'), data),
            ];
        };
        const rsa = crypto.generateRsaKeyPair(2048);
        const p256 = crypto.generateEcdsaKeyPair('secp256r1'), p384 = crypto.generateEcdsaKeyPair('secp384r1');
        for (const hash of ['SHA-256', 'SHA-384', 'SHA-512']) {
            check(`pss ${hash}`, { name: 'RSA-PSS', hash, saltLength: 32 }, rsa);
            check(`pkcs1 ${hash}`, { name: 'RSASSA-PKCS1-v1_5', hash }, rsa);
            check(`p256 ${hash}`, { name: 'ECDSA', hash }, p256);
            check(`p384 ${hash}`, { name: 'ECDSA', hash }, p384);
            check(`hmac ${hash}`, { name: 'HMAC', hash }, { privateKey: 'secret', publicKey: 'secret' });
        }
        check('eddsa', { name: 'EdDSA' }, crypto.generateEddsaKeyPair('curve25519'));
        out.p1363 = crypto.sign({ name: 'ECDSA', hash: 'SHA-256' }, p256.privateKey, data).byteLength;";
    let out = eval(statements, "out");
    for (name, verdicts) in out.as_object().unwrap() {
        let expected = if name == "p1363" { json!(64) } else { json!([true, false, false]) };
        assert_eq!(*verdicts, expected, "{name}");
    }
    assert_eq!(out.as_object().unwrap().len(), 17);
    for (wrong, error) in [
        ("ccf.crypto.sign({ name: 'DSA' }, '', buf(''))", "TypeError: Unknown algorithm \"DSA\""),
        (
            "ccf.crypto.sign('ECDSA', '', buf(''))",
            "TypeError: Argument algorithm must be an object",
        ),
        ("ccf.crypto.sign({ name: 'ECDSA', hash: 'SHA-256' }, 'nonsense', buf(''))", "Error: "),
        (
            "ccf.crypto.sign({ name: 'ECDSA' }, 'k', buf(''))",
            "TypeError: Argument hash must be a string",
        ),
        ("ccf.crypto.verifySignature({ name: 'EdDSA' }, 'x', buf(''), buf(''))", "Error: "),
        ("ccf.crypto.generateRsaKeyPair(8192)", "RangeError: "),
        ("ccf.crypto.generateRsaKeyPair(2048, 3)", "RangeError: The public exponent must be 65537"),
        (
            "ccf.crypto.generateEcdsaKeyPair('secp256k1')",
            "RangeError: Unsupported curve \"secp256k1\"",
        ),
        ("ccf.crypto.generateEddsaKeyPair('curve448')", "RangeError: Unsupported curve"),
        ("ccf.crypto.generateAesKey(100)", "Error: "),
    ] {
        let message = eval("", &format!("caught(() => {wrong})"));
        assert!(message.as_str().unwrap().starts_with(error), "{wrong}: {message}");
    }
}

#[test]
fn keys_are_wrapped_and_unwrapped() {
    let statements = "
        const crypto = ccf.crypto, out = [];
        const { privateKey, publicKey } = crypto.generateRsaKeyPair(2048);
        const aes = crypto.generateAesKey(256), key = buf('a key of any length, really');
        for (const [algorithm, wrapping, unwrapping] of [
            [{ name: 'RSA-OAEP' }, buf(publicKey), buf(privateKey)],
            [{ name: 'RSA-OAEP', label: buf('label') }, buf(publicKey), buf(privateKey)],
            [{ name: 'AES-KWP' }, aes, aes],
            [{ name: 'RSA-OAEP-AES-KWP', aesKeySize: 128 }, buf(publicKey), buf(privateKey)],
            [{ name: 'RSA-OAEP-AES-KWP', aesKeySize: 256, label: buf('x') }, buf(publicKey), buf(privateKey)],
        ]) {
            const wrapped = crypto.wrapKey(key, wrapping, algorithm);
            const unwrapped = crypto.unwrapKey(wrapped, unwrapping, algorithm);
            const other = { ...algorithm, label: buf('other') };
            const refused = algorithm.name === 'AES-KWP'
                ? caught(() => crypto.unwrapKey(wrapped, crypto.generateAesKey(256), algorithm))
                : caught(() => crypto.unwrapKey(wrapped, unwrapping, other));
            out.push([str(unwrapped) === str(key), refused.startsWith('Error: ')]);
        }";
    assert_eq!(
        eval(statements, "out"),
        json!([[true, true], [true, true], [true, true], [true, true], [true, true]])
    );
    assert_eq!(
        eval("", "[128, 192, 256].map((bits) => ccf.generateAesKey(bits).byteLength)"),
        json!([16, 24, 32])
    );
    let error = eval("", "caught(() => ccf.crypto.wrapKey(buf(''), buf(''), { name: 'ROT13' }))");
    assert!(error.as_str().unwrap().starts_with("TypeError: Unknown wrapping"), "{error}");
}

#[test]
fn jwks_and_pems_convert() {
    let statements = "
        const crypto = ccf.crypto, out = [];
        const round = (pair, privateTo, privateFrom, publicTo, publicFrom) => {
            const jwk = crypto[publicTo](pair.publicKey, 'kid'), secret = crypto[privateTo](pair.privateKey);
            out.push([
                jwk.kty, jwk.kid, 'd' in jwk, 'd' in secret, secret.kid === undefined,
                crypto[publicFrom](jwk) === pair.publicKey,
                crypto[privateTo](crypto[privateFrom](secret)).d === secret.d,
            ]);
        };
        round(crypto.generateEcdsaKeyPair('secp256r1'), 'pemToJwk', 'jwkToPem', 'pubPemToJwk', 'pubJwkToPem');
        round(crypto.generateEcdsaKeyPair('secp384r1'), 'pemToJwk', 'jwkToPem', 'pubPemToJwk', 'pubJwkToPem');
        round(crypto.generateRsaKeyPair(2048), 'rsaPemToJwk', 'rsaJwkToPem', 'pubRsaPemToJwk', 'pubRsaJwkToPem');
        round(crypto.generateEddsaKeyPair('curve25519'), 'eddsaPemToJwk', 'eddsaJwkToPem', 'pubEddsaPemToJwk', 'pubEddsaJwkToPem');
        round(crypto.generateEddsaKeyPair('x25519'), 'eddsaPemToJwk', 'eddsaJwkToPem', 'pubEddsaPemToJwk', 'pubEddsaJwkToPem');";
    let row = |kty: &str| json!([kty, "kid", false, true, true, true, true]);
    let expected = json!([row("EC"), row("EC"), row("RSA"), row("OKP"), row("OKP")]);
    assert_eq!(eval(statements, "out"), expected);
    for wrong in
        ["pubJwkToPem({})", "pubJwkToPem(7)", "jwkToPem({ kty: 'EC' })", "pubPemToJwk('x')"]
    {
        let message = eval("", &format!("caught(() => ccf.crypto.{wrong})"));
        assert!(message.as_str().unwrap().starts_with("Error: "), "{wrong}: {message}");
    }
}

#[test]
fn certificates_are_judged() {
    let entropy = TestEntropy::default();
    let certificate = |from_s: i64, days| {
        let key = KeyPair::generate(Curve::P256, &entropy).unwrap();
        let name = DistinguishedName::common_name("member");
        let validity = Validity::days(from_s, days);
        Certificate::for_member(&key, &name, validity, &entropy).unwrap()
    };
    let now_s = i64::try_from(NOW_MS / 1000).unwrap();
    let (good, old) = (certificate(now_s - 60, 1), certificate(now_s - 200_000, 1));
    let statements = format!(
        "const good = {}, old = {};",
        serde_json::to_string(&good.to_pem()).unwrap(),
        serde_json::to_string(&old.to_pem()).unwrap(),
    );
    let bundle = |pem: &str| eval(&statements, &format!("ccf.crypto.isValidX509CertBundle({pem})"));
    assert_eq!(
        [bundle("good + old"), bundle("'x'"), bundle("''")],
        [json!(true), json!(false), json!(false)]
    );
    let chain = |chain: &str, trusted: &str| {
        eval(&statements, &format!("ccf.isValidX509CertChain({chain}, {trusted})"))
    };
    assert_eq!(chain("good", "good"), json!(true));
    assert_eq!(chain("good", "old"), json!(false));
    assert_eq!(chain("old", "old"), json!(false));
    assert_eq!(chain("'x'", "good"), json!(false));
    assert_eq!(eval(&statements, "ccf.pemToId(good)"), json!(good.fingerprint().to_string()));
    assert_eq!(eval("", "caught(() => ccf.pemToId('x')).startsWith('Error: ')"), json!(true));
}

#[test]
fn firmware_versions_are_unpacked() {
    let policy = eval("", "ccf.tcbHexToPolicy('00a00f11', 'DB18000000000104')");
    let expected = json!({
        "boot_loader": 4, "tee": 1, "snp": 0x18, "microcode": 0xdb, "hexstring": "db18000000000104",
    });
    assert_eq!(policy, expected);
    let policy = eval("", "ccf.tcbHexToPolicy('00b00f21', '4a00000003020100')");
    let expected = json!({
        "fmc": 0, "boot_loader": 1, "tee": 2, "snp": 3, "microcode": 0x4a,
        "hexstring": "4a00000003020100",
    });
    assert_eq!(policy, expected);
    for wrong in ["'00a00f11', '0'", "'00000000', '0000000000000000'", "'x', 'y'"] {
        let error = eval("", &format!("caught(() => ccf.tcbHexToPolicy({wrong}))"));
        assert!(error.as_str().unwrap().starts_with("Error: "), "{error}");
    }
}

#[test]
fn time_and_chance_are_the_nodes() {
    let now = i64::try_from(NOW_MS).unwrap();
    assert_eq!(eval("", "[Date.now(), new Date().getTime()]"), json!([now, now]));
    assert_eq!(eval("", "new Date().toISOString()"), json!("2026-01-02T03:04:05.678Z"));
    assert_eq!(eval("", "new Date(0).toISOString()"), json!("1970-01-01T00:00:00.000Z"));
    assert_eq!(eval("", "Date.parse('2020-01-01T00:00:00Z')"), json!(1_577_836_800_000_i64));
    assert_eq!(eval("", "Date.UTC(1970, 0, 2)"), json!(86_400_000));
    assert_eq!(eval("", "typeof Date() === 'string' && Date().includes('2026')"), json!(true));
    assert_eq!(
        eval("", "new Date().constructor === Date && new Date() instanceof Date"),
        json!(true)
    );
    assert_eq!(
        eval(
            "class Day extends Date {}",
            "new Day().getTime() === Date.now() && new Day() instanceof Day"
        ),
        json!(true)
    );
    assert_eq!(
        eval("", "JSON.stringify({ at: new Date(5) })"),
        json!(r#"{"at":"1970-01-01T00:00:00.005Z"}"#)
    );
    let statements = "const numbers = new Set(); for (let i = 0; i < 100; i++) {
        const n = Math.random(); if (!(n >= 0 && n < 1)) throw new Error(n); numbers.add(n); }";
    assert_eq!(eval(statements, "numbers.size"), json!(100));
}

#[test]
fn console_takes_anything() {
    let statements = "
        const loop = {}; loop.loop = loop;
        for (const level of ['log', 'info', 'debug', 'warn', 'error']) {
            console[level]();
            console[level]('text', 7, null, undefined, { a: 1 }, loop, 1n, Symbol('s'), new Error('e'), () => 1, 'x'.repeat(100000), '\\ud800');
        }";
    assert_eq!(eval(statements, "Object.keys(console).length"), json!(5));
    assert_eq!(eval("globalThis.console = { log() { return 1; } };", "console.log()"), json!(1));
}
