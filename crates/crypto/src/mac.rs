//! HMAC-SHA256 and HKDF-SHA256.

use aws_lc_rs::{hkdf, hmac};
use zeroize::Zeroizing;

/// HKDF gives at most 255 blocks of SHA-256 (RFC 5869 section 2.3).
pub const HKDF_SHA256_MAX_LEN_BYTES: usize = 255 * 32;

/// More output was asked of HKDF-SHA256 than it can give.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("HKDF-SHA256 gives at most {HKDF_SHA256_MAX_LEN_BYTES} bytes, not {len_bytes}")]
pub struct HkdfLength {
    /// What was asked for.
    pub len_bytes: usize,
}

/// HMAC-SHA256 of a message, RFC 2104.
pub fn hmac_sha256(key: &[u8], message: &[u8]) -> [u8; 32] {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message);
    let mut bytes = [0; 32];
    bytes.copy_from_slice(tag.as_ref());
    bytes
}

/// HKDF-SHA256, RFC 5869: extract from `ikm` under `salt` (empty: 32 zero bytes), expand under
/// `info` to `len_bytes`.
pub fn hkdf_sha256(
    ikm: &[u8],
    salt: &[u8],
    info: &[u8],
    len_bytes: usize,
) -> Result<Zeroizing<Vec<u8>>, HkdfLength> {
    struct Len(usize);
    impl hkdf::KeyType for Len {
        fn len(&self) -> usize {
            self.0
        }
    }

    let mut out = Zeroizing::new(vec![0; len_bytes.min(HKDF_SHA256_MAX_LEN_BYTES)]);
    hkdf::Salt::new(hkdf::HKDF_SHA256, salt)
        .extract(ikm)
        .expand(&[info], Len(len_bytes))
        .and_then(|okm| okm.fill(&mut out))
        .map_err(|_| HkdfLength { len_bytes })?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hmac_of_rfc_4231_case_2() {
        assert_eq!(
            hex::encode(hmac_sha256(b"Jefe", b"what do ya want for nothing?")),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
    }

    #[test]
    fn hkdf_of_rfc_5869_cases_1_and_3() {
        let ikm = [0x0b; 22];
        let salt = hex::decode("000102030405060708090a0b0c").unwrap();
        let info = hex::decode("f0f1f2f3f4f5f6f7f8f9").unwrap();
        assert_eq!(
            hex::encode(hkdf_sha256(&ikm, &salt, &info, 42).unwrap()),
            "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"
        );
        assert_eq!(
            hex::encode(hkdf_sha256(&ikm, b"", b"", 42).unwrap()),
            "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8"
        );
    }

    #[test]
    fn hkdf_has_a_limit() {
        assert_eq!(hkdf_sha256(b"k", b"", b"", 0).unwrap().len(), 0);
        assert_eq!(hkdf_sha256(b"k", b"", b"", 8160).unwrap().len(), 8160);
        assert_eq!(hkdf_sha256(b"k", b"", b"", 8161), Err(HkdfLength { len_bytes: 8161 }));
        assert!(hkdf_sha256(b"k", b"", b"", usize::MAX).is_err());
    }
}
