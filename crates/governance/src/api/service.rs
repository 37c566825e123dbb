//! The service, its constitution, and whom it trusts to join or to sign tokens.

use std::collections::BTreeMap;

use coco_adapter::{Call, ErrorResponse, Response};
use coco_crypto::{PublicKey, RsaPublicKey};
use serde_json::{Map, Value as Json, json};

use super::request::{ApiVersion, not_found, text_response};
use super::{Endpoints, Governance};
use crate::replay;
use crate::tables::{
    CA_CERT_BUNDLES, CONSTITUTION, JWT_ISSUERS, JWT_PUBLIC_SIGNING_KEYS, JwtKey, SERVICE_CONFIG,
    SERVICE_INFO, SGX_MEASUREMENTS, SNP_HOST_DATA, SNP_MEASUREMENTS, SNP_TCB_VERSIONS,
    SNP_UVM_ENDORSEMENTS, VIRTUAL_HOST_DATA, VIRTUAL_MEASUREMENTS,
};

/// Longest validity of certificates when the configuration does not say.
const DEFAULT_VALIDITY_DAYS: u64 = 365;

pub(super) fn add_to(endpoints: &mut Endpoints) {
    let any = ApiVersion::Preview;
    endpoints.get("/service/info", any, "Status, identity and configuration", info);
    endpoints.get("/service/constitution", any, "The constitution in force", constitution);
    endpoints.get("/service/join-policy", any, "Which code may join", join_policy);
    endpoints.get("/service/jwk", any, "Token issuers and their keys", jwk);
}

fn info(_: &Governance, call: &mut Call<'_>) -> Result<Response, ErrorResponse> {
    let service = SERVICE_INFO
        .get(call.tx)?
        .ok_or_else(|| not_found("Service information is not available."))?;
    let config = SERVICE_CONFIG.get(call.tx)?.unwrap_or_default();
    let window = config.recent_cose_proposals_window_size.unwrap_or(replay::DEFAULT_WINDOW);
    let days = |days: Option<u64>| days.unwrap_or(DEFAULT_VALIDITY_DAYS);
    let mut body = json!({
        "status": service.status,
        "certificate": service.cert,
        "recoveryCount": service.recovery_count.unwrap_or(0),
        "creationTransactionId": service.current_service_create_txid,
        "serviceData": service.service_data,
        "configuration": {
            "recoveryThreshold": config.recovery_threshold,
            "maximumNodeCertificateValidityDays":
                days(config.maximum_node_certificate_validity_days),
            "maximumServiceCertificateValidityDays":
                days(config.maximum_service_certificate_validity_days),
            "recentCoseProposalsWindowSize": window,
        },
    });
    if let Some(previous) = previous_create_txid(call)? {
        body["previousServiceCreationTransactionId"] = previous.into();
    }
    call.reply(&body)
}

/// The first transaction of the service that this one recovered: its epoch in the endorsement.
fn previous_create_txid(call: &mut Call<'_>) -> Result<Option<String>, ErrorResponse> {
    let endorsement = crate::tables::PREVIOUS_SERVICE_IDENTITY_ENDORSEMENT.get(call.tx)?;
    let previous = endorsement.filter(|link| link.endorsement_epoch_end.is_some());
    Ok(previous.map(|link| link.endorsement_epoch_begin))
}

fn constitution(_: &Governance, call: &mut Call<'_>) -> Result<Response, ErrorResponse> {
    let source = CONSTITUTION.get(call.tx)?.ok_or_else(|| not_found("No constitution is set."))?;
    Ok(text_response(source, "text/javascript"))
}

fn join_policy(_: &Governance, call: &mut Call<'_>) -> Result<Response, ErrorResponse> {
    fn names<V>(rows: Vec<(String, V)>) -> Vec<String> {
        rows.into_iter().map(|(name, _)| name).collect()
    }
    let policies: BTreeMap<_, _> = SNP_HOST_DATA.rows(call.tx)?.into_iter().collect();
    let endorsements: BTreeMap<_, _> = SNP_UVM_ENDORSEMENTS.rows(call.tx)?.into_iter().collect();
    let tcb_versions: BTreeMap<_, _> = SNP_TCB_VERSIONS.rows(call.tx)?.into_iter().collect();
    let body = json!({
        "sgx": {"measurements": names(SGX_MEASUREMENTS.rows(call.tx)?)},
        "virtual": {
            "measurements": names(VIRTUAL_MEASUREMENTS.rows(call.tx)?),
            "hostData": names(VIRTUAL_HOST_DATA.rows(call.tx)?),
        },
        "snp": {
            "measurements": names(SNP_MEASUREMENTS.rows(call.tx)?),
            "hostData": policies,
            "uvmEndorsements": endorsements,
            "tcbVersions": tcb_versions,
        },
    });
    call.reply(&body)
}

fn jwk(_: &Governance, call: &mut Call<'_>) -> Result<Response, ErrorResponse> {
    let mut issuers = Map::new();
    for (name, issuer) in JWT_ISSUERS.rows(call.tx)? {
        let mut shown = json!({"autoRefresh": issuer.auto_refresh});
        if let Some(bundle) = issuer.ca_cert_bundle_name {
            shown["caCertBundleName"] = bundle.into();
        }
        issuers.insert(name, shown);
    }
    let mut keys = Map::new();
    for (kid, of_kid) in JWT_PUBLIC_SIGNING_KEYS.rows(call.tx)? {
        keys.insert(kid, of_kid.iter().map(shown_key).collect());
    }
    let bundles: BTreeMap<_, _> = CA_CERT_BUNDLES.rows(call.tx)?.into_iter().collect();
    call.reply(&json!({"issuers": issuers, "keys": keys, "caCertBundles": bundles}))
}

fn shown_key(key: &JwtKey) -> Json {
    let der = &key.public_key.0;
    let ec = PublicKey::from_spki_der(der).map(|key| key.to_pem());
    let pem = ec.or_else(|_| RsaPublicKey::from_spki_der(der).map(|key| key.to_pem()));
    let mut shown = json!({"publicKey": pem.unwrap_or_default(), "issuer": key.issuer});
    if let Some(constraint) = &key.constraint {
        shown["constraint"] = constraint.as_str().into();
    }
    shown
}
