//! The Merkle tree over the ledger's transactions.
//!
//! Leaf `i` is the digest of the transaction at seqno `i`; leaf 0 is 32 zero bytes. A node is
//! `SHA256(left || right)`, and the unpaired right-most node of a level moves up unchanged:
//!
//! ```text
//! level 2          n03                 n4          root of 5 leaves = H(n03 || l4)
//!               /       \              |
//! level 1    n01         n23           |
//!           /   \       /   \          |
//! level 0  l0    l1   l2     l3        l4
//! ```
//!
//! Every complete node of the retained part is kept, so that appending costs one node on average,
//! and a root or a path over any retained prefix costs `O(log n)`. Flushing drops leaves from the
//! front and keeps, at each level, only the root that the remaining tree still needs: those of the
//! complete subtrees that the binary digits of the number of flushed leaves name.

use std::collections::VecDeque;

use coco_crypto::{Digest, sha256_concat};

use crate::bytes::{Cursor, Truncated};

/// A tree is cut off at this many levels: no ledger has more than 2^63 transactions.
const MAX_LEVELS: u32 = 63;

const DIGEST_BYTES: usize = 32;

/// The serialised tree could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TreeError {
    /// The bytes end before the tree does.
    #[error("the serialised tree is cut short: {0}")]
    Truncated(#[from] Truncated),
    /// Bytes follow the tree.
    #[error("{0} bytes follow the serialised tree")]
    TrailingBytes(usize),
    /// A tree must hold at least one leaf.
    #[error("the serialised tree holds no leaf")]
    NoLeaves,
    /// More leaves than a ledger can have.
    #[error("the serialised tree claims {0} leaves")]
    TooLarge(u64),
}

/// Which side of the pair the sibling is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The sibling comes first: `H(sibling || current)`.
    Left,
    /// The sibling comes second: `H(current || sibling)`.
    Right,
}

/// One step from a leaf towards the root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathStep {
    /// Where the sibling stands.
    pub side: Side,
    /// The sibling's digest.
    pub sibling: Digest,
}

/// The siblings from a leaf to the root, leaf first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Path(pub Vec<PathStep>);

impl Path {
    /// The root that this path leads to from `leaf`.
    pub fn root_from(&self, leaf: Digest) -> Digest {
        self.0.iter().fold(leaf, |current, step| match step.side {
            Side::Left => node(&step.sibling, &current),
            Side::Right => node(&current, &step.sibling),
        })
    }
}

/// The nodes of one level, from the first that is still kept.
#[derive(Clone, Debug, Default)]
struct Level {
    first: u64,
    nodes: VecDeque<Digest>,
}

impl Level {
    fn node(&self, index: u64) -> Option<Digest> {
        let position = usize::try_from(index.checked_sub(self.first)?).ok()?;
        self.nodes.get(position).copied()
    }

    fn count(&self) -> u64 {
        self.first + self.nodes.len() as u64
    }
}

/// The tree. It always holds at least leaf 0, so that it always has a root.
#[derive(Clone, Debug)]
pub struct MerkleTree {
    flushed: u64,
    levels: Vec<Level>,
}

impl Default for MerkleTree {
    fn default() -> Self {
        Self::new()
    }
}

impl MerkleTree {
    /// The tree of an empty ledger: leaf 0 only.
    pub fn new() -> Self {
        let mut tree = Self { flushed: 0, levels: Vec::new() };
        tree.append(Digest::ZERO);
        tree
    }

    /// Number of leaves, flushed ones included; also the seqno of the next leaf.
    pub fn len(&self) -> u64 {
        self.levels.first().map_or(0, Level::count)
    }

    /// Never true: leaf 0 is always there.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Number of leaves dropped from the front.
    pub fn flushed(&self) -> u64 {
        self.flushed
    }

    /// The retained leaf at `index`.
    pub fn leaf(&self, index: u64) -> Option<Digest> {
        (index >= self.flushed).then(|| self.node(0, index)).flatten()
    }

