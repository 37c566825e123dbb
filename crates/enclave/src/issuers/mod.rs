//! Keys of token issuers, fetched from the issuers themselves: those that members registered with
//! `auto_refresh`.
//!
//! ```text
//!   {issuer}/.well-known/openid-configuration ─▶ jwks_uri ─▶ keys ─▶ governed table
//! ```
//!
//! Every `jwt.key_refresh_interval`, and at once when members register an issuer. The host carries
//! bytes only: TLS ends here, under the CA bundle that members chose for the issuer. An issuer that
//! does not answer, or answers nonsense, keeps the keys it has.

mod fetch;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use coco_adapter::Outcome;
use coco_consensus::Role;
use coco_governance::jwt::{JwksError, set_public_signing_keys};
use coco_governance::tables::{CA_CERT_BUNDLES, JWT_ISSUERS, TableError};
use coco_kv::Seqno;
use serde_json::Value as Json;
use tokio::sync::Notify;

use crate::node::Node;
use crate::pipeline::CommitError;
use crate::session::within;
use fetch::{FetchError, Https};

/// How long an issuer may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// What is committed is looked at this much later, so that a busy node looks seldom.
const DEBOUNCE: Duration = Duration::from_millis(200);
/// Tries to write down keys while others change the tables.
const MAX_ATTEMPTS: usize = 30;

/// Keys of an issuer could not be refreshed.
#[derive(Debug, thiserror::Error)]
enum RefreshError {
    #[error(transparent)]
    Table(#[from] TableError),
    #[error("there is no CA bundle named {0:?}")]
    NoBundle(String),
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error("the issuer did not answer within {} s", PATIENCE.as_secs())]
    TimedOut,
    #[error("the issuer's metadata have no jwks_uri")]
    NoKeySet,
    #[error(transparent)]
    Keys(#[from] JwksError),
    #[error("the keys were not written down: {0}")]
    Commit(#[from] CommitError),
    /// While they were fetched, members decided otherwise.
    #[error("the issuer is not refreshed any more")]
    NotRefreshed,
}

/// What was tried so far, as CCF counts it.
#[derive(Debug, Default)]
pub(crate) struct RefreshMetrics {
    pub attempts: AtomicU64,
    pub successes: AtomicU64,
    pub failures: AtomicU64,
}

/// Issuers whose keys are refreshed, with the position at which members last set them.
type Issuers = BTreeMap<String, Option<Seqno>>;

/// Refreshes keys until the node stops.
pub(crate) async fn run(node: Node) {
    node.pipeline().recovered().await;
    let committed = Arc::new(Notify::new());
    let told = Arc::clone(&committed);
    node.pipeline().on_committed(Box::new(move |_| told.notify_one()));
    let host = node.host();
    let interval = node.config().jwt.key_refresh_interval.0;
    let mut known = Issuers::new();
    let mut round_at = host.uptime();
    loop {
        let issuers = issuers(&node).unwrap_or_else(|error| {
            tracing::error!(%error, "the token issuers cannot be read");
            Issuers::new()
        });
        let is_round = round_at <= host.uptime();
        for (issuer, set_at) in &issuers {
            let is_due = is_round || known.get(issuer) != Some(set_at);
            if is_due && matches!(node.pipeline().role(), Role::Primary(_)) {
                refresh(&node, issuer).await;
            }
        }
        known = issuers;
        if is_round {
            round_at = host.uptime() + interval.max(PATIENCE);
        }
        tokio::select! {
            () = committed.notified() => host.sleep(DEBOUNCE).await,
            () = host.sleep(round_at.saturating_sub(host.uptime())) => {}
        }
    }
}

fn issuers(node: &Node) -> Result<Issuers, TableError> {
    let mut tx = node.pipeline().store().begin();
    let rows = JWT_ISSUERS.rows(&mut tx)?.into_iter().filter(|(_, record)| record.auto_refresh);
    let names: Vec<String> = rows.map(|(issuer, _)| issuer).collect();
    let with_position = |issuer: String| {
        let set_at = tx.version_of_previous_write(JWT_ISSUERS.name(), issuer.as_bytes());
        (issuer, set_at)
    };
    Ok(names.into_iter().map(with_position).collect())
}

async fn refresh(node: &Node, issuer: &str) {
    let metrics = node.refresh_metrics();
    metrics.attempts.fetch_add(1, Ordering::Relaxed);
    match try_refresh(node, issuer).await {
        Ok(()) => {
            metrics.successes.fetch_add(1, Ordering::Relaxed);
            tracing::debug!(issuer, "the issuer's keys were refreshed");
        }
        Err(error) => {
            metrics.failures.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(issuer, %error, "the issuer's keys were not refreshed");
        }
    }
}

async fn try_refresh(node: &Node, issuer: &str) -> Result<(), RefreshError> {
    let bundle = ca_bundle(node, issuer)?;
    let https = Https::new(
        Arc::clone(node.host()),
        &bundle,
        node.config().jwt.key_refresh_max_response_size.0,
    )?;
    let keys = within(&**node.host(), PATIENCE, fetch_keys(&https, issuer));
    let keys = keys.await.ok_or(RefreshError::TimedOut)??;
    for _ in 0..MAX_ATTEMPTS {
        // Members may have taken the issuer out, or changed whom they trust, meanwhile.
        if ca_bundle(node, issuer)? != bundle {
            return Err(RefreshError::NotRefreshed);
        }
        let mut tx = node.pipeline().store().begin();
        let record = JWT_ISSUERS.get(&mut tx, &issuer.to_owned())?;
        if !record.is_some_and(|record| record.auto_refresh) {
            return Err(RefreshError::NotRefreshed);
        }
        set_public_signing_keys(&mut tx, issuer, &keys)?;
        match node.pipeline().commit(tx, &Outcome::default()) {
            Err(CommitError::Conflict) => {}
            Err(CommitError::TooManyPending) => node.pipeline().more_committed().await,
            other => return Ok(other.map(|_| ())?),
        }
    }
    Err(CommitError::Conflict.into())
}

/// The certificates, PEM, that authenticate an issuer.
fn ca_bundle(node: &Node, issuer: &str) -> Result<String, RefreshError> {
    let mut tx = node.pipeline().store().begin();
    let record = JWT_ISSUERS.get(&mut tx, &issuer.to_owned())?;
    let record = record.filter(|record| record.auto_refresh).ok_or(RefreshError::NotRefreshed)?;
    let name = record.ca_cert_bundle_name.unwrap_or_default();
    CA_CERT_BUNDLES.get(&mut tx, &name)?.ok_or(RefreshError::NoBundle(name))
}

/// The issuer's key set. Keys that do not say whose tokens they verify are for those of the issuer
/// that the metadata name.
async fn fetch_keys(https: &Https, issuer: &str) -> Result<Json, RefreshError> {
    let base = issuer.trim_end_matches('/');
    let metadata = https.get_json(&format!("{base}/.well-known/openid-configuration")).await?;
    let uri = metadata.get("jwks_uri").and_then(Json::as_str).ok_or(RefreshError::NoKeySet)?;
    let mut set = https.get_json(uri).await?;
    let named = metadata.get("issuer").filter(|issuer| issuer.is_string());
    let keys = set.get_mut("keys").and_then(Json::as_array_mut).into_iter().flatten();
    for key in keys.filter_map(Json::as_object_mut) {
        if let (None, Some(named)) = (key.get("issuer"), named) {
            key.insert("issuer".to_owned(), named.clone());
        }
    }
    Ok(set)
}
