//! Seats: a node that comes back needs no vote where members have voted for its seat.
//!
//! A seat is an address for other nodes and the operator who may put a node there. A node takes it
//! when all of this holds, and otherwise waits for its members like any other:
//!
//! ```text
//!   the service is open, and has a seat at the node's address
//!   the seat's operator has signed: this node, at this address, of this service
//!   whoever is trusted at the address has fallen silent    as the primary hears, or does not
//!   the constitution lets it                               mayTakeSeat(candidate)
//! ```
//!
//! One transaction then trusts it and retires those who were there, so that the list of nodes and
//! the quorum change in one step, and never count a node that is gone beside its successor. Who
//! sits in a seat is who is trusted at its address: nothing else could disagree with it.

use std::sync::Arc;

use coco_adapter::Environment;
use coco_crypto::cose::{CoseError, CoseSign1, Header, label};
use coco_crypto::x509::Validity;
use coco_crypto::{Certificate, CertificateError, Digest, KeyError, KeyPair, SigningRequest};
use coco_kv::Tx;
use coco_script::{ScriptEngine, ScriptError};
use serde_json::json;

use crate::ServiceControl;
use crate::decision::{Court, Undecided};
use crate::tables::{
    NODE_ENDORSED_CERTS, NODES, NodeInfo, NodeStatus, Pem, SEATS, SERVICE_CONFIG, SERVICE_INFO,
    Seat, ServiceConfig, ServiceStatus, TableError, canonical_json,
};

/// The longest statement of an operator that is looked at.
const MAX_STATEMENT_BYTES: usize = 4 << 10;
/// Says what a statement is, so that no other message of the same key passes for one.
const STATEMENT_TYPE: (&str, &str) = ("coco.msg.type", "node_seat");

/// What an operator signs: that this node takes the seat at this address, of this service. The node
/// has its key for one life only, so that the statement cannot serve for another one.
#[derive(Clone, Copy, Debug)]
pub struct Statement<'a> {
    /// The seat.
    pub address: &'a str,
    /// The node.
    pub node_id: Digest,
    /// The digest of the service's public key.
    pub service_id: Digest,
}

impl Statement<'_> {
    fn to_bytes(self) -> Vec<u8> {
        canonical_json(&json!({
            "address": self.address,
            "node_id": self.node_id.to_string(),
            "service_id": self.service_id.to_string(),
        }))
    }

    /// Whether a COSE_Sign1 without payload is that of the operator over this statement.
    fn verify(self, operator: &Certificate, signed: &[u8]) -> Result<(), StatementError> {
        if signed.len() > MAX_STATEMENT_BYTES {
            return Err(StatementError::TooLong);
        }
        let message = CoseSign1::parse(signed)?;
        let (name, value) = STATEMENT_TYPE;
        if message.protected().get(name).and_then(|found| found.as_text()) != Some(value) {
            return Err(StatementError::OfOtherType);
        }
        let signer = message.key_id().unwrap_or_default();
        if signer != operator.fingerprint().to_string().as_bytes() {
            return Err(StatementError::OtherOperator);
        }
        Ok(message.verify_by(operator, Some(&self.to_bytes()))?)
    }
}

/// What a node shows is not its operator's statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StatementError {
    /// Longer than any statement.
    #[error("it is longer than {MAX_STATEMENT_BYTES} bytes")]
    TooLong,
    /// Made for something else.
    #[error("the signed message is of another type")]
    OfOtherType,
    /// By somebody else.
    #[error("another operator has signed")]
    OtherOperator,
    /// It is over another node, address or service, or it is no such message.
    #[error("the signature is not over this node, address and service ({0})")]
    Signature(#[from] CoseError),
}

/// Whoever runs nodes: a certificate, and the key that signs for seats.
#[derive(Clone, Debug)]
pub struct Operator {
    certificate: Certificate,
    key: Arc<KeyPair>,
}

