//! What is known of a file without asking or reading it.

/// How long a file is, and where its last bytes that may be something else than zeros end.
///
/// The length is known without asking: since Linux 6.13 a file that was asked for its times gets new
/// ones with the next write, and then each synced write writes the inode, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) len_bytes: u64,
    /// From here on the file has only zeros, which need not be read: a write past the page cache
    /// drops what lies around it there, and the disk would be asked.
    pub(crate) zeros_from: u64,
}

impl Extent {
    /// A file with so many bytes, whatever they are.
    pub(crate) fn of(len_bytes: u64) -> Self {
        Self { len_bytes, zeros_from: len_bytes }
    }

    /// After something was written that ends there.
    pub(crate) fn written_to(self, end: u64) -> Self {
        Self { len_bytes: self.len_bytes.max(end), zeros_from: self.zeros_from.max(end) }
    }

    /// After zeros were written.
    pub(crate) fn zeroed(self, from: u64, end: u64) -> Self {
        let zeros_from =
            if end < self.len_bytes { self.zeros_from } else { self.zeros_from.min(from) };
        Self { len_bytes: self.len_bytes.max(end), zeros_from }
    }

    /// After the file was cut.
    pub(crate) fn cut_to(self, len_bytes: u64) -> Self {
        Self { len_bytes, zeros_from: self.zeros_from.min(len_bytes) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Change {
        Write(usize, usize),
        Zeros(usize, usize),
        Cut(usize),
    }

    fn change() -> impl Strategy<Value = Change> {
        let place = (0..60_usize, 1..30_usize);
        prop_oneof![
            place.clone().prop_map(|(from, len)| Change::Write(from, from + len)),
            place.prop_map(|(from, len)| Change::Zeros(from, from + len)),
            (0..80_usize).prop_map(Change::Cut),
        ]
    }

    proptest! {
        #[test]
        fn what_is_known_holds_of_the_bytes(before in 0..50_usize, changes in prop::collection::vec(change(), 0..30)) {
            let mut bytes = vec![7; before];
            let mut extent = Extent::of(before as u64);
            for change in changes {
                let mut fill = |from: usize, end: usize, byte| {
                    bytes.resize(bytes.len().max(end), 0);
                    bytes[from..end].fill(byte);
                };
                match change {
                    Change::Write(from, end) => {
                        fill(from, end, 7);
                        extent = extent.written_to(end as u64);
                    }
                    Change::Zeros(from, end) => {
                        fill(from, end, 0);
                        extent = extent.zeroed(from as u64, end as u64);
                    }
                    Change::Cut(len) if len <= bytes.len() => {
                        bytes.truncate(len);
                        extent = extent.cut_to(len as u64);
                    }
                    Change::Cut(_) => {}
                }
                prop_assert_eq!(extent.len_bytes, bytes.len() as u64);
                prop_assert!(extent.zeros_from <= extent.len_bytes);
                prop_assert!(bytes[extent.zeros_from as usize..].iter().all(|byte| *byte == 0));
            }
        }
    }

    #[test]
    fn an_append_over_zeros_leaves_zeros_behind_it() {
        let extent = Extent::of(0).zeroed(0, 10_000).written_to(600);
        assert_eq!(extent, Extent { len_bytes: 10_000, zeros_from: 600 });
        assert_eq!(extent.zeroed(10_000, 20_000).zeros_from, 600);
    }
}
