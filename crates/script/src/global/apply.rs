//! The members of `ccf` that only `apply` sees.

use rquickjs::function::Opt;
use rquickjs::{Ctx, Object, Result, Value};

use super::basic::{bytes_argument, json_argument, or_throw, string_argument};
use super::kv::number;
use super::member::{Member, function};
use crate::call::with_natives;
use crate::natives::{ApplyNatives, NativeError};
use crate::timed::native;

pub(super) const MEMBERS: &[Member] = &[
    ("node", node),
    ("network", network),
    function!("refreshAppBytecodeCache", |ctx: Ctx<'_>| {
        ask(&ctx, |natives, tx| natives.refresh_app_bytecode_cache(tx))
    }),
    function!("setJwtPublicSigningKeys", set_jwt_public_signing_keys),
    function!("removeJwtPublicSigningKeys", remove_jwt_public_signing_keys),
];

/// Asks the node; its refusal becomes an exception.
fn ask<R>(
    ctx: &Ctx<'_>,
    question: impl FnOnce(&dyn ApplyNatives, &mut coco_kv::Tx) -> std::result::Result<R, NativeError>,
) -> Result<R> {
    or_throw(ctx, with_natives(ctx, question)?)
}

fn node<'js>(ctx: &Ctx<'js>) -> Result<Value<'js>> {
    let node = Object::new(ctx.clone())?;
    macro_rules! trigger {
        ($name:literal, $native:ident) => {
            let call = |ctx: Ctx<'js>| ask(&ctx, |natives, tx| natives.$native(tx));
            node.set($name, native(ctx, $name, call)?)?;
        };
    }
    trigger!("triggerLedgerRekey", trigger_ledger_rekey);
    trigger!("triggerRecoverySharesRefresh", trigger_recovery_shares_refresh);
    trigger!("triggerLedgerChunk", trigger_ledger_chunk);
    trigger!("triggerSnapshot", trigger_snapshot);
    let name = "transitionServiceToOpen";
    node.set(name, native(ctx, name, transition_service_to_open)?)?;
    Ok(node.into_value())
}

fn network<'js>(ctx: &Ctx<'js>) -> Result<Value<'js>> {
    let network = Object::new(ctx.clone())?;
    let seqno = |ctx: Ctx<'js>| {
        ask(&ctx, |natives, tx| natives.latest_ledger_secret_seqno(tx)).map(|seqno| number(seqno.0))
    };
    for function in [
        native(ctx, "getLatestLedgerSecretSeqno", seqno)?,
        native(ctx, "generateEndorsedCertificate", endorsed_certificate)?,
        native(ctx, "generateNetworkCertificate", network_certificate)?,
    ] {
        network.set(function.get::<_, String>("name")?, function)?;
    }
    Ok(network.into_value())
}

/// `(previousIdentity, nextIdentity)`, or `(nextIdentity)` alone; the first may be undefined.
fn transition_service_to_open<'js>(
    ctx: Ctx<'js>,
    first: Value<'js>,
    second: Opt<Value<'js>>,
) -> Result<()> {
    let (previous, next) = match second.0 {
        Some(second) => (Some(first).filter(|first| !first.is_undefined()), second),
        None => (None, first),
    };
    let previous = previous.map(|value| bytes_argument(&value, "previousIdentity")).transpose()?;
    let next = bytes_argument(&next, "nextIdentity")?;
    ask(&ctx, |natives, tx| natives.transition_service_to_open(tx, previous.as_deref(), &next))
}

fn endorsed_certificate<'js>(
    ctx: Ctx<'js>,
    csr: Value<'js>,
    valid_from: Value<'js>,
    validity_days: u32,
) -> Result<String> {
    let csr = string_argument(&csr, "csr")?;
    let from = string_argument(&valid_from, "validFrom")?;
    ask(&ctx, |natives, tx| natives.generate_endorsed_certificate(tx, &csr, &from, validity_days))
}

fn network_certificate<'js>(
    ctx: Ctx<'js>,
    valid_from: Value<'js>,
    validity_days: u32,
) -> Result<String> {
    let from = string_argument(&valid_from, "validFrom")?;
    ask(&ctx, |natives, tx| natives.generate_network_certificate(tx, &from, validity_days))
}

fn set_jwt_public_signing_keys<'js>(
    ctx: Ctx<'js>,
    issuer: Value<'js>,
    metadata: Value<'js>,
    jwks: Value<'js>,
) -> Result<()> {
    let issuer = string_argument(&issuer, "issuer")?;
    let (metadata, jwks) = (json_argument(metadata)?, json_argument(jwks)?);
    ask(&ctx, |natives, tx| natives.set_jwt_public_signing_keys(tx, &issuer, &metadata, &jwks))
}

fn remove_jwt_public_signing_keys<'js>(ctx: Ctx<'js>, issuer: Value<'js>) -> Result<()> {
    let issuer = string_argument(&issuer, "issuer")?;
    ask(&ctx, |natives, tx| natives.remove_jwt_public_signing_keys(tx, &issuer))
}