/// What an operator's files hold does not serve.
#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    /// Not a certificate, or not one of an EC key.
    #[error("the operator's certificate: {0}")]
    Certificate(#[from] CertificateError),
    /// Not an EC key.
    #[error("the operator's private key: {0}")]
    Key(#[from] KeyError),
    /// Two things of different owners.
    #[error("the operator's private key is not that of the certificate")]
    Mismatch,
}

impl Operator {
    /// An operator from PEM texts.
    pub fn from_pem(certificate: &str, private_key: &str) -> Result<Self, OperatorError> {
        let certificate = Certificate::from_pem(certificate)?;
        let key = Arc::new(KeyPair::from_pem(private_key)?);
        if certificate.public_key()? != *key.public() {
            return Err(OperatorError::Mismatch);
        }
        Ok(Self { certificate, key })
    }

    /// Signs a statement: a COSE_Sign1 without payload.
    pub fn sign(&self, statement: Statement<'_>) -> Vec<u8> {
        let (name, value) = STATEMENT_TYPE;
        let header = Header::for_key(self.key.public())
            .with(label::KEY_ID, self.certificate.fingerprint().to_string().into_bytes())
            .with(name, value);
        CoseSign1::sign_detached(header, &statement.to_bytes(), &self.key).encode()
    }
}

/// A node whose evidence is accepted, and which waits.
#[derive(Debug)]
pub struct Candidate<'a> {
    /// The node.
    pub node_id: Digest,
    /// What the ledger says of it, or is about to.
    pub info: &'a NodeInfo,
    /// What its operator has signed.
    pub statement: &'a [u8],
}

/// A node does not take a seat; it waits for its members.
#[derive(Debug, thiserror::Error)]
pub enum SeatError {
    /// Members have not opened the service, or not again.
    #[error("seats are taken in an open service, and this one is {}", .0.as_str())]
    NotOpen(ServiceStatus),
    /// Members have not voted for it.
    #[error("members have approved no seat at {address}")]
    NoSeat {
        /// Where the node is.
        address: String,
    },
    /// The operator is not the seat's.
    #[error("this is not a statement of the operator of the seat at {address}: {error}")]
    Statement {
        /// The seat.
        address: String,
        /// Why not.
        error: StatementError,
    },
    /// Nobody is replaced who is there.
    #[error("the seat at {address} is that of node {node_id}, which is not known to be gone")]
    Taken {
        /// The seat.
        address: String,
        /// Who is there.
        node_id: Digest,
    },
    /// The constitution has no `mayTakeSeat`.
    #[error("the constitution has every node voted for")]
    NotOffered,
    /// The constitution says no.
    #[error("the constitution does not let this node take its seat")]
    Refused,
    /// The constitution cannot say.
    #[error("the constitution's mayTakeSeat() failed")]
    Constitution(#[source] ScriptError),
    /// A certificate of the seat, the node or the service does not serve.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// A governed table cannot be read.
    #[error(transparent)]
    Table(#[from] TableError),
}

/// What decides beside the tables.
pub struct Usher<'a> {
    /// The service's keys.
    pub control: &'a dyn ServiceControl,
    /// Runs the constitution.
    pub engine: &'a ScriptEngine,
    /// Of the primary.
    pub environment: &'a dyn Environment,
    /// Whether the primary has not heard of a node for long. Never of itself.
    pub is_silent: &'a dyn Fn(&Digest) -> bool,
}

impl Usher<'_> {
    /// Trusts a node in its seat, and retires whoever was there; its record as it is then. Nothing
    /// is written otherwise.
    pub fn seat(&self, tx: &mut Tx, candidate: &Candidate<'_>) -> Result<NodeInfo, SeatError> {
        let service = SERVICE_INFO.expect(tx)?;
        if service.status != ServiceStatus::Open {
            return Err(SeatError::NotOpen(service.status));
        }
        let service_cert = Certificate::from_pem(&service.cert.0)?;
        let node_to_node = candidate.info.node_to_node_interface.as_ref();
        let address = node_to_node.map(|interface| interface.address()).unwrap_or_default();
        let mut seat = SEATS
            .get(tx, &address.to_owned())?
            .ok_or_else(|| SeatError::NoSeat { address: address.to_owned() })?;
        let operator = Certificate::from_pem(&seat.operator_cert.0)?;
        let service_id = service_cert.public_key()?.id();
        let statement = Statement { address, node_id: candidate.node_id, service_id };
        statement
            .verify(&operator, candidate.statement)
            .map_err(|error| SeatError::Statement { address: address.to_owned(), error })?;
        let replaced = self.gone(tx, address)?;
        self.ask(tx, candidate, &seat, &replaced)?;
        let endorsed = self.endorse(tx, candidate.info, &service_cert)?;

        for (id, info) in replaced {
            tracing::info!(node = %id, address, "retired: another node takes its seat");
            NODES.put(tx, &id, &NodeInfo { status: NodeStatus::Retired, ..info });
        }
        let trusted = NodeInfo {
            status: NodeStatus::Trusted,
            ledger_secret_seqno: Some(self.control.ledger_secret().valid_from.0),
            ..candidate.info.clone()
        };
        NODES.put(tx, &candidate.node_id, &trusted);
        NODE_ENDORSED_CERTS.put(tx, &candidate.node_id, &endorsed);
        seat.node_id = Some(candidate.node_id.to_string());
        SEATS.put(tx, &address.to_owned(), &seat);
        Ok(trusted)
    }

