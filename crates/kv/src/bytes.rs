//! Byte strings that live inside the tree when they are small.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::Arc;

use equivalent::{Comparable, Equivalent};

/// A key. Up to 22 bytes take no allocation; ordered bytewise.
pub type Key = SmallBytes<22>;

/// A value. Up to 70 bytes take no allocation; longer ones are shared, so that a clone is cheap.
pub type Value = SmallBytes<70>;

/// An immutable byte string: inline up to `INLINE` bytes, reference-counted beyond.
///
/// `Debug` tells the length only, since the bytes may be confidential.
#[derive(Clone)]
pub struct SmallBytes<const INLINE: usize>(Bytes<INLINE>);

// One byte of tag and one of length: 22 and 70 make 24 and 72 bytes without a gap.
#[derive(Clone)]
enum Bytes<const INLINE: usize> {
    Inline { len: u8, bytes: [u8; INLINE] },
    // The first bytes once more, where a comparison finds them without following the pointer.
    Shared { head: [u8; HEAD], bytes: Arc<[u8]> },
}

/// As many bytes as there is room for next to a shared slice.
const HEAD: usize = 7;

impl<const INLINE: usize> SmallBytes<INLINE> {
    /// The bytes if they need no allocation.
    pub(crate) fn inline(bytes: &[u8]) -> Option<Self> {
        let mut inline = [0; INLINE];
        inline.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(Self(Bytes::Inline { len: u8::try_from(bytes.len()).ok()?, bytes: inline }))
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        match &self.0 {
            Bytes::Inline { len, bytes } => bytes.get(..usize::from(*len)).unwrap_or(bytes),
            Bytes::Shared { bytes, .. } => bytes,
        }
    }

    fn shared(bytes: Arc<[u8]>) -> Self {
        let head = bytes.first_chunk().copied().unwrap_or_default();
        Self(Bytes::Shared { head, bytes })
    }

    fn head(&self) -> u64 {
        match &self.0 {
            Bytes::Inline { bytes, .. } => head(bytes),
            Bytes::Shared { head: bytes, .. } => head(bytes),
        }
    }
}

/// The first bytes as a number, padded with zeros: where those of two strings differ, they differ
/// as the strings do.
fn head(bytes: &[u8]) -> u64 {
    let mut number = [0; 8];
    number.iter_mut().skip(1).zip(bytes).for_each(|(to, byte)| *to = *byte);
    u64::from_be_bytes(number)
}

/// A key to be found by its bytes: they are not copied, and it is compared as fast as a [`Key`].
pub(crate) struct Sought<'a> {
    head: u64,
    bytes: &'a [u8],
}

impl<'a> Sought<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { head: head(bytes), bytes }
    }
}

impl Equivalent<Key> for Sought<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        self.bytes == key.as_slice()
    }
}

impl Comparable<Key> for Sought<'_> {
    fn compare(&self, key: &Key) -> Ordering {
        self.head.cmp(&key.head()).then_with(|| self.bytes.cmp(key.as_slice()))
    }
}

impl<const INLINE: usize> Deref for SmallBytes<INLINE> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.as_slice()
    }
}

impl<const INLINE: usize> AsRef<[u8]> for SmallBytes<INLINE> {
    fn as_ref(&self) -> &[u8] {
        self.as_slice()
    }
}

impl<const INLINE: usize> Borrow<[u8]> for SmallBytes<INLINE> {
    fn borrow(&self) -> &[u8] {
        self.as_slice()
    }
}

impl<const INLINE: usize> Default for SmallBytes<INLINE> {
    fn default() -> Self {
        Self::from(&[])
    }
}

impl<const INLINE: usize> From<&[u8]> for SmallBytes<INLINE> {
    fn from(bytes: &[u8]) -> Self {
        Self::inline(bytes).unwrap_or_else(|| Self::shared(bytes.into()))
    }
}

impl<const INLINE: usize, const LEN: usize> From<&[u8; LEN]> for SmallBytes<INLINE> {
    fn from(bytes: &[u8; LEN]) -> Self {
        Self::from(bytes.as_slice())
    }
}

