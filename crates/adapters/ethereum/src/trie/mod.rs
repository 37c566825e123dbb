//! A Merkle-Patricia trie whose versions share their nodes.
//!
//! A version is cheap to clone; changing one key copies those nodes on its path that other versions
//! share, at most `log16(n)` of them, and changes the others in place. Hashes are computed once per node, when somebody asks.

mod node;

use std::sync::Arc;

use alloy_primitives::{B256, Bytes, keccak256};
use alloy_trie::{EMPTY_ROOT_HASH, Nibbles};

use node::Node;

/// A trie with keys of 32 bytes, as Ethereum's "secure" tries are: keys are hashes.
#[derive(Clone, Debug, Default)]
pub struct Trie {
    root: Option<Arc<Node>>,
}

impl Trie {
    /// The root hash.
    pub fn root(&self) -> B256 {
        let Some(root) = &self.root else { return EMPTY_ROOT_HASH };
        root.reference().as_hash().unwrap_or_else(|| keccak256(root.rlp()))
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.root.is_none()
    }

    /// Puts a value, which must not be empty.
    pub fn insert(&mut self, key: B256, value: impl Into<Arc<[u8]>>) {
        let path = Nibbles::unpack_array(&key.0);
        self.root = Some(match self.root.take() {
            Some(root) => Node::insert(root, path, value.into()),
            None => Node::leaf(path, value.into()),
        });
    }

    /// Removes a key, present or not.
    pub fn remove(&mut self, key: B256) {
        let path = Nibbles::unpack_array(&key.0);
        self.root = self.root.as_ref().and_then(|root| root.remove(&path));
    }

    /// The value of a key.
    pub fn get(&self, key: B256) -> Option<&[u8]> {
        self.root.as_ref()?.find(&Nibbles::unpack_array(&key.0), &mut |_| {})
    }

    /// The nodes from the root to the key, or to where it would be: the proof of its value or of
    /// its absence.
    pub fn proof(&self, key: B256) -> Vec<Bytes> {
        let mut elements = Vec::new();
        if let Some(root) = &self.root {
            root.find(&Nibbles::unpack_array(&key.0), &mut |node| {
                // A node that is inlined in its parent is part of the parent's element.
                if elements.is_empty() || node.is_hashed() {
                    elements.push(node.proof_element());
                }
            });
        }
        elements
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use alloy_trie::HashBuilder;
    use alloy_trie::proof::verify_proof;
    use proptest::prelude::*;

    use super::*;

    fn naive_root(entries: &BTreeMap<B256, Vec<u8>>) -> B256 {
        let mut builder = HashBuilder::default();
        for (key, value) in entries {
            builder.add_leaf(Nibbles::unpack(key), value);
        }
        builder.root()
    }

    /// Keys that share long prefixes, so that every kind of split and merge happens.
    fn key() -> impl Strategy<Value = B256> {
        (0u8..3, 0u8..3, 0u8..20).prop_map(|(first, middle, last)| {
            let mut key = B256::ZERO;
            (key[0], key[15], key[31]) = (first << 4, middle, last);
            key
        })
    }

    proptest! {
        #[test]
        fn a_trie_has_the_root_and_proofs_of_its_entries(
            steps in prop::collection::vec((key(), prop::option::of(1usize..70)), 0..60),
            asked in key(),
        ) {
            let (mut trie, mut model) = (Trie::default(), BTreeMap::new());
            for (key, length) in steps {
                let before = trie.clone();
                let root = before.root();
                match length {
                    Some(length) => {
                        let value = vec![0x2a; length];
                        trie.insert(key, value.clone());
                        model.insert(key, value);
                    }
                    None => {
                        trie.remove(key);
                        model.remove(&key);
                    }
                }
                prop_assert_eq!(trie.root(), naive_root(&model));
                prop_assert_eq!(before.root(), root);
                prop_assert_eq!(trie.get(key), model.get(&key).map(Vec::as_slice));
            }
            let (root, proof) = (trie.root(), trie.proof(asked));
            let expected = model.get(&asked).cloned();
            if !model.is_empty() {
                prop_assert!(verify_proof(root, Nibbles::unpack(asked), expected, &proof).is_ok());
            }
        }
    }
}
