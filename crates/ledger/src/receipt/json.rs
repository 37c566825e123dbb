//! Receipts in JSON: the root is signed by a node, the node is endorsed by the service.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use coco_crypto::{Certificate, Digest, PublicKey};
use serde::{Deserialize, Serialize};

use super::{
    InclusionProof, Leaf, LeafComponents, MAX_PATH_STEPS, MAX_RECEIPT_BYTES, ReceiptError,
};
use crate::merkle::{Path, PathStep, Side};

/// A JSON receipt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// From the transaction to the signed root.
    pub proof: InclusionProof,
    /// The signing node's certificate, PEM.
    pub certificate: String,
    /// The signing node.
    pub node_id: String,
    /// ECDSA by the node over the root as it is, DER.
    pub signature: Vec<u8>,
    /// Certificates from the one that endorses the node to the one that the present service
    /// endorses, PEM; none if the present service endorsed the node.
    pub endorsements: Vec<String>,
}

impl Receipt {
    /// The receipt as CCF writes it: compact, fields in order of their names.
    pub fn to_json(&self) -> String {
        let (leaf, leaf_components) = match &self.proof.leaf {
            Leaf::Digest(leaf) => (Some(leaf.to_string()), None),
            Leaf::Components(components) => (None, Some(ComponentsJson::from(components))),
        };
        let step = |step: &PathStep| {
            let sibling = step.sibling.to_string();
            match step.side {
                Side::Left => StepJson { left: Some(sibling), right: None },
                Side::Right => StepJson { left: None, right: Some(sibling) },
            }
        };
        let json = ReceiptJson {
            cert: self.certificate.clone(),
            leaf,
            leaf_components,
            node_id: self.node_id.clone(),
            proof: self.proof.path.0.iter().map(step).collect(),
            service_endorsements: self.endorsements.clone(),
            signature: BASE64.encode(&self.signature),
        };
        #[expect(clippy::expect_used, reason = "strings only, written to memory")]
        serde_json::to_string(&json).expect("a struct of strings is valid JSON")
    }

    /// Reads a receipt. Nothing is verified yet.
    ///
    /// # Errors
    /// If it is malformed or too long.
    pub fn from_json(json: &[u8]) -> Result<Self, ReceiptError> {
        if json.len() > MAX_RECEIPT_BYTES {
            return Err(ReceiptError::TooLong(json.len()));
        }
        let json: ReceiptJson =
            serde_json::from_slice(json).map_err(|error| ReceiptError::Json(error.to_string()))?;
        let leaf = match (json.leaf, json.leaf_components) {
            (Some(leaf), None) => Leaf::Digest(digest(&leaf)?),
            (None, Some(components)) => Leaf::Components(components.try_into()?),
            _ => return Err(ReceiptError::Json("either leaf or leaf_components".into())),
        };
        if json.proof.len() > MAX_PATH_STEPS {
            return Err(ReceiptError::Json(format!("a proof of {} steps", json.proof.len())));
        }
        let steps = json.proof.iter().map(|step| match (&step.left, &step.right) {
            (Some(left), None) => Ok(PathStep { side: Side::Left, sibling: digest(left)? }),
            (None, Some(right)) => Ok(PathStep { side: Side::Right, sibling: digest(right)? }),
            _ => Err(ReceiptError::Json("either left or right in a step of the proof".into())),
        });
        let path = Path(steps.collect::<Result<_, _>>()?);
        let signature = BASE64.decode(&json.signature);
        Ok(Self {
            proof: InclusionProof { leaf, path },
            certificate: json.cert,
            node_id: json.node_id,
            signature: signature.map_err(|_| ReceiptError::Json("signature".into()))?,
            endorsements: json.service_endorsements,
        })
    }

    /// Verifies the signature over the root and the chain from the node to `service`. Dates of
    /// validity are not looked at: a receipt outlives certificates. Returns the root. What the
    /// receipt is of, [`InclusionProof::subject`] says.
    ///
    /// # Errors
    /// If any link does not hold, or the leaf may as well be an inner node.
    pub fn verify(&self, service: &PublicKey) -> Result<Digest, ReceiptError> {
        if let Leaf::Components(components) = &self.proof.leaf {
            components.require_tx_id()?;
        }
        let node = Certificate::from_pem(&self.certificate)?;
        let key = node.public_key()?;
        if key.id().to_string() != self.node_id {
            return Err(ReceiptError::NodeId(self.node_id.clone()));
        }
        let root = self.proof.root();
        key.verify_digest(&root, &self.signature)?;
        let mut endorsed = node;
        for endorser in &self.endorsements {
            let endorser = Certificate::from_pem(endorser)?;
            endorsed.verify_signed_by(&endorser)?;
            endorsed = endorser;
        }
        endorsed.verify_signed_by_key(service)?;
        Ok(root)
    }

    /// As [`Receipt::verify`], and that the receipt covers these claims of the application.
    ///
    /// # Errors
    /// If it does not.
    pub fn verify_claims(
        &self,
        service: &PublicKey,
        claims: Digest,
    ) -> Result<Digest, ReceiptError> {
        match &self.proof.leaf {
            Leaf::Components(components) if components.claims_digest == Some(claims) => {
                self.verify(service)
            }
            _ => Err(ReceiptError::Claims),
        }
    }
}

#[derive(Serialize, Deserialize)]
struct ReceiptJson {
    cert: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    leaf: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    leaf_components: Option<ComponentsJson>,
    node_id: String,
    proof: Vec<StepJson>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    service_endorsements: Vec<String>,
    signature: String,
}

#[derive(Serialize, Deserialize)]
struct StepJson {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    left: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    right: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct ComponentsJson {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    claims_digest: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    commit_evidence: Option<String>,
    write_set_digest: String,
}

impl From<&LeafComponents> for ComponentsJson {
    fn from(components: &LeafComponents) -> Self {
        Self {
            claims_digest: components.claims_digest.map(|digest| digest.to_string()),
            commit_evidence: components.commit_evidence.clone(),
            write_set_digest: components.write_set_digest.to_string(),
        }
    }
}

impl TryFrom<ComponentsJson> for LeafComponents {
    type Error = ReceiptError;

    fn try_from(json: ComponentsJson) -> Result<Self, ReceiptError> {
        Ok(Self {
            write_set_digest: digest(&json.write_set_digest)?,
            commit_evidence: json.commit_evidence,
            claims_digest: json.claims_digest.as_deref().map(digest).transpose()?,
        })
    }
}

fn digest(text: &str) -> Result<Digest, ReceiptError> {
    text.parse().map_err(|_| ReceiptError::Json(format!("{text:?} is not a digest")))
}
