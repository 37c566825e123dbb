//! JSON Web Keys (RFC 7517, 7518, 8037): to and from the keys of this crate.
//!
//! Private keys come out as JSON for an application that asked for them; nothing else calls for it.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use crate::rsa::RsaComponents;
use crate::{
    Curve, KeyError, KeyPair, OkpCurve, OkpKeyPair, OkpPublicKey, PublicKey, RsaKeyPair,
    RsaPublicKey,
};

/// Longest number of a key: the modulus of RSA 8192 in base64.
const MAX_FIELD_LEN: usize = 1366;

/// Why a JSON value is not a usable key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JwkError {
    /// A field is absent or not a text.
    #[error("the JWK has no text {field:?}")]
    Missing {
        /// Its name.
        field: &'static str,
    },
    /// A field is not base64url without padding, or longer than any key.
    #[error("{field:?} of the JWK is not base64url of a key's length")]
    Encoding {
        /// Its name.
        field: &'static str,
    },
    /// `kty` or `crv` are not what is expected here.
    #[error("{field:?} of the JWK must be {expected}")]
    Kind {
        /// `kty` or `crv`.
        field: &'static str,
        /// What it must be.
        expected: &'static str,
    },
    /// The private and the public part do not belong together.
    #[error("the private and the public part of the JWK do not belong together")]
    Mismatch,
    /// The numbers are not a valid key.
    #[error(transparent)]
    Key(#[from] KeyError),
}

impl PublicKey {
    /// `{"kty":"EC","crv","x","y","kid"?}`
    pub fn to_jwk(&self, kid: Option<&str>) -> Value {
        let (x, y) = self.coordinates();
        let crv = match self.curve() {
            Curve::P256 => "P-256",
            Curve::P384 => "P-384",
        };
        with_kid(json!({"kty": "EC", "crv": crv, "x": encode(x), "y": encode(y)}), kid)
    }

    /// Reads the form of [`PublicKey::to_jwk`]; other fields are ignored.
    pub fn from_jwk(jwk: &Value) -> Result<Self, JwkError> {
        kind(jwk, "EC")?;
        let curve = match text(jwk, "crv")? {
            "P-256" => Curve::P256,
            "P-384" => Curve::P384,
            _ => return Err(JwkError::Kind { field: "crv", expected: "P-256 or P-384" }),
        };
        let (x, y) = (bytes(jwk, "x")?, bytes(jwk, "y")?);
        for (field, coordinate) in [("x", &x), ("y", &y)] {
            if coordinate.len() != curve.scalar_len_bytes() {
                return Err(JwkError::Encoding { field });
            }
        }
        Ok(Self::from_point(curve, &[&[4][..], &x, &y].concat())?)
    }

    fn coordinates(&self) -> (&[u8], &[u8]) {
        let xy = self.point().get(1..).unwrap_or_default();
        xy.split_at_checked(self.curve().scalar_len_bytes()).unwrap_or_default()
    }
}

impl KeyPair {
    /// The public form with `d`.
    pub fn to_jwk(&self, kid: Option<&str>) -> Result<Value, JwkError> {
        let scalar = self.scalar().ok_or(KeyError::PrivateKey { expected: "EC" })?;
        let mut jwk = self.public().to_jwk(kid);
        insert(&mut jwk, "d", encode(scalar.as_ref()));
        Ok(jwk)
    }

    /// Reads the form of [`KeyPair::to_jwk`].
    pub fn from_jwk(jwk: &Value) -> Result<Self, JwkError> {
        let public = PublicKey::from_jwk(jwk)?;
        let key = Self::from_scalar(public.curve(), &bytes(jwk, "d")?)?;
        if *key.public() == public { Ok(key) } else { Err(JwkError::Mismatch) }
    }
}

impl RsaPublicKey {
    /// `{"kty":"RSA","n","e","kid"?}`
    pub fn to_jwk(&self, kid: Option<&str>) -> Value {
        let (n, e) = (encode(self.modulus()), encode(self.exponent()));
        with_kid(json!({"kty": "RSA", "n": n, "e": e}), kid)
    }

    /// Reads the form of [`RsaPublicKey::to_jwk`]; other fields are ignored.
    pub fn from_jwk(jwk: &Value) -> Result<Self, JwkError> {
        kind(jwk, "RSA")?;
        Ok(Self::from_components(&bytes(jwk, "n")?, &bytes(jwk, "e")?)?)
    }
}

