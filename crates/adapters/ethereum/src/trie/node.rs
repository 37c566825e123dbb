//! Nodes of a Merkle-Patricia trie, shared between versions.

use std::sync::{Arc, LazyLock, OnceLock};

use alloy_primitives::Bytes;
use alloy_trie::Nibbles;
use alloy_trie::nodes::{ExtensionNodeRef, LeafNodeRef, RlpNode};

/// A node. Versions of a trie share it as long as none of them changes it.
#[derive(Debug)]
pub(super) struct Node {
    kind: Kind,
    // How the node is named in its parent: its hash, or itself if it is shorter than one.
    reference: OnceLock<RlpNode>,
}

#[derive(Clone, Debug)]
enum Kind {
    Leaf { path: Nibbles, value: Arc<[u8]> },
    Extension { path: Nibbles, child: Arc<Node> },
    // Keys are of one length, so a branch has no value of its own.
    Branch { children: Box<[Option<Arc<Node>>; 16]> },
}

impl Node {
    fn new(kind: Kind) -> Arc<Self> {
        Arc::new(Self { kind, reference: OnceLock::new() })
    }

    pub(super) fn leaf(path: Nibbles, value: Arc<[u8]>) -> Arc<Self> {
        Self::new(Kind::Leaf { path, value })
    }

    /// How a parent names this node.
    pub(super) fn reference(&self) -> &RlpNode {
        self.reference.get_or_init(|| RlpNode::from_rlp(&self.rlp()))
    }

    /// The node as it is hashed.
    pub(super) fn rlp(&self) -> Vec<u8> {
        let mut rlp = Vec::new();
        match &self.kind {
            Kind::Leaf { path, value } => {
                LeafNodeRef { key: path, value }.rlp(&mut rlp);
            }
            Kind::Extension { path, child } => {
                ExtensionNodeRef { key: path, child: child.reference() }.rlp(&mut rlp);
            }
            Kind::Branch { children } => encode_branch(children, &mut rlp),
        }
        rlp
    }

    /// The node with a value put beneath it. It is changed in place unless somebody shares it.
    pub(super) fn insert(mut this: Arc<Self>, path: Nibbles, value: Arc<[u8]>) -> Arc<Self> {
        if let Kind::Leaf { path: own, value: old } = &this.kind {
            return match own.common_prefix_length(&path) {
                _ if *own == path && *old == value => this,
                _ if *own == path => Self::leaf(path, value),
                shared => {
                    let mut children = Box::new([const { None }; 16]);
                    set(&mut children, own, shared, |rest| Self::leaf(rest, old.clone()));
                    set(&mut children, &path, shared, |rest| Self::leaf(rest, value));
                    extended(path.slice(..shared), Self::new(Kind::Branch { children }))
                }
            };
        }
        if let Kind::Extension { path: own, child } = &this.kind {
            let shared = own.common_prefix_length(&path);
            if shared < own.len() {
                let mut children = Box::new([const { None }; 16]);
                set(&mut children, own, shared, |rest| extended(rest, child.clone()));
                set(&mut children, &path, shared, |rest| Self::leaf(rest, value));
                return extended(path.slice(..shared), Self::new(Kind::Branch { children }));
            }
        }
        if Arc::get_mut(&mut this).is_none() {
            this = Self::new(this.kind.clone());
        }
        if let Some(node) = Arc::get_mut(&mut this) {
            node.reference.take();
            match &mut node.kind {
                Kind::Leaf { .. } => {}
                Kind::Extension { path: own, child } => {
                    let rest = path.slice(own.len()..);
                    *child = Self::insert(std::mem::replace(child, Self::nothing()), rest, value);
                }
                Kind::Branch { children } => {
                    if let Some((slot, rest)) = slot(children, &path) {
                        *slot = Some(match slot.take() {
                            Some(child) => Self::insert(child, rest, value),
                            None => Self::leaf(rest, value),
                        });
                    }
                }
            }
        }
        this
    }

    /// Takes the place of a node while that is changed.
    fn nothing() -> Arc<Self> {
        static NOTHING: LazyLock<Arc<Node>> =
            LazyLock::new(|| Node::leaf(Nibbles::default(), Arc::from([])));
        Arc::clone(&NOTHING)
    }

