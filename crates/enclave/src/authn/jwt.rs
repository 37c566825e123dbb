//! Bearer tokens: JWTs signed by keys that governance registered for an issuer.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use coco_adapter::Caller;
use coco_crypto::{Digest, HashAlgorithm, PublicKey, RsaPublicKey, sha256};
use coco_governance::tables::{JWT_PUBLIC_SIGNING_KEYS, JwtKey};
use coco_kv::Tx;
use http::{Request, header};
use serde::Deserialize;
use serde_json::Value as Json;

use super::{Authenticator, Credentials, Refusal};

/// Longest token that is looked at.
const MAX_TOKEN_BYTES: usize = 32 * 1024;
/// Stands for the token's `tid` in an issuer constraint.
const TENANT: &str = "{tenantid}";

/// A token, taken apart, nothing verified.
#[derive(Clone)]
pub(super) struct Token {
    digest: Digest,
    text: Arc<str>,
    signed_len: usize,
    algorithm: Algorithm,
    key_id: String,
    header: Json,
    payload: Json,
    claims: Claims,
    signature: Vec<u8>,
}

/// The key that verified a token.
pub(super) struct VerifiedToken {
    key: JwtKey,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
enum Algorithm {
    RS256,
    RS384,
    RS512,
    PS256,
    ES256,
    ES384,
}

#[derive(Clone, Deserialize)]
struct Header {
    alg: Algorithm,
    kid: String,
}

/// Times are NumericDate: seconds, perhaps with a fraction (RFC 7519 section 2).
#[derive(Clone, Deserialize)]
struct Claims {
    exp: f64,
    nbf: Option<f64>,
    iss: Option<String>,
    tid: Option<String>,
}

impl Authenticator {
    pub(super) fn token(
        &self,
        credentials: &mut Credentials<'_>,
        tx: &mut Tx,
    ) -> Result<Caller, Refusal> {
        let request = credentials.request;
        let token = credentials.token.get_or_insert_with(|| Token::of(request)).clone()?;
        let registered = JWT_PUBLIC_SIGNING_KEYS.get(tx, &token.key_id)?.unwrap_or_default();
        if registered.is_empty() {
            let id = &token.key_id;
            return Err(Refusal::new(format!("JWT signing key not found for kid {id}.")));
        }
        let key = self.signing_key(&token, &registered)?;
        token.check_times(credentials.now_s)?;
        Ok(Caller::Jwt { key_issuer: key.issuer, header: token.header, payload: token.payload })
    }

    /// The registered key that verifies the token and whose constraint it meets.
    fn signing_key(&self, token: &Token, registered: &[JwtKey]) -> Result<JwtKey, Refusal> {
        if let Some(verified) = self.tokens.get(&token.digest)
            && registered.contains(&verified.key)
        {
            return Ok(verified.key.clone());
        }
        let mut why = Refusal::new("Signature verification failed.");
        for key in registered {
            if !token.is_signed_by(key) {
                continue;
            }
            match token.check_issuer(key.constraint.as_deref()) {
                Ok(()) => {
                    let verified = Arc::new(VerifiedToken { key: key.clone() });
                    self.tokens.insert(token.digest, verified);
                    return Ok(key.clone());
                }
                Err(refusal) => why = refusal,
            }
        }
        Err(why)
    }
}

impl Token {
    fn of<B>(request: &Request<B>) -> Result<Self, Refusal> {
        let value = request
            .headers()
            .get(header::AUTHORIZATION)
            .ok_or_else(|| Refusal::new("Missing authorization header."))?;
        let bearer = value.to_str().ok().and_then(|text| text.split_once(' '));
        match bearer {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => {
                Self::parse(token.trim_start())
            }
            _ => Err(Refusal::new("Authorization header does not carry a bearer token.")),
        }
    }