impl RsaKeyPair {
    /// The public form with `d`, `p`, `q`, `dp`, `dq` and `qi`.
    pub fn to_jwk(&self, kid: Option<&str>) -> Result<Value, JwkError> {
        let RsaComponents { d, p, q, dp, dq, qi, .. } = self.numbers()?;
        let mut jwk = self.public().to_jwk(kid);
        let private = [("d", d), ("p", p), ("q", q), ("dp", dp), ("dq", dq), ("qi", qi)];
        for (field, number) in private {
            insert(&mut jwk, field, encode(number));
        }
        Ok(jwk)
    }

    /// Reads the form of [`RsaKeyPair::to_jwk`], of which every number is needed.
    pub fn from_jwk(jwk: &Value) -> Result<Self, JwkError> {
        kind(jwk, "RSA")?;
        let read = |field| bytes(jwk, field);
        let [n, e, d] = [read("n")?, read("e")?, read("d")?];
        let [p, q] = [read("p")?, read("q")?];
        let [dp, dq, qi] = [read("dp")?, read("dq")?, read("qi")?];
        let numbers = RsaComponents {
            n: n.as_slice(),
            e: e.as_slice(),
            d: d.as_slice(),
            p: p.as_slice(),
            q: q.as_slice(),
            dp: dp.as_slice(),
            dq: dq.as_slice(),
            qi: qi.as_slice(),
        };
        Ok(Self::from_numbers(&numbers)?)
    }
}

impl OkpPublicKey {
    /// `{"kty":"OKP","crv":"Ed25519"|"X25519","x","kid"?}`
    pub fn to_jwk(&self, kid: Option<&str>) -> Value {
        let crv = match self.curve {
            OkpCurve::Ed25519 => "Ed25519",
            OkpCurve::X25519 => "X25519",
        };
        with_kid(json!({"kty": "OKP", "crv": crv, "x": encode(&self.bytes)}), kid)
    }

    /// Reads the form of [`OkpPublicKey::to_jwk`]; other fields are ignored.
    pub fn from_jwk(jwk: &Value) -> Result<Self, JwkError> {
        kind(jwk, "OKP")?;
        let curve = match text(jwk, "crv")? {
            "Ed25519" => OkpCurve::Ed25519,
            "X25519" => OkpCurve::X25519,
            _ => return Err(JwkError::Kind { field: "crv", expected: "Ed25519 or X25519" }),
        };
        Ok(Self { curve, bytes: *bytes_32(jwk, "x")? })
    }
}

impl OkpKeyPair {
    /// The public form with `d`.
    pub fn to_jwk(&self, kid: Option<&str>) -> Value {
        let mut jwk = self.public().to_jwk(kid);
        insert(&mut jwk, "d", encode(self.secret()));
        jwk
    }

    /// Reads the form of [`OkpKeyPair::to_jwk`].
    pub fn from_jwk(jwk: &Value) -> Result<Self, JwkError> {
        let public = OkpPublicKey::from_jwk(jwk)?;
        let key = Self::from_secret(public.curve, bytes_32(jwk, "d")?)?;
        if *key.public() == public { Ok(key) } else { Err(JwkError::Mismatch) }
    }
}

fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn insert(jwk: &mut Value, field: &str, value: String) {
    if let Value::Object(fields) = jwk {
        fields.insert(field.to_owned(), Value::String(value));
    }
}

fn with_kid(mut jwk: Value, kid: Option<&str>) -> Value {
    if let Some(kid) = kid {
        insert(&mut jwk, "kid", kid.to_owned());
    }
    jwk
}

fn text<'a>(jwk: &'a Value, field: &'static str) -> Result<&'a str, JwkError> {
    let fields: Option<&Map<String, Value>> = jwk.as_object();
    fields.and_then(|all| all.get(field)?.as_str()).ok_or(JwkError::Missing { field })
}

fn bytes(jwk: &Value, field: &'static str) -> Result<Zeroizing<Vec<u8>>, JwkError> {
    let text = text(jwk, field)?;
    if text.len() > MAX_FIELD_LEN {
        return Err(JwkError::Encoding { field });
    }
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| JwkError::Encoding { field })?;
    Ok(Zeroizing::new(bytes))
}

fn bytes_32(jwk: &Value, field: &'static str) -> Result<Zeroizing<[u8; 32]>, JwkError> {
    let bytes = bytes(jwk, field)?;
    bytes.as_slice().try_into().map(Zeroizing::new).map_err(|_| JwkError::Encoding { field })
}