impl<const INLINE: usize, const LEN: usize> From<[u8; LEN]> for SmallBytes<INLINE> {
    fn from(bytes: [u8; LEN]) -> Self {
        Self::from(bytes.as_slice())
    }
}

impl<const INLINE: usize> From<Vec<u8>> for SmallBytes<INLINE> {
    fn from(bytes: Vec<u8>) -> Self {
        Self::inline(&bytes).unwrap_or_else(|| Self::shared(bytes.into()))
    }
}

impl<const INLINE: usize> From<Arc<[u8]>> for SmallBytes<INLINE> {
    fn from(bytes: Arc<[u8]>) -> Self {
        Self::inline(&bytes).unwrap_or_else(|| Self::shared(bytes))
    }
}

impl<const INLINE: usize> From<&str> for SmallBytes<INLINE> {
    fn from(text: &str) -> Self {
        Self::from(text.as_bytes())
    }
}

impl<const INLINE: usize> From<String> for SmallBytes<INLINE> {
    fn from(text: String) -> Self {
        Self::from(text.into_bytes())
    }
}

impl<const INLINE: usize> From<&SmallBytes<INLINE>> for SmallBytes<INLINE> {
    fn from(bytes: &SmallBytes<INLINE>) -> Self {
        bytes.clone()
    }
}

impl<const INLINE: usize> PartialEq for SmallBytes<INLINE> {
    fn eq(&self, other: &Self) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl<const INLINE: usize> Eq for SmallBytes<INLINE> {}

impl<const INLINE: usize> PartialOrd for SmallBytes<INLINE> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<const INLINE: usize> Ord for SmallBytes<INLINE> {
    fn cmp(&self, other: &Self) -> Ordering {
        // Searching a tree is mostly this: two words decide nearly always. Inline bytes are padded
        // with zeros, so the shorter of two that agree comes first, as it has to.
        if let (Bytes::Inline { len: a_len, bytes: a }, Bytes::Inline { len: b_len, bytes: b }) =
            (&self.0, &other.0)
        {
            let head =
                |bytes: &[u8; INLINE]| bytes.first_chunk().map(|head| u128::from_be_bytes(*head));
            return head(a).cmp(&head(b)).then_with(|| a.cmp(b)).then_with(|| a_len.cmp(b_len));
        }
        self.head().cmp(&other.head()).then_with(|| self.as_slice().cmp(other.as_slice()))
    }
}

impl<const INLINE: usize> Hash for SmallBytes<INLINE> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_slice().hash(state);
    }
}

impl<const INLINE: usize> fmt::Debug for SmallBytes<INLINE> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{} bytes>", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_key_takes_24_bytes_and_a_value_72() {
        assert_eq!(size_of::<Key>(), 24);
        assert_eq!(size_of::<Value>(), 72);
        assert_eq!(size_of::<Option<Value>>(), 72);
    }

    #[test]
    fn debug_keeps_the_bytes_to_itself() {
        assert_eq!(format!("{:?}", Value::from("secret")), "<6 bytes>");
    }

    /// Of few bytes, so that two begin alike, zeros among them.
    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            prop::collection::vec(any::<u8>(), 0..48),
            prop::collection::vec(0..2_u8, 0..48),
            (0..48_usize, 0..3_u8).prop_map(|(zeros, last)| [vec![0; zeros], vec![last]].concat()),
        ]
    }

    proptest! {
        #[test]
        fn bytes_read_back_and_compare_as_slices(a in bytes(), b in bytes()) {
            let (small_a, small_b) = (Key::from(a.as_slice()), Key::from(b.clone()));
            prop_assert_eq!(small_a.as_slice(), a.as_slice());
            prop_assert_eq!(small_a.cmp(&small_b), a.cmp(&b));
            prop_assert_eq!(small_a == small_b, a == b);
            prop_assert_eq!(Sought::new(&a).compare(&small_b), a.cmp(&b));
            prop_assert_eq!(Sought::new(&a).equivalent(&small_b), a == b);
            prop_assert_eq!(Key::from(Arc::<[u8]>::from(a)), small_a);
        }
    }
}