    fn parse(text: &str) -> Result<Self, Refusal> {
        let malformed = || Refusal::new("Malformed JWT.");
        if text.len() > MAX_TOKEN_BYTES {
            return Err(Refusal::new("JWT is too long."));
        }
        let (signed, signature) = text.rsplit_once('.').ok_or_else(malformed)?;
        let (header, payload) = signed.split_once('.').ok_or_else(malformed)?;
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| malformed());
        let object = |part: &str| -> Result<Json, Refusal> {
            serde_json::from_slice(&decode(part)?).map_err(|_| malformed())
        };
        let (header, payload) = (object(header)?, object(payload)?);
        let Header { alg, kid } = Header::deserialize(&header)
            .map_err(|error| Refusal::new(format!("JWT header is not acceptable: {error}.")))?;
        let claims = Claims::deserialize(&payload)
            .map_err(|error| Refusal::new(format!("JWT claims are not acceptable: {error}.")))?;
        Ok(Self {
            digest: sha256(text.as_bytes()),
            signed_len: signed.len(),
            text: text.into(),
            algorithm: alg,
            key_id: kid,
            signature: decode(signature)?,
            header,
            payload,
            claims,
        })
    }

    fn is_signed_by(&self, key: &JwtKey) -> bool {
        let signed = self.text.as_bytes().get(..self.signed_len).unwrap_or_default();
        let spki = &key.public_key.0;
        let rsa = || RsaPublicKey::from_spki_der(spki).ok();
        let pkcs1 =
            |hash| rsa().is_some_and(|key| key.verify_pkcs1(hash, signed, &self.signature).is_ok());
        match self.algorithm {
            Algorithm::RS256 => pkcs1(HashAlgorithm::Sha256),
            Algorithm::RS384 => pkcs1(HashAlgorithm::Sha384),
            Algorithm::RS512 => pkcs1(HashAlgorithm::Sha512),
            Algorithm::PS256 => rsa().is_some_and(|key| {
                key.verify_pss(HashAlgorithm::Sha256, 32, signed, &self.signature).is_ok()
            }),
            Algorithm::ES256 | Algorithm::ES384 => {
                PublicKey::from_spki_der(spki).is_ok_and(|key| {
                    self.algorithm.fits(&key) && key.verify_p1363(signed, &self.signature).is_ok()
                })
            }
        }
    }

    fn check_times(&self, now_s: u64) -> Result<(), Refusal> {
        let now = now_s as f64;
        if let Some(not_before) = self.claims.nbf
            && now < not_before
        {
            return Err(Refusal::new(format!(
                "Current time {now_s} is before token's Not Before (nbf) claim {not_before}."
            )));
        }
        let expiry = self.claims.exp;
        if now > expiry {
            return Err(Refusal::new(format!(
                "Current time {now_s} is after token's Expiration Time (exp) claim {expiry}."
            )));
        }
        Ok(())
    }

    /// A key without a constraint signs for any issuer.
    fn check_issuer(&self, constraint: Option<&str>) -> Result<(), Refusal> {
        let Some(constraint) = constraint else { return Ok(()) };
        let issuer = self.claims.iss.as_deref().unwrap_or_default();
        let expected = match (constraint.contains(TENANT), self.claims.tid.as_deref()) {
            (false, _) => Some(constraint.to_owned()),
            (true, Some(tenant)) if is_tenant(tenant) => Some(constraint.replace(TENANT, tenant)),
            (true, _) => None,
        };
        if expected.is_some_and(|expected| expected == issuer) {
            return Ok(());
        }
        Err(Refusal::new(format!("JWT issuer {issuer:?} does not meet constraint {constraint:?}.")))
    }
}

/// A tenant must not be able to change the shape of the issuer's URL.
fn is_tenant(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
}

impl Algorithm {
    fn fits(self, key: &PublicKey) -> bool {
        use coco_crypto::Curve;
        matches!((self, key.curve()), (Self::ES256, Curve::P256) | (Self::ES384, Curve::P384))
    }
}
