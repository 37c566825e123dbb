//! A bounded reader over bytes from outside.

/// The bytes ended before the value did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{needed} bytes needed at offset {offset}, {available} there")]
pub struct Truncated {
    /// Offset of the value, from the start of what was being read.
    pub offset: usize,
    /// Size of the value in bytes.
    pub needed: u64,
    /// Bytes that were left.
    pub available: usize,
}

/// Reads values from the front of a slice; never reads past its end and never copies.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cursor<'a> {
    rest: &'a [u8],
    offset: usize,
}

impl<'a> Cursor<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, offset: 0 }
    }

    pub fn offset(&self) -> usize {
        self.offset
    }

    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub fn take(&mut self, count: u64) -> Result<&'a [u8], Truncated> {
        let split = usize::try_from(count).ok().and_then(|count| self.rest.split_at_checked(count));
        let (taken, rest) = split.ok_or(Truncated {
            offset: self.offset,
            needed: count,
            available: self.rest.len(),
        })?;
        self.rest = rest;
        self.offset += taken.len();
        Ok(taken)
    }

    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Truncated> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(Truncated {
            offset: self.offset,
            needed: N as u64,
            available: self.rest.len(),
        })?;
        self.rest = rest;
        self.offset += N;
        Ok(*taken)
    }

    pub fn u8(&mut self) -> Result<u8, Truncated> {
        self.array().map(|[byte]| byte)
    }

    pub fn u64(&mut self) -> Result<u64, Truncated> {
        self.array().map(u64::from_le_bytes)
    }

    pub fn u64_be(&mut self) -> Result<u64, Truncated> {
        self.array().map(u64::from_be_bytes)
    }

    /// A `u64` length, then that many bytes.
    pub fn bytes64(&mut self) -> Result<&'a [u8], Truncated> {
        let length = self.u64()?;
        self.take(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_in_order() {
        let mut cursor = Cursor::new(&[7, 2, 0, 0, 0, 0, 0, 0, 0, 8, 9, 1]);
        assert_eq!(cursor.u8(), Ok(7));
        assert_eq!(cursor.bytes64(), Ok(&[8, 9][..]));
        assert_eq!((cursor.offset(), cursor.rest()), (11, &[1][..]));
        assert!(!cursor.is_empty());
    }

    #[test]
    fn a_length_beyond_the_end_is_refused_without_moving() {
        let bytes = u64::MAX.to_le_bytes();
        let mut cursor = Cursor::new(&bytes);
        assert_eq!(cursor.bytes64(), Err(Truncated { offset: 8, needed: u64::MAX, available: 0 }));
        assert_eq!(cursor.array::<1>(), Err(Truncated { offset: 8, needed: 1, available: 0 }));
    }
}