    /// Adds the next leaf.
    pub fn append(&mut self, leaf: Digest) {
        let mut carried = leaf;
        for depth in 0.. {
            if self.levels.len() == depth {
                self.levels.push(Level::default());
            }
            let Some(level) = self.levels.get_mut(depth) else { return };
            level.nodes.push_back(carried);
            if level.count() % 2 == 1 {
                return;
            }
            // The left half is kept until its pair is complete, see `first_kept`.
            let Some(left) = level.nodes.len().checked_sub(2).and_then(|at| level.nodes.get(at))
            else {
                return;
            };
            carried = node(left, &carried);
        }
    }

    /// The root over all leaves.
    pub fn root(&self) -> Digest {
        self.root_from(0, self.len()).unwrap_or(Digest::ZERO)
    }

    /// The root over the first `size` leaves; `None` if they are not there or partly flushed.
    pub fn root_of(&self, size: u64) -> Option<Digest> {
        let known = size >= self.flushed.max(1) && size <= self.len();
        known.then(|| self.root_from(0, size)).flatten()
    }

    /// The path from the leaf at `index` to the root over the first `size` leaves; `None` if the
    /// leaf is flushed or the prefix does not hold it.
    pub fn path(&self, index: u64, size: u64) -> Option<Path> {
        if index < self.flushed || index >= size || size > self.len() {
            return None;
        }
        let mut steps = Vec::with_capacity(size.ilog2() as usize + 1);
        for depth in (0..MAX_LEVELS).take_while(|depth| 1 << depth < size) {
            let at = index >> depth;
            if at % 2 == 1 {
                steps.push(PathStep { side: Side::Left, sibling: self.node(depth, at - 1)? });
            } else if (at + 1) << depth < size {
                let complete = (at + 2) << depth <= size;
                let sibling = match complete {
                    true => self.node(depth, at + 1)?,
                    false => self.root_from((at + 1) << depth, size)?,
                };
                steps.push(PathStep { side: Side::Right, sibling });
            }
        }
        Some(Path(steps))
    }

    /// Drops the leaves before `index`; what is needed to go on is kept. Indices already flushed or
    /// not yet there are clamped.
    pub fn flush_to(&mut self, index: u64) {
        let index = index.clamp(self.flushed, self.len());
        self.flushed = index;
        for (depth, level) in (0..).zip(&mut self.levels) {
            let first = first_kept(index, depth);
            let gone = first.saturating_sub(level.first).min(level.nodes.len() as u64);
            level.nodes.drain(..gone as usize);
            level.first += gone;
        }
    }

    /// Takes back the leaves from `size` on. Returns false, and does nothing, if `size` reaches
    /// into the flushed part or beyond the end.
    #[must_use]
    pub fn retract_to(&mut self, size: u64) -> bool {
        if size < self.flushed.max(1) || size > self.len() {
            return false;
        }
        for (depth, level) in (0..).zip(&mut self.levels) {
            let count = (size >> depth).saturating_sub(level.first);
            level.nodes.truncate(count as usize);
        }
        true
    }

    /// The tree as signature transactions carry it, with the leaves before `flushed` left out.
    /// What is left out is independent of what is kept in memory. `None` if `flushed` is smaller
    /// than what is flushed here or leaves no leaf.
    pub fn serialise(&self, flushed: u64) -> Option<Vec<u8>> {
        if flushed < self.flushed || flushed >= self.len() {
            return None;
        }
        let leaves = self.len() - flushed;
        let roots = flushed.count_ones() as usize;
        let mut bytes = Vec::with_capacity(16 + (leaves as usize + roots) * DIGEST_BYTES);
        bytes.extend_from_slice(&leaves.to_be_bytes());
        bytes.extend_from_slice(&flushed.to_be_bytes());
        for index in flushed..self.len() {
            bytes.extend_from_slice(&self.node(0, index)?.0);
        }
        for depth in set_bits(flushed) {
            bytes.extend_from_slice(&self.node(depth, (flushed >> depth) - 1)?.0);
        }
        Some(bytes)
    }

