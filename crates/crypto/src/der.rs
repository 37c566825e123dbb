//! The little DER (X.690) that keys, signatures and certificates need: a writer that cannot make a
//! wrong length and a reader that takes only canonical definite lengths.

use zeroize::Zeroizing;

pub(crate) const BOOLEAN: u8 = 0x01;
pub(crate) const INTEGER: u8 = 0x02;
pub(crate) const BIT_STRING: u8 = 0x03;
pub(crate) const OCTET_STRING: u8 = 0x04;
pub(crate) const OBJECT_IDENTIFIER: u8 = 0x06;
pub(crate) const UTF8_STRING: u8 = 0x0c;
pub(crate) const UTC_TIME: u8 = 0x17;
pub(crate) const GENERALIZED_TIME: u8 = 0x18;
pub(crate) const SEQUENCE: u8 = 0x30;
pub(crate) const SET: u8 = 0x31;

/// The bytes are not the DER that was expected here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotDer;

/// One element: tag, length, and the parts of its content one after the other.
pub(crate) fn element(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let len: usize = parts.iter().map(|part| part.len()).sum();
    let mut out = Vec::with_capacity(len + 6);
    out.push(tag);
    if let Ok(short @ 0..=0x7f) = u8::try_from(len) {
        out.push(short);
    } else {
        let be = len.to_be_bytes();
        let skip = be.iter().take_while(|byte| **byte == 0).count();
        out.push(0x80 | (be.len() - skip) as u8);
        out.extend(be.iter().skip(skip));
    }
    for part in parts {
        out.extend_from_slice(part);
    }
    out
}

/// A SEQUENCE of these elements.
pub(crate) fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    element(SEQUENCE, parts)
}

/// A non-negative INTEGER from big-endian bytes of any length.
pub(crate) fn unsigned(big_endian: &[u8]) -> Vec<u8> {
    let trimmed = trim_zeros(big_endian);
    match trimmed.first() {
        None => element(INTEGER, &[&[0]]),
        Some(0x80..) => element(INTEGER, &[&[0], trimmed]),
        Some(_) => element(INTEGER, &[trimmed]),
    }
}

/// A BIT STRING of whole bytes.
pub(crate) fn bit_string(bytes: &[u8]) -> Vec<u8> {
    element(BIT_STRING, &[&[0], bytes])
}

/// Big-endian bytes without leading zeros; zero is empty.
pub(crate) fn trim_zeros(big_endian: &[u8]) -> &[u8] {
    let mut rest = big_endian;
    while let [0, tail @ ..] = rest {
        rest = tail;
    }
    rest
}

/// Big-endian bytes padded on the left to `len`; `None` if the number is larger.
pub(crate) fn left_pad(big_endian: &[u8], len: usize) -> Option<Zeroizing<Vec<u8>>> {
    let trimmed = trim_zeros(big_endian);
    let zeros = len.checked_sub(trimmed.len())?;
    let mut out = Zeroizing::new(vec![0; zeros]);
    out.extend_from_slice(trimmed);
    Some(out)
}

/// Reads elements from the front of a byte string.
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The content of the next element, which must have this tag.
    pub(crate) fn read(&mut self, tag: u8) -> Result<&'a [u8], NotDer> {
        let (found, rest) = self.0.split_first().ok_or(NotDer)?;
        let (first, rest) = rest.split_first().ok_or(NotDer)?;
        if *found != tag {
            return Err(NotDer);
        }
        let (len, rest) = match first {
            0..=0x7f => (usize::from(*first), rest),
            // 16 MiB in one element is more than any key or certificate has.
            0x81..=0x83 => {
                let (be, rest) = rest.split_at_checked(usize::from(first & 0x7f)).ok_or(NotDer)?;
                let len = be.iter().fold(0, |len, byte| len << 8 | usize::from(*byte));
                if len < 0x80 || be.first() == Some(&0) {
                    return Err(NotDer);
                }
                (len, rest)
            }
            _ => return Err(NotDer),
        };
        let (content, rest) = rest.split_at_checked(len).ok_or(NotDer)?;
        self.0 = rest;
        Ok(content)
    }

    /// A reader of the content of the next element.
    pub(crate) fn enter(&mut self, tag: u8) -> Result<Reader<'a>, NotDer> {
        self.read(tag).map(Reader)
    }

    /// The next INTEGER as big-endian bytes without leading zeros; negative ones are refused.
    pub(crate) fn read_unsigned(&mut self) -> Result<&'a [u8], NotDer> {
        match self.read(INTEGER)? {
            [] | [0x80..=0xff, ..] | [0, 0..=0x7f, _, ..] => Err(NotDer),
            [0] => Ok(&[]),
            [0, 0..=0x7f] => Err(NotDer),
            [0, rest @ ..] => Ok(rest),
            bytes => Ok(bytes),
        }
    }

    /// The bytes of the next BIT STRING, which must be whole bytes.
    pub(crate) fn read_bit_string(&mut self) -> Result<&'a [u8], NotDer> {
        match self.read(BIT_STRING)? {
            [0, bytes @ ..] => Ok(bytes),
            _ => Err(NotDer),
        }
    }

    /// What was not read yet.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.0
    }

    /// Nothing may follow.
    pub(crate) fn finish(self) -> Result<(), NotDer> {
        if self.0.is_empty() { Ok(()) } else { Err(NotDer) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn refuses_what_is_not_canonical() {
        for bad in [
            &[][..],
            &[0x30],
            &[0x30, 0x01],
            &[0x30, 0x80, 0, 0],                   // indefinite
            &[0x30, 0x81, 0x01, 0],                // long form of a short length
            &[0x30, 0x82, 0x00, 0x81],             // leading zero in the length
            &[0x30, 0x84, 0x01, 0x00, 0x00, 0x00], // huge
            &[0x04, 0x00],                         // another tag
        ] {
            assert_eq!(Reader::new(bad).read(SEQUENCE), Err(NotDer), "{bad:02x?}");
        }
        for bad in [
            &[0x02, 0x00][..],
            &[0x02, 0x01, 0x80],
            &[0x02, 0x02, 0x00, 0x7f],
            &[0x02, 0x02, 0x00, 0x00],
            &[0x02, 0x03, 0x00, 0x01, 0x01],
        ] {
            assert_eq!(Reader::new(bad).read_unsigned(), Err(NotDer), "{bad:02x?}");
        }
        assert_eq!(Reader::new(&[0x03, 0x01, 0x01]).read_bit_string(), Err(NotDer));
    }

    proptest! {
        #[test]
        fn elements_come_back(content in prop::collection::vec(any::<u8>(), 0..70_000)) {
            let bytes = element(OCTET_STRING, &[&content]);
            let mut reader = Reader::new(&bytes);
            prop_assert_eq!(reader.read(OCTET_STRING).unwrap(), &content);
            prop_assert_eq!(reader.finish(), Ok(()));
        }

        #[test]
        fn integers_come_back(number: Vec<u8>) {
            let bytes = unsigned(&number);
            prop_assert_eq!(Reader::new(&bytes).read_unsigned().unwrap(), trim_zeros(&number));
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes: Vec<u8>, tag: u8) {
            let mut reader = Reader::new(&bytes);
            let _ = reader.read(tag);
            let _ = reader.read_unsigned();
            let _ = reader.read_bit_string();
        }
    }
}
