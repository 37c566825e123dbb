//! Who calls, once authenticated.

use bytes::Bytes;
use coco_crypto::Digest;
use serde_json::Value as Json;

/// The authenticated caller of an endpoint. Ids are SHA-256 of the DER certificate for members and
/// participants, of the SPKI for nodes.
#[derive(Clone, Debug, PartialEq)]
pub enum Caller {
    /// The endpoint declares no policy at all.
    Unauthenticated,
    /// The `no_auth` policy passed.
    NoAuth,
    /// A participant, by TLS certificate.
    UserCert {
        /// Participant id.
        id: Digest,
        /// The certificate, PEM.
        cert: String,
        /// `user_data`, or null.
        data: Json,
    },
    /// A member, by TLS certificate.
    MemberCert {
        /// Member id.
        id: Digest,
        /// The certificate, PEM.
        cert: String,
        /// `member_data`, or null.
        data: Json,
    },
    /// Somebody with a TLS certificate.
    AnyCert {
        /// The certificate, PEM.
        cert: String,
    },
    /// The bearer of a token.
    Jwt {
        /// The issuer that registered the key.
        key_issuer: String,
        /// The decoded header.
        header: Json,
        /// The decoded claims.
        payload: Json,
    },
    /// A participant who signed the body.
    UserCose {
        /// Participant id.
        id: Digest,
        /// The certificate, PEM.
        cert: String,
        /// `user_data`, or null.
        data: Json,
        /// What was signed.
        envelope: CoseEnvelope,
    },
    /// A member who signed the body.
    MemberCose {
        /// Member id.
        id: Digest,
        /// The certificate, PEM.
        cert: String,
        /// `member_data`, or null.
        data: Json,
        /// What was signed.
        envelope: CoseEnvelope,
    },
    /// A trusted node of this service.
    Node {
        /// Node id.
        id: Digest,
    },
    /// All of several policies; each entry is the policy's name with its caller.
    AllOf(Vec<(&'static str, Caller)>),
}

/// A verified COSE_Sign1 request body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoseEnvelope {
    /// The whole signed message, as received.
    pub message: Bytes,
    /// Its payload.
    pub content: Bytes,
    /// The signature field: the replay key.
    pub signature: Bytes,
    /// `ccf.gov.msg.type`.
    pub message_type: Option<String>,
    /// `ccf.gov.msg.created_at`, seconds since 1970.
    pub created_at: Option<u64>,
    /// `ccf.gov.msg.proposal_id`.
    pub proposal_id: Option<String>,
}