    /// Reads a serialised tree.
    ///
    /// # Errors
    /// If the bytes are not exactly one tree with at least one leaf.
    pub fn parse(bytes: &[u8]) -> Result<Self, TreeError> {
        let mut cursor = Cursor::new(bytes);
        let leaves = cursor.u64_be()?;
        let flushed = cursor.u64_be()?;
        if leaves == 0 {
            return Err(TreeError::NoLeaves);
        }
        let size = leaves.checked_add(flushed).filter(|size| *size < 1 << MAX_LEVELS);
        size.ok_or(TreeError::TooLarge(leaves.saturating_add(flushed)))?;
        // Taken as one slice first, so that a false count costs nothing.
        let mut leaf_bytes = Cursor::new(cursor.take(leaves.saturating_mul(DIGEST_BYTES as u64))?);

        let mut tree = Self { flushed, levels: Vec::new() };
        for depth in 0..u64::BITS - flushed.leading_zeros() {
            let mut level = Level { first: first_kept(flushed, depth), nodes: VecDeque::new() };
            if (flushed >> depth) % 2 == 1 {
                level.nodes.push_back(Digest(cursor.array()?));
            }
            tree.levels.push(level);
        }
        if !cursor.is_empty() {
            return Err(TreeError::TrailingBytes(cursor.rest().len()));
        }
        while !leaf_bytes.is_empty() {
            tree.append(Digest(leaf_bytes.array()?));
        }
        Ok(tree)
    }

    fn node(&self, depth: u32, index: u64) -> Option<Digest> {
        self.levels.get(depth as usize)?.node(index)
    }

    /// The root over the leaves `from..size`, where `from` begins a complete subtree that reaches
    /// beyond `size`, or is 0: the complete subtrees inside are joined from the right.
    fn root_from(&self, from: u64, size: u64) -> Option<Digest> {
        let mut root = None;
        for depth in set_bits(size) {
            let index = (size >> depth) - 1;
            if index << depth < from {
                break;
            }
            let left = self.node(depth, index)?;
            root = Some(root.map_or(left, |right| node(&left, &right)));
        }
        root
    }
}

/// A node from its two children.
fn node(left: &Digest, right: &Digest) -> Digest {
    sha256_concat(&[&left.0, &right.0])
}

/// The first index kept at a level when `flushed` leaves are gone: the node that holds leaf
/// `flushed`, and the one to its left if that is a flushed subtree's root.
fn first_kept(flushed: u64, depth: u32) -> u64 {
    let at = flushed >> depth;
    at - at % 2
}

