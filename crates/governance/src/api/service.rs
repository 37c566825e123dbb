//! The service, its constitution, and whom it trusts to join or to sign tokens.

use std::collections::BTreeMap;

use coco_adapter::{Call, ErrorResponse, Response};
use coco_crypto::{PublicKey, RsaPublicKey};
use serde::Serialize;
use serde_json::{Value as Json, json};

use super::request::{ApiVersion, not_found, text_response};
use super::{Endpoints, Governance};
use crate::replay;
use crate::tables::{
    CA_CERT_BUNDLES, CONSTITUTION, JWT_ISSUERS, JWT_PUBLIC_SIGNING_KEYS, JwtIssuer, JwtKey,
    PREVIOUS_SERVICE_IDENTITY_ENDORSEMENT, Pem, SERVICE_CONFIG, SERVICE_INFO, SGX_MEASUREMENTS,
    SNP_HOST_DATA, SNP_MEASUREMENTS, SNP_TCB_VERSIONS, SNP_UVM_ENDORSEMENTS, ServiceConfig,
    ServiceStatus, VIRTUAL_HOST_DATA, VIRTUAL_MEASUREMENTS,
};

pub(super) fn add_to(endpoints: &mut Endpoints) {
    let any = ApiVersion::Preview;
    endpoints.get("/service/info", any, "Status, identity and configuration", info);
    endpoints.get("/service/constitution", any, "The constitution in force", constitution);
    endpoints.get("/service/join-policy", any, "Which code may join", join_policy);
    endpoints.get("/service/jwk", any, "Token issuers and their keys", jwk);
}

/// The service as the API shows it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ServiceDescription {
    status: ServiceStatus,
    certificate: Pem,
    recovery_count: u64,
    creation_transaction_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    previous_service_creation_transaction_id: Option<String>,
    service_data: Json,
    configuration: ConfigurationDescription,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ConfigurationDescription {
    recovery_threshold: u64,
    maximum_node_certificate_validity_days: u64,
    maximum_service_certificate_validity_days: u64,
    recent_cose_proposals_window_size: u64,
}

fn info(_: &Governance, call: &mut Call<'_>) -> Result<Response, ErrorResponse> {
    let service = SERVICE_INFO
        .get(call.tx)?
        .ok_or_else(|| not_found("Service information is not available."))?;
    let config = SERVICE_CONFIG.get(call.tx)?.unwrap_or_default();
    let days = |days: Option<u64>| days.unwrap_or(ServiceConfig::DEFAULT_VALIDITY_DAYS);
    let window = config.recent_cose_proposals_window_size.unwrap_or(replay::DEFAULT_WINDOW);
    let description = ServiceDescription {
        status: service.status,
        certificate: service.cert,
        recovery_count: service.recovery_count.unwrap_or(0),
        creation_transaction_id: service.current_service_create_txid,
        previous_service_creation_transaction_id: previous_create_txid(call)?,
        service_data: service.service_data,
        configuration: ConfigurationDescription {
            recovery_threshold: config.recovery_threshold,
            maximum_node_certificate_validity_days: days(
                config.maximum_node_certificate_validity_days,
            ),
            maximum_service_certificate_validity_days: days(
                config.maximum_service_certificate_validity_days,
            ),
            recent_cose_proposals_window_size: window,
        },
    };
    call.reply(&description)
}

/// The first transaction of the service that this one recovered: its epoch in the endorsement.
fn previous_create_txid(call: &mut Call<'_>) -> Result<Option<String>, ErrorResponse> {
    let endorsement = PREVIOUS_SERVICE_IDENTITY_ENDORSEMENT.get(call.tx)?;
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

/// Who signs tokens, as the API shows it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TokenDescription {
    issuers: BTreeMap<String, IssuerDescription>,
    keys: BTreeMap<String, Vec<KeyDescription>>,
    ca_cert_bundles: BTreeMap<String, String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct IssuerDescription {
    auto_refresh: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    ca_cert_bundle_name: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct KeyDescription {
    public_key: String,
    issuer: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    constraint: Option<String>,
}

fn jwk(_: &Governance, call: &mut Call<'_>) -> Result<Response, ErrorResponse> {
    let issuers = JWT_ISSUERS.rows(call.tx)?.into_iter().map(|(name, issuer)| {
        let JwtIssuer { auto_refresh, ca_cert_bundle_name, .. } = issuer;
        (name, IssuerDescription { auto_refresh, ca_cert_bundle_name })
    });
    let keys = JWT_PUBLIC_SIGNING_KEYS.rows(call.tx)?.into_iter();
    let keys = keys.map(|(kid, keys)| (kid, keys.into_iter().map(describe_key).collect()));
    let description = TokenDescription {
        issuers: issuers.collect(),
        keys: keys.collect(),
        ca_cert_bundles: CA_CERT_BUNDLES.rows(call.tx)?.into_iter().collect(),
    };
    call.reply(&description)
}

fn describe_key(key: JwtKey) -> KeyDescription {
    let der = &key.public_key.0;
    let ec = PublicKey::from_spki_der(der).map(|key| key.to_pem());
    let pem = ec.or_else(|_| RsaPublicKey::from_spki_der(der).map(|key| key.to_pem()));
    // A key of another kind verifies nothing; it is listed without its text.
    let public_key = pem.unwrap_or_default();
    KeyDescription { public_key, issuer: key.issuer, constraint: key.constraint }
}
