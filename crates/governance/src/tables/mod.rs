//! The governed tables: CCF's built-in maps with typed keys and values.
//!
//! A [`Table`] has many rows, a [`Cell`] exactly one value (CCF stores it under eight zero bytes).
//! Each static below names one map. Values are compact JSON with sorted keys unless the table says
//! otherwise; what is at its default is left out.

mod apps;
mod codec;
mod internal;
mod jwt;
mod members;
mod nodes;
mod proposals;
mod service;

use std::fmt;
use std::marker::PhantomData;
use std::ops::{Bound, ControlFlow};
use std::sync::LazyLock;

use coco_kv::{MapName, Tx};

pub use apps::{
    ENDPOINTS, INTERPRETER_FLUSH, JS_RUNTIME_OPTIONS, JsRuntimeOptions, MODULES, MODULES_BYTECODE,
    MODULES_BYTECODE_VERSION,
};
pub use codec::{Base64, Pem, Present, TableKey, TableValue, Text, canonical_json};
pub use internal::{
    ENCRYPTED_LEDGER_SECRETS, ENCRYPTED_SUBMITTED_SHARES, EncryptedLedgerSecret,
    HISTORICAL_ENCRYPTED_LEDGER_SECRET, HistoricalLedgerSecret, IdentityEndorsement,
    LAST_RECOVERY_TYPE, PREVIOUS_SERVICE_IDENTITY_ENDORSEMENT, PREVIOUS_SERVICE_LAST_SIGNED_ROOT,
    PreviousLedgerSecret, RECOVERY_SHARES, RecoveryShares, RecoveryType,
};
pub use jwt::{CA_CERT_BUNDLES, JWT_ISSUERS, JWT_PUBLIC_SIGNING_KEYS, JwtIssuer, JwtKey};
pub use members::{
    MEMBER_ACKS, MEMBER_CERTS, MEMBER_ENCRYPTION_KEYS, MEMBERS, MemberAck, MemberInfo,
    MemberStatus, RecoveryRole, USER_CERTS, USERS, UserInfo,
};
pub use nodes::{
    CodeStatus, Endorsement, NODE_ENDORSED_CERTS, NODES, NodeInfo, NodeStatus, NodeToNode,
    QuoteFormat, QuoteInfo, RpcInterface, SEATS, SGX_MEASUREMENTS, SNP_HOST_DATA, SNP_MEASUREMENTS,
    SNP_TCB_VERSIONS, SNP_UVM_ENDORSEMENTS, Seat, SpokenProtocol, TcbVersion, UvmFeed,
    VIRTUAL_HOST_DATA, VIRTUAL_MEASUREMENTS,
};
pub use proposals::{
    CONSTITUTION, COSE_HISTORY, COSE_RECENT_PROPOSALS, Failure, PROPOSALS, PROPOSALS_INFO,
    ProposalInfo, ProposalState,
};
pub use service::{
    PREVIOUS_SERVICE_IDENTITY, SERVICE_CONFIG, SERVICE_INFO, ServiceConfig, ServiceInfo,
    ServiceStatus,
};

/// The key of a [`Cell`], and the value of a row that says only "present".
pub(crate) const EIGHT_ZEROS: [u8; 8] = [0; 8];

/// A value in a governed table is not what the table holds. The ledger is authenticated, so this
/// is a bug or a format this version does not know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{table}: the entry under {key:?} cannot be read: {reason}")]
pub struct TableError {
    /// The map.
    pub table: String,
    /// The key, as text.
    pub key: String,
    /// What is wrong with it.
    pub reason: String,
}

/// A map with many rows.
pub struct Table<K, V> {
    name: LazyLock<MapName>,
    types: PhantomData<fn() -> (K, V)>,
}

/// A map with one value.
pub struct Cell<V> {
    name: LazyLock<MapName>,
    types: PhantomData<fn() -> V>,
}

impl<K: TableKey, V: TableValue> Table<K, V> {
    pub(crate) const fn new(name: fn() -> MapName) -> Self {
        Self { name: LazyLock::new(name), types: PhantomData }
    }

    /// The map's name.
    pub fn name(&self) -> &MapName {
        &self.name
    }

    /// The value of a row.
    pub fn get(&self, tx: &mut Tx, key: &K) -> Result<Option<V>, TableError> {
        let key = key.to_bytes();
        let Some(value) = tx.get(&self.name, &key) else { return Ok(None) };
        decode(&self.name, &key, &value).map(Some)
    }