    /// Those who are trusted at an address, if they are all gone. One who has been trusted a moment
    /// ago is not: the log has not called it yet.
    fn gone(&self, tx: &mut Tx, address: &str) -> Result<Vec<(Digest, NodeInfo)>, SeatError> {
        let there = sitting_at(tx, address)?;
        match there.iter().find(|(id, _)| !(self.is_silent)(id)) {
            Some((node_id, _)) => {
                Err(SeatError::Taken { address: address.to_owned(), node_id: *node_id })
            }
            None => Ok(there),
        }
    }

    fn ask(
        &self,
        tx: &mut Tx,
        candidate: &Candidate<'_>,
        seat: &Seat,
        replaced: &[(Digest, NodeInfo)],
    ) -> Result<(), SeatError> {
        let court = Court::sitting(tx, self.engine, self.control, self.environment);
        let court = court.map_err(|undecided| match undecided {
            Undecided::Table(error) => SeatError::Table(error),
            _ => SeatError::NotOffered,
        })?;
        let replaces: Vec<_> = replaced.iter().map(|(id, _)| id.to_string()).collect();
        let facts = json!({
            "node_id": candidate.node_id.to_string(),
            "node": candidate.info,
            "address": candidate.info.node_to_node_interface.as_ref().map(|it| it.address()),
            "seat": seat,
            "replaces": replaces,
        });
        match court.may_take_seat(tx, &facts.to_string()).map_err(SeatError::Constitution)? {
            Some(true) => Ok(()),
            Some(false) => Err(SeatError::Refused),
            None => Err(SeatError::NotOffered),
        }
    }

    /// The node's certificate, for as long as the service gives any.
    fn endorse(
        &self,
        tx: &mut Tx,
        info: &NodeInfo,
        service: &Certificate,
    ) -> Result<Pem, SeatError> {
        let longest = SERVICE_CONFIG.expect(tx)?.maximum_node_certificate_validity_days;
        let days = u32::try_from(longest.unwrap_or(ServiceConfig::DEFAULT_VALIDITY_DAYS))
            .unwrap_or(u32::MAX);
        let now_s = i64::try_from(self.environment.now_ms() / 1_000).unwrap_or(i64::MAX);
        let request = info.certificate_signing_request.as_ref().map(|request| request.0.as_str());
        let request = SigningRequest::from_pem(request.unwrap_or_default())?;
        let (key, entropy) = (self.control.service_key(), self.environment.entropy());
        let endorsed = request.endorse(service, &key, Validity::days(now_s, days), entropy)?;
        Ok(Pem(endorsed.to_pem()))
    }
}

