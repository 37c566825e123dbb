//! PEM (RFC 7468), with buffers that are zeroized because most of what passes here is a private key.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

/// Longest PEM text that is read: a bundle of a few hundred certificates.
pub const PEM_MAX_LEN_BYTES: usize = 1024 * 1024;

/// Why a text is not the PEM that was expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PemError {
    /// Longer than [`PEM_MAX_LEN_BYTES`].
    #[error("a PEM text of {len_bytes} bytes is too long (limit {PEM_MAX_LEN_BYTES})")]
    TooLong {
        /// Its length.
        len_bytes: usize,
    },
    /// There is no block with the label that was expected.
    #[error("no PEM block with the label {expected:?}")]
    Missing {
        /// The label, e.g. `CERTIFICATE`.
        expected: &'static str,
    },
    /// A block starts but does not end with the same label.
    #[error("PEM block {block} is not closed")]
    NotClosed {
        /// Which block, from zero.
        block: usize,
    },
    /// The body of a block is not base64.
    #[error("PEM block {block} is not base64")]
    NotBase64 {
        /// Which block, from zero.
        block: usize,
    },
}

pub(crate) struct Block<'a> {
    pub(crate) label: &'a str,
    pub(crate) der: Zeroizing<Vec<u8>>,
}

/// The text of one block: 64 columns, LF, as OpenSSL writes it.
pub(crate) fn encode(label: &str, der: &[u8]) -> String {
    let body = Zeroizing::new(STANDARD.encode(der));
    let mut rest = body.as_str();
    // Sized once, so that no part of a private key stays behind in a buffer that was outgrown.
    let mut text = String::with_capacity(body.len() + body.len() / 64 + 2 * label.len() + 40);
    text.extend(["-----BEGIN ", label, "-----\n"]);
    while !rest.is_empty() {
        let (line, tail) = rest.split_at(rest.len().min(64));
        text.extend([line, "\n"]);
        rest = tail;
    }
    text.extend(["-----END ", label, "-----\n"]);
    text
}

/// All blocks of a text; whatever stands between them is ignored, as RFC 7468 section 2 allows.
pub(crate) fn blocks(text: &str) -> Result<Vec<Block<'_>>, PemError> {
    if text.len() > PEM_MAX_LEN_BYTES {
        return Err(PemError::TooLong { len_bytes: text.len() });
    }
    let mut found = Vec::new();
    let mut rest = text;
    while let Some((_, after)) = rest.split_once("-----BEGIN ") {
        let block = found.len();
        let (label, after) = after.split_once("-----").ok_or(PemError::NotClosed { block })?;
        let (body, after) = after.split_once("-----END ").ok_or(PemError::NotClosed { block })?;
        let (end, after) = after.split_once("-----").ok_or(PemError::NotClosed { block })?;
        if end != label {
            return Err(PemError::NotClosed { block });
        }
        let mut base64 = Zeroizing::new(String::with_capacity(body.len()));
        base64.extend(body.split_ascii_whitespace());
        let der = STANDARD.decode(&*base64).map_err(|_| PemError::NotBase64 { block })?;
        found.push(Block { label, der: Zeroizing::new(der) });
        rest = after;
    }
    Ok(found)
}

/// The first block with this label.
pub(crate) fn decode(text: &str, label: &'static str) -> Result<Zeroizing<Vec<u8>>, PemError> {
    blocks(text)?
        .into_iter()
        .find(|block| block.label == label)
        .map(|block| block.der)
        .ok_or(PemError::Missing { expected: label })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn faults_are_named() {
        let good = encode("X", b"some bytes");
        assert_eq!(decode(&good, "Y"), Err(PemError::Missing { expected: "Y" }));
        assert_eq!(decode("", "X"), Err(PemError::Missing { expected: "X" }));
        let cases = [
            (good.replace("END X", "END Y"), PemError::NotClosed { block: 0 }),
            (good.replace("-----END X-----\n", ""), PemError::NotClosed { block: 0 }),
            ("-----BEGIN ".to_owned(), PemError::NotClosed { block: 0 }),
            (format!("{good}{}", good.replace("c29t", "?*")), PemError::NotBase64 { block: 1 }),
            (
                "x".repeat(PEM_MAX_LEN_BYTES + 1),
                PemError::TooLong { len_bytes: PEM_MAX_LEN_BYTES + 1 },
            ),
        ];
        for (text, error) in cases {
            assert_eq!(blocks(&text).err(), Some(error));
        }
    }

    #[test]
    fn text_around_blocks_and_crlf_are_fine() {
        let text = format!("hello\n{}between\r\n{}", encode("A", b"1"), encode("B", &[7; 100]));
        let text = text.replace('\n', "\r\n");
        assert_eq!(&*decode(&text, "B").unwrap(), &[7; 100]);
        assert_eq!(&*decode(&text, "A").unwrap(), b"1");
    }

    proptest! {
        #[test]
        fn blocks_come_back(der: Vec<u8>, label in "[A-Z]{1,8}( [A-Z]{1,8})?") {
            let text = encode(&label, &der);
            prop_assert!(text.lines().all(|line| line.len() <= 64));
            let found = blocks(&text).unwrap();
            prop_assert_eq!(found.len(), 1);
            prop_assert_eq!(found[0].label, &label);
            prop_assert_eq!(&*found[0].der, &der);
        }

        #[test]
        fn any_text_is_read_without_panic(text in "(-----BEGIN |-----END |-----|A|[ -~]|\\n){0,12}") {
            let _ = blocks(&text);
        }
    }
}
