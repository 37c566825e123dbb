//! Talking to a service over HTTPS, trusting its own certificate and nothing else.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::de::DeserializeOwned;
use ureq::Agent;
use ureq::http::Response;
use ureq::tls::{Certificate, RootCerts, TlsConfig, TlsProvider};

use crate::advice::Advise;

/// Longest reply that is read.
const MAX_REPLY_BYTES: u64 = 64 << 20;

const TIMEOUT: Duration = Duration::from_secs(30);

/// The governance API's version.
pub(crate) const API_VERSION: &str = "2024-07-01";

/// A connection to a service.
pub(crate) struct Client {
    agent: Agent,
    url: String,
}

/// A whole reply.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
}

/// A service said no.
#[derive(Debug, thiserror::Error)]
#[error("the service refused with {status}{}{code}: {message}", if code.is_empty() { "" } else { " " })]
pub(crate) struct Refused {
    pub(crate) status: u16,
    pub(crate) code: String,
    pub(crate) message: String,
}

impl Client {
    /// A client for the service at `url` (`https://host:port`) with this certificate.
    pub(crate) fn new(url: &str, service_cert_pem: &str) -> Result<Self> {
        let certificate = Certificate::from_pem(service_cert_pem.as_bytes())
            .context("the service certificate is not a certificate in PEM")?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = TlsConfig::builder()
            .provider(TlsProvider::Rustls)
            .root_certs(RootCerts::Specific(Arc::new(vec![certificate])))
            .unversioned_rustls_crypto_provider(provider)
            .build();
        let agent = Agent::config_builder()
            .tls_config(tls)
            .http_status_as_error(false)
            .max_redirects(0)
            .timeout_global(Some(TIMEOUT))
            .build();
        Ok(Self { agent: agent.into(), url: url.trim_end_matches('/').to_owned() })
    }

    /// A GET, whatever the status.
    pub(crate) fn get(&self, path: &str) -> Result<Reply> {
        let url = format!("{}{path}", self.url);
        self.read(self.agent.get(&url).call())
    }

    /// The JSON of a successful GET.
    pub(crate) fn get_json<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.get(path)?.accepted()?.json()
    }

    /// A signed governance message to `/gov/{path}`.
    pub(crate) fn post_cose(&self, path: &str, message: &[u8]) -> Result<Reply> {
        let url = format!("{}{}", self.url, governance(path));
        let request = self.agent.post(&url).header("content-type", "application/cose");
        self.read(request.send(message))
    }

    fn read(&self, sent: Result<Response<ureq::Body>, ureq::Error>) -> Result<Reply> {
        let response = sent
            .with_context(|| format!("no answer from {}", self.url))
            .advise(|| self.why_no_answer())?;
        let status = response.status().as_u16();
        let mut body = response.into_body();
        let body = body
            .with_config()
            .limit(MAX_REPLY_BYTES)
            .read_to_vec()
            .with_context(|| format!("the reply of {} could not be read", self.url))?;
        Ok(Reply { status, body })
    }

    fn why_no_answer(&self) -> String {
        format!(
            "check that a node listens on {} (`coco dev` starts one) and that --service-cert is \
             the certificate of this very service: a new service has a new one",
            self.url
        )
    }
}

/// The path of a governance endpoint.
pub(crate) fn governance(path: &str) -> String {
    format!("/gov/{path}?api-version={API_VERSION}")
}

impl Reply {
    /// The reply, if it is a success.
    pub(crate) fn accepted(self) -> Result<Self, Refused> {
        if (200..300).contains(&self.status) {
            return Ok(self);
        }
        let text = || String::from_utf8_lossy(&self.body).chars().take(2000).collect();
        let odata: Option<serde_json::Value> = serde_json::from_slice(&self.body).ok();
        let field = |name: &str| {
            let value = odata.as_ref()?.get("error")?.get(name)?;
            value.as_str().map(str::to_owned)
        };
        Err(Refused {
            status: self.status,
            code: field("code").unwrap_or_default(),
            message: field("message").unwrap_or_else(text),
        })
    }

    /// The body read as JSON.
    pub(crate) fn json<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_slice(&self.body).context("the service's reply is not the JSON expected")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_carries_code_and_message() {
        let body = br#"{"error":{"code":"ProposalNotFound","message":"No such proposal."}}"#;
        let refused = Reply { status: 404, body: body.to_vec() }.accepted().unwrap_err();
        assert_eq!(
            refused.to_string(),
            "the service refused with 404 ProposalNotFound: No such proposal."
        );
        let refused = Reply { status: 503, body: b"busy".to_vec() }.accepted().unwrap_err();
        assert_eq!(refused.to_string(), "the service refused with 503: busy");
        assert!(Reply { status: 204, body: Vec::new() }.accepted().is_ok());
    }

    #[test]
    fn a_certificate_is_asked_for() {
        assert!(Client::new("https://127.0.0.1:1", "nonsense").is_err());
    }
}