/// The nodes that are trusted at an address.
pub(crate) fn sitting_at(
    tx: &mut Tx,
    address: &str,
) -> Result<Vec<(Digest, NodeInfo)>, TableError> {
    let mut nodes = NODES.rows(tx)?;
    nodes.retain(|(_, info)| {
        let interface = info.node_to_node_interface.as_ref();
        info.status == NodeStatus::Trusted && interface.is_some_and(|it| it.address() == address)
    });
    Ok(nodes)
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use coco_crypto::x509::DistinguishedName;
    use coco_crypto::{Curve, Entropy, sha256};
    use proptest::prelude::*;

    use super::*;

    struct Seeded(u8);

    impl Entropy for Seeded {
        fn fill(&self, out: &mut [u8]) {
            for (byte, index) in out.iter_mut().zip(0_u8..) {
                *byte = sha256(&[self.0, index]).0[0];
            }
        }
    }

    fn operator(seed: u8) -> Operator {
        let key = KeyPair::generate(Curve::P256, &Seeded(seed)).unwrap();
        let name = DistinguishedName::common_name("operator");
        let validity = Validity::days(1_767_225_600, 365);
        let cert = Certificate::for_member(&key, &name, validity, &Seeded(seed)).unwrap();
        Operator::from_pem(&cert.to_pem(), &key.to_pem()).unwrap()
    }

    /// Their certificates are signed anew each time.
    static OPERATORS: LazyLock<[Operator; 2]> = LazyLock::new(|| [operator(1), operator(2)]);

    fn statement(address: &str, node: u8, service: u8) -> Statement<'_> {
        Statement { address, node_id: sha256(&[node]), service_id: sha256(&[service]) }
    }

    #[test]
    fn an_operator_is_a_certificate_with_its_key() {
        let [one, other] = &*OPERATORS;
        let mixed = Operator::from_pem(&one.certificate.to_pem(), &other.key.to_pem());
        assert!(matches!(mixed, Err(OperatorError::Mismatch)));
        let swapped = Operator::from_pem(&one.key.to_pem(), &one.certificate.to_pem());
        assert!(matches!(swapped, Err(OperatorError::Certificate(_))));
        assert!(!format!("{one:?}").contains("PRIVATE"));
    }

    #[test]
    fn no_other_message_of_the_operator_is_a_statement() {
        let (operator, statement) = (&OPERATORS[0], statement("a:1", 1, 1));
        let verified = |header: Header, payload: &[u8]| {
            let signed = CoseSign1::sign_detached(header, payload, &operator.key).encode();
            statement.verify(&operator.certificate, &signed)
        };
        let plain = Header::for_key(operator.key.public())
            .with(label::KEY_ID, operator.certificate.fingerprint().to_string().into_bytes());
        let (name, value) = STATEMENT_TYPE;
        let typed = plain.clone().with(name, value);
        assert_eq!(verified(typed.clone(), &statement.to_bytes()), Ok(()));
        assert_eq!(verified(plain, &statement.to_bytes()), Err(StatementError::OfOtherType));
        let nobody = typed.clone().with(label::KEY_ID, b"nobody".to_vec());
        assert_eq!(verified(nobody, &statement.to_bytes()), Err(StatementError::OtherOperator));
        let attached = CoseSign1::sign(typed, statement.to_bytes(), &operator.key).encode();
        let attached = statement.verify(&operator.certificate, &attached);
        assert_eq!(attached, Err(StatementError::Signature(CoseError::Payload)));
        let long = vec![0; MAX_STATEMENT_BYTES + 1];
        let long = statement.verify(&operator.certificate, &long);
        assert_eq!(long, Err(StatementError::TooLong));
    }

    proptest! {
        #[test]
        fn a_statement_is_of_one_node_address_service_and_operator(
            address in "[ab]:[12]", node in 0..2_u8, service in 0..2_u8, signer in 0..2_usize,
            other in ("[ab]:[12]", 0..2_u8, 0..2_u8, 0..2_usize),
        ) {
            let signed = OPERATORS[signer].sign(statement(&address, node, service));
            let is_same = (&address, node, service, signer) == (&other.0, other.1, other.2, other.3);
            let certificate = &OPERATORS[other.3].certificate;
            let verified = statement(&other.0, other.1, other.2).verify(certificate, &signed);
            prop_assert_eq!(verified.is_ok(), is_same);
        }

        #[test]
        fn what_is_no_statement_is_refused(
            bytes in proptest::collection::vec(any::<u8>(), 0..300), at in any::<prop::sample::Index>(),
        ) {
            let (operator, statement) = (&OPERATORS[0], statement("a:1", 1, 1));
            prop_assert!(statement.verify(&operator.certificate, &bytes).is_err());
            let mut signed = operator.sign(statement);
            let at = at.index(signed.len());
            signed[at] ^= 0x10;
            prop_assert!(statement.verify(&operator.certificate, &signed).is_err());
        }
    }
}