    /// The node without the value at `path`; `None` if nothing is left.
    pub(super) fn remove(self: &Arc<Self>, path: &Nibbles) -> Option<Arc<Self>> {
        match &self.kind {
            Kind::Leaf { path: own, .. } => (own != path).then(|| self.clone()),
            Kind::Extension { path: own, child } => {
                if !path.starts_with(own) {
                    return Some(self.clone());
                }
                child.remove(&path.slice(own.len()..)).map(|child| extended(*own, child))
            }
            Kind::Branch { children } => {
                let mut children = children.clone();
                if let Some((slot, rest)) = slot(&mut children, path)
                    && let Some(child) = slot.take()
                {
                    *slot = child.remove(&rest);
                }
                Some(collapsed(children))
            }
        }
    }

    /// The value at `path`; every node on the way to where it is or would be is shown to `visit`.
    pub(super) fn find<'a>(
        self: &'a Arc<Self>,
        path: &Nibbles,
        visit: &mut dyn FnMut(&'a Arc<Self>),
    ) -> Option<&'a [u8]> {
        visit(self);
        match &self.kind {
            Kind::Leaf { path: own, value } => (own == path).then_some(&**value),
            Kind::Extension { path: own, child } => {
                path.starts_with(own).then(|| child.find(&path.slice(own.len()..), visit))?
            }
            Kind::Branch { children } => {
                let child = children.get(usize::from(path.first()?))?.as_ref()?;
                child.find(&path.slice(1..), visit)
            }
        }
    }

    /// Whether the parent names the node by its hash.
    pub(super) fn is_hashed(&self) -> bool {
        self.reference().is_hash()
    }

    /// The node's RLP as an element of a proof.
    pub(super) fn proof_element(&self) -> Bytes {
        self.rlp().into()
    }
}

type Children = [Option<Arc<Node>>; 16];

/// The child that `path` leads to, and the path from there on.
fn slot<'a>(
    children: &'a mut Children,
    path: &Nibbles,
) -> Option<(&'a mut Option<Arc<Node>>, Nibbles)> {
    let slot = children.get_mut(usize::from(path.first()?))?;
    Some((slot, path.slice(1..)))
}

/// Sets the child that `path` leads to after `shared` nibbles.
fn set(
    children: &mut Children,
    path: &Nibbles,
    shared: usize,
    child: impl FnOnce(Nibbles) -> Arc<Node>,
) {
    if let Some((slot, rest)) = slot(children, &path.slice(shared..)) {
        *slot = Some(child(rest));
    }
}

/// `path` before a node, merged with the path that the node itself may begin with.
fn extended(path: Nibbles, child: Arc<Node>) -> Arc<Node> {
    if path.is_empty() {
        return child;
    }
    match &child.kind {
        Kind::Leaf { path: rest, value } => Node::leaf(path.join(rest), value.clone()),
        Kind::Extension { path: rest, child } => {
            Node::new(Kind::Extension { path: path.join(rest), child: child.clone() })
        }
        Kind::Branch { .. } => Node::new(Kind::Extension { path, child }),
    }
}

/// A branch after a removal: one that has a single child left is none.
fn collapsed(children: Box<Children>) -> Arc<Node> {
    let mut present = children
        .iter()
        .enumerate()
        .filter_map(|(nibble, child)| Some((u8::try_from(nibble).ok()?, child.as_ref()?)));
    if let (Some((nibble, child)), None) = (present.next(), present.next()) {
        return extended(Nibbles::from_nibbles([nibble]), child.clone());
    }
    Node::new(Kind::Branch { children })
}

fn encode_branch(children: &Children, rlp: &mut Vec<u8>) {
    let empty = alloy_rlp::EMPTY_STRING_CODE;
    let length = |child: &Option<Arc<Node>>| child.as_ref().map_or(1, |c| c.reference().len());
    let payload_length = children.iter().map(length).sum::<usize>() + 1;
    alloy_rlp::Header { list: true, payload_length }.encode(rlp);
    for child in children {
        match child {
            Some(child) => rlp.extend_from_slice(child.reference()),
            None => rlp.push(empty),
        }
    }
    rlp.push(empty);
}
