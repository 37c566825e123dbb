//! `ccf.crypto`: keys, signatures, digests and certificates, all by `coco-crypto`.

use coco_crypto::key_wrap;
use coco_crypto::x509;
use coco_crypto::{
    Certificate, Curve, HashAlgorithm, KeyPair, OkpCurve, OkpKeyPair, OkpPublicKey, PublicKey,
    RsaKeyPair, RsaPublicKey, SignatureAlgorithm,
};
use rquickjs::function::Opt;
use rquickjs::{Ctx, Exception, Object, Result, Value};

use super::basic::{
    array_buffer, bytes_argument, json_argument, or_throw, parse_json, string_argument,
};
use super::member::{Member, function, object};
use crate::call::{self, with_environment};

/// Makes a [`Member`] from PEM to JWK.
macro_rules! pem_to_jwk {
    ($name:literal, $key:ty) => {{
        fn convert<'js>(
            ctx: Ctx<'js>,
            pem: Value<'js>,
            kid: Opt<Value<'js>>,
        ) -> Result<Value<'js>> {
            let (pem, kid) = (string_argument(&pem, "pem")?, kid_argument(kid)?);
            let key = or_throw(&ctx, <$key>::from_pem(&pem))?;
            let jwk = key.to_jwk(kid.as_deref()).into_json(&ctx)?;
            parse_json(&ctx, jwk.to_string().as_bytes())
        }
        function!($name, convert)
    }};
}

/// Makes a [`Member`] from JWK to PEM.
macro_rules! jwk_to_pem {
    ($name:literal, $key:ty) => {{
        fn convert<'js>(ctx: Ctx<'js>, jwk: Value<'js>) -> Result<rquickjs::String<'js>> {
            let key = or_throw(&ctx, <$key>::from_jwk(&json_argument(jwk)?))?;
            let pem = key.to_pem();
            rquickjs::String::from_str(ctx, &pem)
        }
        function!($name, convert)
    }};
}

const MEMBERS: &[Member] = &[
    function!("sign", sign),
    function!("verifySignature", verify_signature),
    function!("digest", digest),
    function!("generateAesKey", generate_aes_key),
    function!("generateRsaKeyPair", generate_rsa_key_pair),
    function!("generateEcdsaKeyPair", generate_ecdsa_key_pair),
    function!("generateEddsaKeyPair", generate_eddsa_key_pair),
    function!("wrapKey", wrap_key),
    function!("unwrapKey", unwrap_key),
    function!("isValidX509CertBundle", is_valid_bundle),
    function!("isValidX509CertChain", is_valid_chain),
    pem_to_jwk!("pubPemToJwk", PublicKey),
    pem_to_jwk!("pemToJwk", KeyPair),
    pem_to_jwk!("pubRsaPemToJwk", RsaPublicKey),
    pem_to_jwk!("rsaPemToJwk", RsaKeyPair),
    pem_to_jwk!("pubEddsaPemToJwk", OkpPublicKey),
    pem_to_jwk!("eddsaPemToJwk", OkpKeyPair),
    jwk_to_pem!("pubJwkToPem", PublicKey),
    jwk_to_pem!("jwkToPem", KeyPair),
    jwk_to_pem!("pubRsaJwkToPem", RsaPublicKey),
    jwk_to_pem!("rsaJwkToPem", RsaKeyPair),
    jwk_to_pem!("pubEddsaJwkToPem", OkpPublicKey),
    jwk_to_pem!("eddsaJwkToPem", OkpKeyPair),
];

pub(super) fn crypto<'js>(ctx: &Ctx<'js>) -> Result<Value<'js>> {
    object(ctx, &[MEMBERS])
}

/// Public keys always have a JWK, private ones may refuse.
trait IntoJson {
    fn into_json(self, ctx: &Ctx<'_>) -> Result<serde_json::Value>;
}

impl IntoJson for serde_json::Value {
    fn into_json(self, _ctx: &Ctx<'_>) -> Result<serde_json::Value> {
        Ok(self)
    }
}

impl<E: std::fmt::Display> IntoJson for std::result::Result<serde_json::Value, E> {
    fn into_json(self, ctx: &Ctx<'_>) -> Result<serde_json::Value> {
        or_throw(ctx, self)
    }
}

fn kid_argument(kid: Opt<Value<'_>>) -> Result<Option<String>> {
    let kid = kid.0.filter(|kid| !kid.is_undefined() && !kid.is_null());
    kid.map(|kid| string_argument(&kid, "kid")).transpose()
}

/// Hex of the SHA-256 of a PEM certificate's DER: the id of a member or participant.
pub(super) fn pem_to_id<'js>(ctx: Ctx<'js>, pem: Value<'js>) -> Result<String> {
    let pem = string_argument(&pem, "pem")?;
    Ok(or_throw(&ctx, Certificate::from_pem(&pem))?.fingerprint().to_string())
}

fn hash(ctx: &Ctx<'_>, name: &Value<'_>) -> Result<HashAlgorithm> {
    or_throw(ctx, string_argument(name, "hash")?.parse())
}

