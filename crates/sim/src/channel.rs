//! What node-to-node channels give: frames come from whom they say, whole, or not at all.

use bytes::Bytes;
use coco_consensus::NodeId;
use coco_crypto::{Digest, sha256_concat};

const TAG_BYTES: usize = 32;

/// The keys of all channels of a run: TLS in a real service, a keyed hash here.
#[derive(Debug)]
pub struct Channels {
    secret: Digest,
}

impl Channels {
    /// The channels of a run.
    pub fn of(seed: u64) -> Self {
        Self { secret: sha256_concat(&[b"channels", &seed.to_be_bytes()]) }
    }

    /// What goes over the wire.
    pub fn seal(&self, from: NodeId, to: NodeId, frame: &Bytes) -> Bytes {
        [frame.as_ref(), &self.tag(from, to, frame).0].concat().into()
    }

    /// What came over the wire, if it is what was sent.
    pub fn open(&self, from: NodeId, to: NodeId, sealed: &Bytes) -> Option<Bytes> {
        let frame = Self::unchecked(sealed);
        let tag = sealed.get(frame.len()..)?;
        (tag == self.tag(from, to, &frame).0).then_some(frame)
    }

    /// The same, whoever sent it.
    pub fn unchecked(sealed: &Bytes) -> Bytes {
        sealed.slice(..sealed.len().saturating_sub(TAG_BYTES))
    }

    fn tag(&self, from: NodeId, to: NodeId, frame: &[u8]) -> Digest {
        sha256_concat(&[&self.secret.0, &from.0.0, &to.0.0, frame])
    }
}
