//! Keys of token issuers, from JSON Web Key Sets.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use coco_crypto::x509::Certificate;
use coco_crypto::{PublicKey, RsaPublicKey};
use coco_kv::Tx;
use serde::Deserialize;

use crate::tables::{Base64, JWT_PUBLIC_SIGNING_KEYS, JwtKey, TableError};

/// Most keys of one set.
pub const JWKS_MAX_KEYS: usize = 1000;

/// Why a key set is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JwksError {
    /// It is not a JWKS.
    #[error("the key set is malformed: {0}")]
    Malformed(String),
    /// It holds no key.
    #[error("the key set has no keys")]
    Empty,
    /// It holds too many.
    #[error("the key set has {keys} keys, more than {JWKS_MAX_KEYS}")]
    TooMany {
        /// How many it has.
        keys: usize,
    },
    /// A key has no id.
    #[error("key {index} has no kid")]
    NoKid {
        /// Its place in the set.
        index: usize,
    },
    /// Two keys share an id.
    #[error("two keys have the kid {kid:?}")]
    DuplicateKid {
        /// The id.
        kid: String,
    },
    /// It is not a key that can verify tokens.
    #[error("the key with kid {kid:?}: {reason}")]
    Key {
        /// Its id.
        kid: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A key is for tokens of somebody else.
    #[error(
        "the key with kid {kid:?} is for tokens of {constraint:?}, which is not within {issuer:?}"
    )]
    Constraint {
        /// Its id.
        kid: String,
        /// Whose tokens.
        constraint: String,
        /// Who registers the key.
        issuer: String,
    },
    /// A governed table cannot be read.
    #[error(transparent)]
    Table(#[from] TableError),
}

#[derive(Deserialize)]
struct KeySet {
    keys: Vec<WebKey>,
}

#[derive(Deserialize)]
struct WebKey {
    kty: String,
    kid: Option<String>,
    /// Certificates, base64 DER, the key's own first.
    x5c: Option<Vec<String>>,
    n: Option<String>,
    e: Option<String>,
    crv: Option<String>,
    x: Option<String>,
    y: Option<String>,
    /// What a token's `iss` must match.
    issuer: Option<String>,
}

/// Registers the keys of `jwks` for `issuer`; those it registered before and that are not in the
/// set any more are removed. Keys of other issuers under the same ids stay.
pub fn set_public_signing_keys(
    tx: &mut Tx,
    issuer: &str,
    jwks: &serde_json::Value,
) -> Result<(), JwksError> {
    let mut new_keys = parse(issuer, jwks)?;
    for (kid, mut keys) in JWT_PUBLIC_SIGNING_KEYS.rows(tx)? {
        let mut changed = false;
        let replacement = new_keys.remove(&kid);
        if keys.iter().any(|key| key.issuer == issuer) {
            keys.retain(|key| key.issuer != issuer);
            changed = true;
        }
        if let Some(key) = replacement {
            keys.push(key);
            changed = true;
        }
        if changed {
            store(tx, &kid, &keys);
        }
    }
    for (kid, key) in new_keys {
        store(tx, &kid, &vec![key]);
    }
    Ok(())
}

/// Removes every key of an issuer.
pub fn remove_public_signing_keys(tx: &mut Tx, issuer: &str) -> Result<(), TableError> {
    for (kid, mut keys) in JWT_PUBLIC_SIGNING_KEYS.rows(tx)? {
        let before = keys.len();
        keys.retain(|key| key.issuer != issuer);
        if keys.len() < before {
            store(tx, &kid, &keys);
        }
    }
    Ok(())
}

fn store(tx: &mut Tx, kid: &String, keys: &Vec<JwtKey>) {
    if keys.is_empty() {
        JWT_PUBLIC_SIGNING_KEYS.remove(tx, kid);
    } else {
        JWT_PUBLIC_SIGNING_KEYS.put(tx, kid, keys);
    }
}