fn algorithm<'js>(ctx: &Ctx<'js>, algorithm: &Value<'js>) -> Result<SignatureAlgorithm> {
    let Some(object) = algorithm.as_object() else {
        return Err(Exception::throw_type(ctx, "Argument algorithm must be an object"));
    };
    let hash = || hash(ctx, &object.get("hash")?);
    Ok(match string_argument(&object.get("name")?, "algorithm.name")?.as_str() {
        "RSA-PSS" => {
            let salt: Option<u32> = object.get("saltLength")?;
            let salt_len_bytes = salt.unwrap_or(0) as usize;
            SignatureAlgorithm::RsaPss { hash: hash()?, salt_len_bytes }
        }
        "RSASSA-PKCS1-v1_5" => SignatureAlgorithm::RsaPkcs1 { hash: hash()? },
        "ECDSA" => SignatureAlgorithm::Ecdsa { hash: hash()? },
        "EdDSA" => SignatureAlgorithm::EdDsa,
        "HMAC" => SignatureAlgorithm::Hmac { hash: hash()? },
        other => {
            let message = format!(
                "Unknown algorithm {other:?}: expected RSA-PSS, RSASSA-PKCS1-v1_5, ECDSA, EdDSA or HMAC"
            );
            return Err(Exception::throw_type(ctx, &message));
        }
    })
}

fn sign<'js>(
    ctx: Ctx<'js>,
    how: Value<'js>,
    key: Value<'js>,
    message: Value<'js>,
) -> Result<Value<'js>> {
    let (how, key) = (algorithm(&ctx, &how)?, string_argument(&key, "key")?);
    let signature = how.sign(&key, &bytes_argument(&message, "plaintext")?);
    array_buffer(&ctx, &or_throw(&ctx, signature)?)
}

fn verify_signature<'js>(
    ctx: Ctx<'js>,
    how: Value<'js>,
    key: Value<'js>,
    signature: Value<'js>,
    message: Value<'js>,
) -> Result<bool> {
    let (how, key) = (algorithm(&ctx, &how)?, string_argument(&key, "key")?);
    let signature = bytes_argument(&signature, "signature")?;
    let message = bytes_argument(&message, "plaintext")?;
    or_throw(&ctx, how.verify(&key, &message, &signature))
}

pub(super) fn digest<'js>(ctx: Ctx<'js>, name: Value<'js>, data: Value<'js>) -> Result<Value<'js>> {
    let hash = hash(&ctx, &name)?;
    array_buffer(&ctx, &hash.digest(&bytes_argument(&data, "plaintext")?))
}

pub(super) fn generate_aes_key(ctx: Ctx<'_>, bits: u32) -> Result<Value<'_>> {
    let key = with_environment(&ctx, |environment| {
        key_wrap::generate_aes_key(bits as usize, environment.entropy())
    })?;
    array_buffer(&ctx, &or_throw(&ctx, key)?)
}

pub(super) fn generate_rsa_key_pair(
    ctx: Ctx<'_>,
    bits: u32,
    exponent: Opt<Option<u32>>,
) -> Result<Object<'_>> {
    /// Larger keys take longer to find than a script may run, and cannot be interrupted.
    const MAX_BITS: u32 = 4096;
    const EXPONENT: u32 = 65_537;
    if bits > MAX_BITS {
        let message = format!("RSA keys of more than {MAX_BITS} bits are not generated");
        return Err(Exception::throw_range(&ctx, &message));
    }
    if exponent.0.flatten().is_some_and(|exponent| exponent != EXPONENT) {
        let message = format!("The public exponent must be {EXPONENT}");
        return Err(Exception::throw_range(&ctx, &message));
    }
    let key = or_throw(&ctx, RsaKeyPair::generate(bits))?;
    key_pair(ctx, &key.to_pem(), &key.public().to_pem())
}

pub(super) fn generate_ecdsa_key_pair<'js>(
    ctx: Ctx<'js>,
    curve: Value<'js>,
) -> Result<Object<'js>> {
    let curve = match string_argument(&curve, "curve")?.as_str() {
        "secp256r1" => Curve::P256,
        "secp384r1" => Curve::P384,
        other => return Err(unknown_curve(&ctx, other, "secp256r1 or secp384r1")),
    };
    let key = with_environment(&ctx, |node| KeyPair::generate(curve, node.entropy()))?;
    let key = or_throw(&ctx, key)?;
    key_pair(ctx, &key.to_pem(), &key.public().to_pem())
}

pub(super) fn generate_eddsa_key_pair<'js>(
    ctx: Ctx<'js>,
    curve: Value<'js>,
) -> Result<Object<'js>> {
    let curve = match string_argument(&curve, "curve")?.as_str() {
        "curve25519" => OkpCurve::Ed25519,
        "x25519" => OkpCurve::X25519,
        other => return Err(unknown_curve(&ctx, other, "curve25519 or x25519")),
    };
    let key = with_environment(&ctx, |node| OkpKeyPair::generate(curve, node.entropy()))?;
    let key = or_throw(&ctx, key)?;
    key_pair(ctx, &key.to_pem(), &key.public().to_pem())
}