fn kind(jwk: &Value, expected: &'static str) -> Result<(), JwkError> {
    if text(jwk, "kty")? == expected {
        Ok(())
    } else {
        Err(JwkError::Kind { field: "kty", expected })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::entropy::testing::Counter;

    #[test]
    fn the_ec_key_of_rfc_7517_a_2() {
        let jwk = json!({
            "kty": "EC",
            "crv": "P-256",
            "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
            "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM",
            "d": "870MB6gfuTJ4HtUnUvYMyJpr5eUZNP4Bk43bVdj3eAE",
            "use": "enc",
            "kid": "1"
        });
        let key = KeyPair::from_jwk(&jwk).unwrap();
        let mut expected = jwk;
        expected.as_object_mut().unwrap().remove("use");
        assert_eq!(key.to_jwk(Some("1")).unwrap(), expected);
    }

    #[test]
    fn rsa_keys_come_back() {
        let key = crate::rsa::tests::key();
        let jwk = key.to_jwk(None).unwrap();
        assert_eq!(*RsaKeyPair::from_jwk(&jwk).unwrap().to_pem(), *key.to_pem());
        let public = key.public().to_jwk(Some("k"));
        assert_eq!(&RsaPublicKey::from_jwk(&public).unwrap(), key.public());
        assert_eq!(public["e"], "AQAB");
        let mut without_primes = jwk.clone();
        without_primes.as_object_mut().unwrap().remove("p");
        assert_eq!(
            RsaKeyPair::from_jwk(&without_primes).unwrap_err(),
            JwkError::Missing { field: "p" }
        );
        let mut swapped = jwk;
        swapped["dp"] = swapped["dq"].clone();
        assert!(matches!(RsaKeyPair::from_jwk(&swapped), Err(JwkError::Key(_))));
    }

    #[test]
    fn faults_are_named() {
        let key = KeyPair::generate(Curve::P256, &Counter::new(1)).unwrap();
        let good = key.to_jwk(None).unwrap();
        let with = |field: &str, value: Value| {
            let mut jwk = good.clone();
            jwk[field] = value;
            jwk
        };
        let d_of_another = KeyPair::generate(Curve::P256, &Counter::new(2)).unwrap();
        let d_of_another = d_of_another.to_jwk(None).unwrap()["d"].clone();
        let cases = [
            (json!(null), JwkError::Missing { field: "kty" }),
            (json!([]), JwkError::Missing { field: "kty" }),
            (with("kty", json!(1)), JwkError::Missing { field: "kty" }),
            (with("kty", json!("RSA")), JwkError::Kind { field: "kty", expected: "EC" }),
            (
                with("crv", json!("P-521")),
                JwkError::Kind { field: "crv", expected: "P-256 or P-384" },
            ),
            (with("x", json!("=")), JwkError::Encoding { field: "x" }),
            (with("x", json!("AA")), JwkError::Encoding { field: "x" }),
            (with("y", json!("A".repeat(2000))), JwkError::Encoding { field: "y" }),
            (
                with("y", json!(encode(&[1; 32]))),
                KeyError::PublicKey { expected: crate::ec::EXPECTED_EC }.into(),
            ),
            (
                with("d", json!("")),
                KeyError::PrivateKey { expected: crate::ec::EXPECTED_EC }.into(),
            ),
            (with("d", d_of_another), JwkError::Mismatch),
        ];
        for (jwk, error) in cases {
            assert_eq!(KeyPair::from_jwk(&jwk).unwrap_err(), error, "{jwk}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn ec_and_okp_keys_come_back(seed: u32, kid in proptest::option::of("[a-z]{0,5}")) {
            let entropy = Counter::new(seed.into());
            let kid = kid.as_deref();
            for curve in [Curve::P256, Curve::P384] {
                let key = KeyPair::generate(curve, &entropy).unwrap();
                let jwk = key.to_jwk(kid).unwrap();
                prop_assert_eq!(jwk.get("kid").and_then(Value::as_str), kid);
                let again = KeyPair::from_jwk(&jwk).unwrap();
                prop_assert_eq!(again.pkcs8_der(), key.pkcs8_der());
                prop_assert_eq!(&PublicKey::from_jwk(&key.public().to_jwk(kid)).unwrap(), key.public());
            }
            for curve in [OkpCurve::Ed25519, OkpCurve::X25519] {
                let key = OkpKeyPair::generate(curve, &entropy).unwrap();
                let again = OkpKeyPair::from_jwk(&key.to_jwk(kid)).unwrap();
                prop_assert_eq!(again.to_pem(), key.to_pem());
                prop_assert_eq!(&OkpPublicKey::from_jwk(&key.public().to_jwk(kid)).unwrap(), key.public());
            }
        }
    }
}
