//! What the constitution's `apply` may ask of the node.

use std::cell::Cell;

use coco_adapter::{Environment, Outcome};
use coco_crypto::x509::Validity;
use coco_crypto::{Certificate, SigningRequest};
use coco_kv::{Seqno, Tx};
use coco_script::{ApplyNatives, NativeError, ScriptEngine, ScriptError};
use serde_json::Value as Json;

use crate::tables::{
    MODULES, MODULES_BYTECODE, MODULES_BYTECODE_VERSION, PREVIOUS_SERVICE_IDENTITY_ENDORSEMENT,
    SERVICE_INFO, ServiceStatus,
};
use crate::{ServiceControl, custody, jwt, moment, recovery};

/// The natives of one `apply`. Effects go through the transaction; what the node must do after it
/// is collected for the transaction's outcome.
pub(crate) struct Natives<'a> {
    control: &'a dyn ServiceControl,
    environment: &'a dyn Environment,
    engine: &'a ScriptEngine,
    force_chunk: Cell<bool>,
    force_snapshot: Cell<bool>,
}

impl<'a> Natives<'a> {
    pub(crate) fn new(
        control: &'a dyn ServiceControl,
        environment: &'a dyn Environment,
        engine: &'a ScriptEngine,
    ) -> Self {
        let (force_chunk, force_snapshot) = Default::default();
        Self { control, environment, engine, force_chunk, force_snapshot }
    }

    /// Adds what `apply` asked for to an outcome.
    pub(crate) fn add_to(&self, outcome: &mut Outcome) {
        outcome.force_chunk |= self.force_chunk.get();
        outcome.force_snapshot |= self.force_snapshot.get();
    }
}

impl ApplyNatives for Natives<'_> {
    fn transition_service_to_open(
        &self,
        tx: &mut Tx,
        previous_identity: Option<&[u8]>,
        next_identity: &[u8],
    ) -> Result<(), NativeError> {
        let mut service = SERVICE_INFO.expect(tx).map_err(refuse)?;
        // Opening twice changes nothing.
        if matches!(service.status, ServiceStatus::Open | ServiceStatus::WaitingForRecoveryShares) {
            return Ok(());
        }
        if next_identity != service.cert.0.as_bytes() {
            let message = "the next service identity does not match the service's certificate";
            return Err(NativeError::new(message));
        }
        if service.status == ServiceStatus::Recovering {
            return recovery::approve(tx, service, previous_identity).map_err(refuse);
        }

        custody::issue_recovery_shares(tx, self.control, self.environment.entropy())
            .map_err(refuse)?;
        let now_s = self.environment.now_ms() / 1000;
        let endorsement = custody::endorse_own_identity(self.control, &service, now_s);
        PREVIOUS_SERVICE_IDENTITY_ENDORSEMENT.put(tx, &endorsement);
        service.status = ServiceStatus::Open;
        service.previous_service_identity_version = SERVICE_INFO.version(tx).map(|seqno| seqno.0);
        SERVICE_INFO.put(tx, &service);
        self.force_chunk.set(true);
        self.force_snapshot.set(true);
        Ok(())
    }

    fn trigger_recovery_shares_refresh(&self, tx: &mut Tx) -> Result<(), NativeError> {
        let status = SERVICE_INFO.expect(tx).map_err(refuse)?.status;
        if status != ServiceStatus::Open {
            let status = status.as_str();
            let message =
                format!("recovery shares are issued by an open service, this one is {status}");
            return Err(NativeError::new(message));
        }
        custody::issue_recovery_shares(tx, self.control, self.environment.entropy()).map_err(refuse)
    }

    fn trigger_ledger_chunk(&self, _tx: &mut Tx) -> Result<(), NativeError> {
        self.force_chunk.set(true);
        Ok(())
    }

    fn trigger_snapshot(&self, _tx: &mut Tx) -> Result<(), NativeError> {
        self.force_snapshot.set(true);
        Ok(())
    }

    fn latest_ledger_secret_seqno(&self, _tx: &mut Tx) -> Result<Seqno, NativeError> {
        Ok(self.control.ledger_secret().valid_from)
    }

    fn generate_endorsed_certificate(
        &self,
        tx: &mut Tx,
        csr_pem: &str,
        valid_from: &str,
        validity_days: u32,
    ) -> Result<String, NativeError> {
        let request = SigningRequest::from_pem(csr_pem).map_err(refuse)?;
        let from = moment::unix_seconds(valid_from)
            .ok_or_else(|| NativeError::new(format!("{valid_from} is not a date")))?;
        let service = SERVICE_INFO.expect(tx).map_err(refuse)?;
        let service = Certificate::from_pem(&service.cert.0).map_err(refuse)?;
        let (key, entropy) = (self.control.service_key(), self.environment.entropy());
        let validity = Validity::days(from, validity_days);
        let endorsed = request.endorse(&service, &key, validity, entropy).map_err(refuse)?;
        Ok(endorsed.to_pem())
    }

    /// Nodes compile modules when they load them and keep the result in memory; what another
    /// engine recorded on the ledger is of no use and goes. Here it is seen that they will compile.
    fn refresh_app_bytecode_cache(&self, tx: &mut Tx) -> Result<(), NativeError> {
        self.engine.check_modules(tx, self.environment, MODULES.name()).map_err(uncompilable)?;
        MODULES_BYTECODE.clear(tx);
        MODULES_BYTECODE_VERSION.remove(tx);
        Ok(())
    }

    fn set_jwt_public_signing_keys(
        &self,
        tx: &mut Tx,
        issuer: &str,
        _metadata: &Json,
        jwks: &Json,
    ) -> Result<(), NativeError> {
        jwt::set_public_signing_keys(tx, issuer, jwks).map_err(refuse)
    }

    fn remove_jwt_public_signing_keys(&self, tx: &mut Tx, issuer: &str) -> Result<(), NativeError> {
        jwt::remove_public_signing_keys(tx, issuer).map_err(refuse)
    }
}

fn refuse(error: impl std::fmt::Display) -> NativeError {
    NativeError::new(error.to_string())
}

/// Names the place in the module, as members see no log.
fn uncompilable(error: ScriptError) -> NativeError {
    let place = match &error {
        ScriptError::Thrown(thrown) => thrown.position.as_ref(),
        _ => None,
    };
    let place = place.map(|place| format!("{}, line {}: ", place.file, place.line));
    NativeError::new(format!("Failed to refresh bytecode: {}{error}", place.unwrap_or_default()))
}
