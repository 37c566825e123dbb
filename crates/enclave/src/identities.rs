//! The identities that a service has had: whose signatures to expect where on the ledger.
//!
//! Each recovery begins a new one ([`coco_governance::recovery`]). The present identity endorses
//! those before it, so that receipts of their time lead to the certificate that clients trust now.

use std::sync::Arc;

use coco_crypto::{Certificate, CertificateError, Entropy, KeyPair, PublicKey};
use coco_kv::Seqno;

/// An identity and where it begins.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    /// The first transaction that was written under it.
    pub from: Seqno,
    pub certificate: Certificate,
    pub key: PublicKey,
}

/// All identities, oldest first; never empty.
#[derive(Clone, Debug)]
pub(crate) struct Identities {
    earlier: Vec<Identity>,
    latest: Identity,
}

impl Identities {
    /// Those of a new service.
    pub fn of_new(certificate: Certificate) -> Result<Self, CertificateError> {
        Ok(Self { earlier: Vec::new(), latest: Identity::new(Seqno(1), certificate)? })
    }

    /// These, if there is one and they are in order.
    pub fn of(identities: Vec<(Seqno, Certificate)>) -> Result<Option<Self>, CertificateError> {
        let mut earlier: Vec<Identity> = identities
            .into_iter()
            .map(|(from, certificate)| Identity::new(from, certificate))
            .collect::<Result<_, _>>()?;
        let is_sorted = earlier.is_sorted_by(|one, next| one.from < next.from);
        Ok(earlier.pop().filter(|_| is_sorted).map(|latest| Self { earlier, latest }))
    }

    /// Those before `from`, and another that begins there.
    pub fn followed_by(
        &self,
        from: Seqno,
        certificate: Certificate,
    ) -> Result<Self, CertificateError> {
        let earlier = self.iter().filter(|identity| identity.from < from).cloned().collect();
        Ok(Self { earlier, latest: Identity::new(from, certificate)? })
    }

    /// The identity under which a position was written.
    pub fn at(&self, seqno: Seqno) -> &Identity {
        self.iter().rev().find(|identity| identity.from <= seqno).unwrap_or(&self.latest)
    }

    /// Oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Identity> {
        self.earlier.iter().chain([&self.latest])
    }

    /// The endorsements of all but the latest by that one, whose key this must be.
    pub fn endorse(
        &self,
        key: &KeyPair,
        entropy: &dyn Entropy,
    ) -> Result<Vec<Arc<str>>, CertificateError> {
        let issuer = &self.latest.certificate;
        let endorse = |earlier: &Identity| {
            let certificate = &earlier.certificate;
            let endorsement = Certificate::endorsing_identity(certificate, issuer, key, entropy)?;
            Ok(endorsement.to_pem().into())
        };
        self.earlier.iter().map(endorse).collect()
    }

    /// Which of the earlier identities a position was written under, by its place in
    /// [`iter`](Self::iter); none if under the latest.
    pub fn earlier_at(&self, seqno: Seqno) -> Option<usize> {
        let after = self.iter().position(|identity| seqno < identity.from)?;
        after.checked_sub(1)
    }
}

impl Identity {
    fn new(from: Seqno, certificate: Certificate) -> Result<Self, CertificateError> {
        let key = certificate.public_key()?;
        Ok(Self { from, certificate, key })
    }
}