fn parse(issuer: &str, jwks: &serde_json::Value) -> Result<BTreeMap<String, JwtKey>, JwksError> {
    let set = KeySet::deserialize(jwks).map_err(|error| JwksError::Malformed(error.to_string()))?;
    match set.keys.len() {
        0 => return Err(JwksError::Empty),
        keys if keys > JWKS_MAX_KEYS => return Err(JwksError::TooMany { keys }),
        _ => {}
    }
    let mut keys = BTreeMap::new();
    for (index, key) in set.keys.into_iter().enumerate() {
        let kid = key.kid.clone().ok_or(JwksError::NoKid { index })?;
        let der = public_key_der(&key)
            .map_err(|reason| JwksError::Key { kid: kid.clone(), reason: reason.to_owned() })?;
        if let Some(constraint) =
            key.issuer.clone().filter(|constraint| !is_within(issuer, constraint))
        {
            return Err(JwksError::Constraint { kid, constraint, issuer: issuer.to_owned() });
        }
        let value =
            JwtKey { public_key: Base64(der), issuer: issuer.to_owned(), constraint: key.issuer };
        if keys.insert(kid.clone(), value).is_some() {
            return Err(JwksError::DuplicateKid { kid });
        }
    }
    Ok(keys)
}

/// The key's SubjectPublicKeyInfo.
fn public_key_der(key: &WebKey) -> Result<Vec<u8>, &'static str> {
    if let Some(chain) = &key.x5c {
        let first = chain.first().ok_or("x5c is empty")?;
        let der = STANDARD.decode(first).map_err(|_| "x5c is not base64")?;
        let certificate = Certificate::from_der(&der).map_err(|_| "x5c holds no certificate")?;
        return usable_spki(certificate.spki_der());
    }
    let field = |value: &Option<String>, missing: &'static str| {
        let text = value.as_deref().ok_or(missing)?;
        URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).map_err(|_| "a field is not base64url")
    };
    match key.kty.as_str() {
        "RSA" => {
            let (n, e) = (field(&key.n, "n is missing")?, field(&key.e, "e is missing")?);
            let key = RsaPublicKey::from_components(&n, &e).map_err(|_| "it is no RSA key")?;
            Ok(key.spki_der())
        }
        "EC" => {
            let (x, y) = (field(&key.x, "x is missing")?, field(&key.y, "y is missing")?);
            let (prefix, len_bytes) = match key.crv.as_deref() {
                Some("P-256") => (P256_SPKI_PREFIX, 32),
                Some("P-384") => (P384_SPKI_PREFIX, 48),
                _ => return Err("crv must be P-256 or P-384"),
            };
            if x.len() != len_bytes || y.len() != len_bytes {
                return Err("x and y must have the length of the curve's field");
            }
            usable_spki(&[prefix, &x, &y].concat())
        }
        _ => Err("kty must be RSA or EC"),
    }
}

fn usable_spki(der: &[u8]) -> Result<Vec<u8>, &'static str> {
    let known = PublicKey::from_spki_der(der).is_ok() || RsaPublicKey::from_spki_der(der).is_ok();
    if known { Ok(der.to_vec()) } else { Err("the key is neither RSA nor P-256 nor P-384") }
}

/// SubjectPublicKeyInfo of a P-256 key, up to the coordinates (RFC 5480).
const P256_SPKI_PREFIX: &[u8] = &[
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00, 0x04,
];

/// SubjectPublicKeyInfo of a P-384 key, up to the coordinates.
const P384_SPKI_PREFIX: &[u8] = &[
    0x30, 0x76, 0x30, 0x10, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05, 0x2b,
    0x81, 0x04, 0x00, 0x22, 0x03, 0x62, 0x00, 0x04,
];