    /// Whether there is such a row.
    pub fn has(&self, tx: &mut Tx, key: &K) -> bool {
        tx.has(&self.name, &key.to_bytes())
    }

    /// Writes a row.
    pub fn put(&self, tx: &mut Tx, key: &K, value: &V) {
        tx.put(&self.name, key.to_bytes().as_slice(), value.to_bytes());
    }

    /// Removes a row, if there is one.
    pub fn remove(&self, tx: &mut Tx, key: &K) {
        tx.remove(&self.name, key.to_bytes().as_slice());
    }

    /// Removes all rows.
    pub fn clear(&self, tx: &mut Tx) {
        tx.clear(&self.name);
    }

    /// All rows, in the order of their encoded keys.
    pub fn rows(&self, tx: &mut Tx) -> Result<Vec<(K, V)>, TableError> {
        let mut rows = Vec::new();
        self.visit(tx, |key, value| {
            rows.push((key, value));
            ControlFlow::Continue(())
        })?;
        Ok(rows)
    }

    /// Calls `visitor` with each row, in the order of the encoded keys, until it breaks.
    pub fn visit(
        &self,
        tx: &mut Tx,
        mut visitor: impl FnMut(K, V) -> ControlFlow<()>,
    ) -> Result<(), TableError> {
        let mut fault = None;
        let everything = (Bound::Unbounded, Bound::Unbounded);
        tx.range(&self.name, everything, |key, value| {
            let row = K::from_bytes(key)
                .map_err(|reason| error(&self.name, key, reason))
                .and_then(|name| Ok((name, decode(&self.name, key, value)?)));
            match row {
                Ok((key, value)) => visitor(key, value),
                Err(error) => {
                    fault = Some(error);
                    ControlFlow::Break(())
                }
            }
        });
        fault.map_or(Ok(()), Err)
    }
}

impl<V: TableValue> Cell<V> {
    pub(crate) const fn new(name: fn() -> MapName) -> Self {
        Self { name: LazyLock::new(name), types: PhantomData }
    }

    /// The map's name.
    pub fn name(&self) -> &MapName {
        &self.name
    }

    /// The value.
    pub fn get(&self, tx: &mut Tx) -> Result<Option<V>, TableError> {
        let Some(value) = tx.get(&self.name, &EIGHT_ZEROS) else { return Ok(None) };
        decode(&self.name, &EIGHT_ZEROS, &value).map(Some)
    }

    /// The value, which a running service has; its absence is an error.
    pub fn expect(&self, tx: &mut Tx) -> Result<V, TableError> {
        let absent = || error(&self.name, &EIGHT_ZEROS, "the value is absent".to_owned());
        self.get(tx)?.ok_or_else(absent)
    }

    /// The value in a state that is not that of a transaction, if it can be read.
    pub fn of_state(&self, state: &coco_kv::Snapshot) -> Option<V> {
        let entry = state.map(&self.name)?.get(&EIGHT_ZEROS)?;
        decode(&self.name, &EIGHT_ZEROS, &entry.value).ok()
    }

    /// Writes the value.
    pub fn put(&self, tx: &mut Tx, value: &V) {
        tx.put(&self.name, EIGHT_ZEROS.as_slice(), value.to_bytes());
    }

    /// Removes the value, if there is one.
    pub fn remove(&self, tx: &mut Tx) {
        tx.remove(&self.name, EIGHT_ZEROS.as_slice());
    }

    /// The position at which the value was last written, this transaction's own writes aside.
    pub fn version(&self, tx: &mut Tx) -> Option<coco_kv::Seqno> {
        tx.version_of_previous_write(&self.name, &EIGHT_ZEROS)
    }
}

impl<K, V> fmt::Debug for Table<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Table({})", self.name.as_str())
    }
}

impl<V> fmt::Debug for Cell<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cell({})", self.name.as_str())
    }
}

fn decode<V: TableValue>(table: &MapName, key: &[u8], value: &[u8]) -> Result<V, TableError> {
    V::from_bytes(value).map_err(|reason| error(table, key, reason))
}

fn error(table: &MapName, key: &[u8], reason: String) -> TableError {
    let key = String::from_utf8_lossy(key).into_owned();
    TableError { table: table.as_str().to_owned(), key, reason }
}

/// Declares tables and cells by the names of their maps.
macro_rules! tables {
    ($($(#[$doc:meta])* $name:ident: $type:ty = $map:literal;)+) => {$(
        $(#[$doc])*
        pub static $name: $type = <$type>::new(|| coco_kv::MapName::new($map));
    )+};
}
pub(crate) use tables;