/// The positions of the binary ones of `number`, lowest first.
fn set_bits(number: u64) -> impl Iterator<Item = u32> {
    (0..u64::BITS).filter(move |bit| number >> bit & 1 == 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The definition, level by level.
    fn naive_root(leaves: &[Digest]) -> Digest {
        let mut level = leaves.to_vec();
        while level.len() > 1 {
            level = level
                .chunks(2)
                .map(|pair| match pair {
                    [left, right] => node(left, right),
                    _ => pair[0],
                })
                .collect();
        }
        level[0]
    }

    fn leaf(index: u64) -> Digest {
        match index {
            0 => Digest::ZERO,
            _ => coco_crypto::sha256(&index.to_le_bytes()),
        }
    }

    fn tree_of(size: u64) -> MerkleTree {
        let mut tree = MerkleTree::new();
        (1..size).for_each(|index| tree.append(leaf(index)));
        tree
    }

    fn leaves(size: u64) -> Vec<Digest> {
        (0..size).map(leaf).collect()
    }

    #[test]
    fn an_empty_ledger_has_leaf_zero_as_root() {
        assert_eq!(MerkleTree::new().root(), Digest::ZERO);
        assert_eq!(MerkleTree::new().path(0, 1), Some(Path::default()));
    }

    #[test]
    fn every_small_tree_equals_the_definition() {
        let tree = tree_of(70);
        for size in 1..=70 {
            let root = naive_root(&leaves(size));
            assert_eq!(tree.root_of(size), Some(root));
            for index in 0..size {
                assert_eq!(tree.path(index, size).unwrap().root_from(leaf(index)), root);
            }
        }
        assert_eq!((tree.root_of(0), tree.root_of(71)), (None, None));
        assert_eq!((tree.path(70, 70), tree.path(3, 3), tree.path(3, 71)), (None, None, None));
    }

    #[test]
    fn a_flushed_leaf_has_no_path() {
        let mut tree = tree_of(20);
        tree.flush_to(11);
        assert_eq!((tree.path(10, 20), tree.leaf(10), tree.root_of(10)), (None, None, None));
        assert!(tree.path(11, 20).is_some());
        assert!(tree.root_of(11).is_some());
        tree.flush_to(5);
        assert_eq!(tree.flushed(), 11);
    }

    #[test]
    fn malformed_trees_are_refused() {
        let good = tree_of(9).serialise(6).unwrap();
        assert!(MerkleTree::parse(&good).is_ok());
        for cut in 0..good.len() {
            assert!(MerkleTree::parse(&good[..cut]).is_err(), "{cut}");
        }
        let longer = [&good[..], &[0]].concat();
        assert_eq!(MerkleTree::parse(&longer).unwrap_err(), TreeError::TrailingBytes(1));
        assert_eq!(MerkleTree::parse(&[0; 16]).unwrap_err(), TreeError::NoLeaves);
        assert!(matches!(MerkleTree::parse(&[0xff; 64]), Err(TreeError::TooLarge(_))));
    }

    #[test]
    fn a_tree_flushed_whole_still_grows() {
        let mut tree = tree_of(13);
        tree.flush_to(13);
        assert_eq!(tree.serialise(13), None);
        assert_eq!(tree.root(), naive_root(&leaves(13)));
        (13..40).for_each(|index| tree.append(leaf(index)));
        assert_eq!(tree.root(), naive_root(&leaves(40)));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Append(u64),
        Flush(f64),
        Retract(f64),
        Reload(f64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (1_u64..40).prop_map(Step::Append),
            1 => (0.0..1.0).prop_map(Step::Flush),
            1 => (0.0..1.0).prop_map(Step::Retract),
            1 => (0.0..1.0).prop_map(Step::Reload),
        ]
    }

    proptest! {
        #[test]
        fn any_history_equals_the_definition(
            steps in proptest::collection::vec(step(), 1..24),
            probe in any::<u64>(),
        ) {
            let mut tree = MerkleTree::new();
            let mut model = vec![Digest::ZERO];
            let between = |low: u64, high: u64, at: f64| low + ((high - low) as f64 * at) as u64;
            let mut unique = 0;
            for step in steps {
                let (low, high) = (tree.flushed(), tree.len());
                match step {
                    Step::Append(count) => for _ in 0..count {
                        unique += 1;
                        tree.append(leaf(unique));
                        model.push(leaf(unique));
                    },
                    Step::Flush(at) => tree.flush_to(between(low, high, at)),
                    Step::Retract(at) => {
                        let size = between(low.max(1), high, at);
                        prop_assert!(tree.retract_to(size));
                        model.truncate(size as usize);
                    }
                    Step::Reload(at) => if low < high {
                        let bytes = tree.serialise(between(low, high, at)).unwrap();
                        tree = MerkleTree::parse(&bytes).unwrap();
                        let again = tree.serialise(tree.flushed()).unwrap();
                        prop_assert_eq!(again, bytes);
                    },
                }
                prop_assert_eq!(tree.len(), model.len() as u64);
                prop_assert_eq!(tree.root(), naive_root(&model));
                let (low, high) = (tree.flushed(), tree.len());
                if low < high {
                    let size = low + 1 + probe % (high - low);
                    let index = low + probe % (size - low);
                    let root = naive_root(&model[..size as usize]);
                    prop_assert_eq!(tree.root_of(size), Some(root));
                    let path = tree.path(index, size).unwrap();
                    prop_assert_eq!(path.root_from(model[index as usize]), root);
                }
            }
        }

        #[test]
        fn no_bytes_make_the_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = MerkleTree::parse(&bytes);
        }
    }
}
