//! Keys of token issuers, from JSON Web Key Sets.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use coco_crypto::x509::Certificate;
use coco_crypto::{PublicKey, RsaPublicKey};
use coco_kv::Tx;
use serde::Deserialize;
use serde_json::Value as Json;

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

/// What a key set says of a key besides its parameters.
#[derive(Deserialize)]
struct WebKey {
    kid: Option<String>,
    /// What a token's `iss` must match.
    issuer: Option<String>,
}

/// Registers the keys of `jwks` for `issuer`; those it registered before and that are not in the
/// set any more are removed. Keys of other issuers under the same ids stay.
pub fn set_public_signing_keys(tx: &mut Tx, issuer: &str, jwks: &Json) -> Result<(), JwksError> {
    let mut new_keys = parse(issuer, jwks)?;
    for (kid, mut keys) in JWT_PUBLIC_SIGNING_KEYS.rows(tx)? {
        let mut changed = false;
        let replacement = new_keys.remove(&kid);
        // Most often nothing has changed; then nothing is written.
        if keys.iter().find(|key| key.issuer == issuer) == replacement.as_ref() {
            continue;
        }
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

fn parse(issuer: &str, jwks: &Json) -> Result<BTreeMap<String, JwtKey>, JwksError> {
    let malformed = || JwksError::Malformed("it has no list of keys".to_owned());
    let set = jwks.get("keys").and_then(Json::as_array).ok_or_else(malformed)?;
    match set.len() {
        0 => return Err(JwksError::Empty),
        keys if keys > JWKS_MAX_KEYS => return Err(JwksError::TooMany { keys }),
        _ => {}
    }
    let mut keys = BTreeMap::new();
    for (index, key) in set.iter().enumerate() {
        let WebKey { kid, issuer: constraint } =
            WebKey::deserialize(key).map_err(|error| JwksError::Malformed(error.to_string()))?;
        let kid = kid.ok_or(JwksError::NoKid { index })?;
        let der =
            public_key_der(key).map_err(|reason| JwksError::Key { kid: kid.clone(), reason })?;
        if let Some(constraint) = &constraint
            && !is_within(issuer, constraint)
        {
            let (constraint, issuer) = (constraint.clone(), issuer.to_owned());
            return Err(JwksError::Constraint { kid, constraint, issuer });
        }
        let value = JwtKey { public_key: Base64(der), issuer: issuer.to_owned(), constraint };
        if keys.insert(kid.clone(), value).is_some() {
            return Err(JwksError::DuplicateKid { kid });
        }
    }
    Ok(keys)
}

/// The key's SubjectPublicKeyInfo.
fn public_key_der(key: &Json) -> Result<Vec<u8>, String> {
    if let Some(chain) = key.get("x5c") {
        let first = chain.get(0).and_then(Json::as_str).ok_or("x5c is not a list of texts")?;
        let der = STANDARD.decode(first).map_err(|_| "x5c is not base64")?;
        let certificate = Certificate::from_der(&der).map_err(|error| error.to_string())?;
        return verifying_key(certificate.spki_der());
    }
    match key.get("kty").and_then(Json::as_str) {
        Some("RSA") => RsaPublicKey::from_jwk(key).map(|key| key.spki_der()),
        Some("EC") => PublicKey::from_jwk(key).map(|key| key.spki_der().to_vec()),
        _ => return Err("kty must be RSA or EC".to_owned()),
    }
    .map_err(|error| error.to_string())
}

fn verifying_key(der: &[u8]) -> Result<Vec<u8>, String> {
    let known = PublicKey::from_spki_der(der).is_ok() || RsaPublicKey::from_spki_der(der).is_ok();
    let refused = || "the key is neither RSA nor P-256 nor P-384".to_owned();
    known.then(|| der.to_vec()).ok_or_else(refused)
}

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
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
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
            [("2".to_owned(), vec![a.clone(), b.clone()]), ("3".to_owned(), vec![a.clone()])];
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