fn unknown_curve(ctx: &Ctx<'_>, curve: &str, expected: &str) -> rquickjs::Error {
    Exception::throw_range(ctx, &format!("Unsupported curve {curve:?}: expected {expected}"))
}

fn key_pair<'js>(ctx: Ctx<'js>, private_pem: &str, public_pem: &str) -> Result<Object<'js>> {
    let pair = Object::new(ctx)?;
    pair.set("privateKey", private_pem)?;
    pair.set("publicKey", public_pem)?;
    Ok(pair)
}

/// How a key is wrapped: `{name, label?, aesKeySize?}`.
enum Wrapping {
    RsaOaep { label: Vec<u8> },
    AesKwp,
    RsaOaepAesKwp { label: Vec<u8>, aes_key_bits: usize },
}

fn wrapping<'js>(ctx: &Ctx<'js>, algorithm: &Value<'js>) -> Result<Wrapping> {
    let Some(object) = algorithm.as_object() else {
        return Err(Exception::throw_type(ctx, "Argument wrapAlgo must be an object"));
    };
    let label = || -> Result<Vec<u8>> {
        let label: Value<'js> = object.get("label")?;
        if label.is_undefined() { Ok(Vec::new()) } else { bytes_argument(&label, "label") }
    };
    Ok(match string_argument(&object.get("name")?, "wrapAlgo.name")?.as_str() {
        "RSA-OAEP" => Wrapping::RsaOaep { label: label()? },
        "AES-KWP" => Wrapping::AesKwp,
        "RSA-OAEP-AES-KWP" => {
            let aes_key_bits: Option<u32> = object.get("aesKeySize")?;
            let aes_key_bits = aes_key_bits.unwrap_or(0) as usize;
            Wrapping::RsaOaepAesKwp { label: label()?, aes_key_bits }
        }
        other => {
            let message = format!(
                "Unknown wrapping {other:?}: expected RSA-OAEP, AES-KWP or RSA-OAEP-AES-KWP"
            );
            return Err(Exception::throw_type(ctx, &message));
        }
    })
}

pub(super) fn wrap_key<'js>(
    ctx: Ctx<'js>,
    key: Value<'js>,
    wrapping_key: Value<'js>,
    algorithm: Value<'js>,
) -> Result<Value<'js>> {
    let key = bytes_argument(&key, "key")?;
    let wrapping_key = bytes_argument(&wrapping_key, "wrappingKey")?;
    let rsa = || or_throw(&ctx, RsaPublicKey::from_pem(&String::from_utf8_lossy(&wrapping_key)));
    let wrapped = match wrapping(&ctx, &algorithm)? {
        Wrapping::RsaOaep { label } => or_throw(&ctx, rsa()?.encrypt_oaep(&key, &label)),
        Wrapping::AesKwp => or_throw(&ctx, key_wrap::wrap_aes_kwp(&wrapping_key, &key)),
        Wrapping::RsaOaepAesKwp { label, aes_key_bits } => {
            let rsa = rsa()?;
            let wrapped = with_environment(&ctx, |node| {
                key_wrap::wrap_rsa_aes_kwp(&rsa, aes_key_bits, &label, &key, node.entropy())
            })?;
            or_throw(&ctx, wrapped)
        }
    };
    array_buffer(&ctx, &wrapped?)
}

fn unwrap_key<'js>(
    ctx: Ctx<'js>,
    wrapped: Value<'js>,
    wrapping_key: Value<'js>,
    algorithm: Value<'js>,
) -> Result<Value<'js>> {
    let wrapped = bytes_argument(&wrapped, "key")?;
    let wrapping_key = bytes_argument(&wrapping_key, "wrappingKey")?;
    let rsa = || or_throw(&ctx, RsaKeyPair::from_pem(&String::from_utf8_lossy(&wrapping_key)));
    let key = match wrapping(&ctx, &algorithm)? {
        Wrapping::RsaOaep { label } => or_throw(&ctx, rsa()?.decrypt_oaep(&wrapped, &label))?,
        Wrapping::AesKwp => or_throw(&ctx, key_wrap::unwrap_aes_kwp(&wrapping_key, &wrapped))?,
        Wrapping::RsaOaepAesKwp { label, .. } => {
            or_throw(&ctx, key_wrap::unwrap_rsa_aes_kwp(&rsa()?, &label, &wrapped))?
        }
    };
    array_buffer(&ctx, &key)
}

pub(super) fn is_valid_bundle(pem: Value<'_>) -> Result<bool> {
    Ok(x509::is_valid_bundle(&string_argument(&pem, "pem")?))
}

/// Whether a chain leads to a trusted certificate now, by the node's clock.
pub(super) fn is_valid_chain<'js>(chain: Value<'js>, trusted: Value<'js>) -> Result<bool> {
    let chain = string_argument(&chain, "chain")?;
    let trusted = string_argument(&trusted, "trusted")?;
    let now_s = call::now_ms().and_then(|now_ms| i64::try_from(now_ms / 1000).ok());
    // A text that is no certificate is no chain.
    Ok(x509::is_valid_chain(&chain, &trusted, now_s.unwrap_or_default()).unwrap_or(false))
}