/// Whether tokens of `constraint` are the issuer's to sign: it names the issuer's own domain or
/// one above it (`login.example.com` may register keys for `https://example.com`).
fn is_within(issuer: &str, constraint: &str) -> bool {
    let (Some(issuer), Some(constraint)) = (host(issuer), host(constraint)) else { return false };
    let above = issuer.strip_suffix(constraint).is_some_and(|rest| rest.ends_with('.'));
    issuer == constraint || above
}

/// The host of a URL, without user and port.
fn host(url: &str) -> Option<&str> {
    let (_, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let after_user = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let host = match after_user.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => after_user,
    };
    (!host.is_empty()).then_some(host)
}

#[cfg(test)]
mod tests {
    use coco_kv::{Store, View};
    use serde_json::json;

    use super::*;

    fn rsa(kid: &str) -> serde_json::Value {
        // A 2048-bit odd number stands for a modulus.
        json!({"kty": "RSA", "kid": kid, "n": URL_SAFE_NO_PAD.encode([0xc1; 256]), "e": "AQAB"})
    }

    fn tx() -> Tx {
        Store::new(View(2)).begin()
    }

    fn kids(tx: &mut Tx) -> Vec<(String, Vec<String>)> {
        let rows = JWT_PUBLIC_SIGNING_KEYS.rows(tx).unwrap().into_iter();
        rows.map(|(kid, keys)| (kid, keys.into_iter().map(|key| key.issuer).collect())).collect()
    }

    #[test]
    fn a_set_replaces_the_issuers_keys_and_no_others() {
        let mut tx = tx();
        let set =
            |keys: &[&str]| json!({"keys": keys.iter().map(|kid| rsa(kid)).collect::<Vec<_>>()});
        set_public_signing_keys(&mut tx, "https://a", &set(&["1", "2"])).unwrap();
        set_public_signing_keys(&mut tx, "https://b", &set(&["2"])).unwrap();
        set_public_signing_keys(&mut tx, "https://a", &set(&["2", "3"])).unwrap();
        let (a, b) = ("https://a".to_owned(), "https://b".to_owned());
        let expected =
            [("2".to_owned(), vec![b.clone(), a.clone()]), ("3".to_owned(), vec![a.clone()])];
        assert_eq!(kids(&mut tx), expected);
        remove_public_signing_keys(&mut tx, "https://a").unwrap();
        assert_eq!(kids(&mut tx), [("2".to_owned(), vec![b])]);
    }

    #[test]
    fn malformed_sets_are_refused() {
        let with = |name: &str, value: serde_json::Value| {
            let mut key = rsa("k");
            key[name] = value;
            json!({"keys": [key]})
        };
        for set in [
            json!([]),
            json!({}),
            json!({"keys": []}),
            json!({"keys": [{"kty": "RSA", "n": "AQAB", "e": "AQAB"}]}),
            json!({"keys": [rsa("k"), rsa("k")]}),
            with("kty", json!("oct")),
            with("n", json!("!")),
            with("n", json!("AQAB")),
            with("x5c", json!([])),
            with("x5c", json!(["AQAB"])),
            with("issuer", json!("https://elsewhere")),
            json!({"keys": [{"kty": "EC", "kid": "k", "crv": "P-256", "x": "AA", "y": "AA"}]}),
        ] {
            assert!(set_public_signing_keys(&mut tx(), "https://a", &set).is_err(), "{set}");
        }
    }

    #[test]
    fn constraints_stay_within_the_issuers_domain() {
        for (issuer, constraint, within) in [
            ("https://a.com/x", "https://a.com/{tenantid}/v2.0", true),
            ("https://limited.a.com", "https://a.com", true),
            ("https://a.com:443", "https://a.com", true),
            ("https://a.com", "https://limited.a.com", false),
            ("https://bada.com", "https://a.com", false),
            ("https://a.com@b.com", "https://a.com", false),
            ("a.com", "https://a.com", false),
            ("https://a.com", "https://", false),
        ] {
            assert_eq!(is_within(issuer, constraint), within, "{issuer} {constraint}");
        }
    }
}
