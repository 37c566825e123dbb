//! Talking to a service over HTTPS, trusting its own certificate and nothing else.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Error, Result, anyhow, bail};
use serde::de::DeserializeOwned;
use ureq::http::{Response, Uri, header};
use ureq::tls::{Certificate, RootCerts, TlsConfig, TlsProvider};
use ureq::{Agent, Timeout};

use crate::advice::{Advise, advised};

/// Longest reply that is read.
const MAX_REPLY_BYTES: u64 = 64 << 20;

const TIMEOUT: Duration = Duration::from_secs(30);

/// How long a connection and its TLS handshake may take, of the time for a reply.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// Nodes in a row that name another one as the primary; more means that they disagree for long.
const MAX_REDIRECTS: usize = 5;

/// The governance API's version.
pub(crate) const API_VERSION: &str = "2024-07-01";

/// A connection to a service, at one of its nodes. Where a node names the primary instead of doing
/// what only that can do, the client goes there, and stays: so that it reads what it has written.
pub(crate) struct Client {
    agent: Agent,
    url: RefCell<String>,
    timeout: Duration,
}

/// A whole reply.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
    /// Where to ask instead, as the reply has it.
    location: Option<String>,
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
        Self::with_timeout(url, service_cert_pem, TIMEOUT)
    }

    /// A client that waits so long for each reply.
    pub(crate) fn with_timeout(
        url: &str,
        service_cert_pem: &str,
        timeout: Duration,
    ) -> Result<Self> {
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
            .timeout_global(Some(timeout))
            .timeout_connect(Some(CONNECT_LIMIT))
            .build();
        let url = RefCell::new(url.trim_end_matches('/').to_owned());
        Ok(Self { agent: agent.into(), url, timeout })
    }

    /// The node it talks to, as `https://host:port`.
    pub(crate) fn url(&self) -> String {
        self.url.borrow().clone()
    }

    /// Talks to another node of the service from now on.
    pub(crate) fn move_to(&self, url: &str) {
        url.trim_end_matches('/').clone_into(&mut self.url.borrow_mut());
    }

    /// A GET, whatever the status.
    pub(crate) fn get(&self, path: &str) -> Result<Reply> {
        let url = format!("{}{path}", self.url());
        self.read(self.agent.get(&url).call())
    }

    /// The JSON of a successful GET.
    pub(crate) fn get_json<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.get(path)?.accepted()?.json()
    }

    /// A signed governance message to `/gov/{path}`, of whichever node is the primary. What is
    /// signed is the message, not who is asked: the same bytes go to the primary.
    pub(crate) fn post_cose(&self, path: &str, message: &[u8]) -> Result<Reply> {
        let path = governance(path);
        for _ in 0..=MAX_REDIRECTS {
            let url = format!("{}{path}", self.url());
            let request = self.agent.post(&url).header("content-type", "application/cose");
            let reply = self.read(request.send(message))?;
            match reply.elsewhere()? {
                None => return Ok(reply),
                Some(primary) => self.move_to(&primary),
            }
        }
        let error =
            anyhow!("{} nodes in a row named another one as the primary", MAX_REDIRECTS + 1);
        Err(advised(error, "an election may be under way: try again, or look at `coco node list`"))
    }

    fn read(&self, sent: Result<Response<ureq::Body>, ureq::Error>) -> Result<Reply> {
        let response =
            sent.map_err(|error| self.no_answer(error)).advise(|| self.why_no_answer())?;
        let status = response.status().as_u16();
        let location = response.headers().get(header::LOCATION);
        let location = location.and_then(|location| location.to_str().ok()).map(str::to_owned);
        let mut body = response.into_body();
        let body = body
            .with_config()
            .limit(MAX_REPLY_BYTES)
            .read_to_vec()
            .with_context(|| format!("the reply of {} could not be read", self.url()))?;
        Ok(Reply { status, body, location })
    }

    fn no_answer(&self, error: ureq::Error) -> Error {
        let limit = match error {
            ureq::Error::Timeout(Timeout::Connect) => self.timeout.min(CONNECT_LIMIT),
            ureq::Error::Timeout(_) => self.timeout,
            error => return anyhow!(error).context(format!("no answer from {}", self.url())),
        };
        anyhow!("no answer from {} within {limit:?}", self.url())
    }

    fn why_no_answer(&self) -> String {
        format!(
            "check that a node listens on {} (`coco dev` starts one) and that --service-cert is \
             the certificate of this very service: a new service has a new one",
            self.url()
        )
    }
}

/// The path of a governance endpoint.
pub(crate) fn governance(path: &str) -> String {
    format!("/gov/{path}?api-version={API_VERSION}")
}

impl Reply {
    /// The node that this reply sends the request to, as `https://host:port`, if it does.
    fn elsewhere(&self) -> Result<Option<String>> {
        if !matches!(self.status, 307 | 308) {
            return Ok(None);
        }
        let location = self.location.as_deref().unwrap_or_default();
        let uri: Option<Uri> = location.parse().ok();
        let node = uri.filter(|uri| uri.scheme_str() == Some("https"));
        let Some(authority) = node.as_ref().and_then(Uri::authority) else {
            bail!("the service redirects to {location:?}, which is no HTTPS address of a node");
        };
        Ok(Some(format!("https://{authority}")))
    }

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

    fn reply(status: u16, body: &[u8], location: Option<&str>) -> Reply {
        Reply { status, body: body.to_vec(), location: location.map(str::to_owned) }
    }

    #[test]
    fn a_refusal_carries_code_and_message() {
        let body = br#"{"error":{"code":"ProposalNotFound","message":"No such proposal."}}"#;
        let refused = reply(404, body, None).accepted().unwrap_err();
        assert_eq!(
            refused.to_string(),
            "the service refused with 404 ProposalNotFound: No such proposal."
        );
        let refused = reply(503, b"busy", None).accepted().unwrap_err();
        assert_eq!(refused.to_string(), "the service refused with 503: busy");
        assert!(reply(204, b"", None).accepted().is_ok());
    }

    #[test]
    fn only_https_is_followed() {
        let elsewhere = |status, location| reply(status, b"", location).elsewhere();
        let primary = Some("https://10.0.0.2:8000/gov/members/proposals:create?api-version=x");
        for status in [307, 308] {
            assert_eq!(elsewhere(status, primary).unwrap().unwrap(), "https://10.0.0.2:8000");
        }
        assert_eq!(elsewhere(200, primary).unwrap(), None);
        assert_eq!(elsewhere(404, None).unwrap(), None);
        for wrong in [None, Some("http://10.0.0.2:8000/"), Some("/gov"), Some("https://"), Some("")]
        {
            assert!(elsewhere(307, wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_silent_address_is_not_waited_for_long() {
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("https://{}", silent.local_addr().unwrap());
        let own = crate::identity::Identity::generate(crate::identity::Wanted {
            name: "service",
            curve: coco_crypto::Curve::P256,
            days: 1,
            encryption_key: false,
        });
        let certificate = own.unwrap().certificate.to_pem();
        for (timeout, said) in
            [(TIMEOUT, " within 5s"), (Duration::from_millis(50), " within 50ms")]
        {
            let client = Client::with_timeout(&url, &certificate, timeout).unwrap();
            let error = crate::advice::explain(&client.get("/node/state").unwrap_err());
            assert!(error.contains(&format!("no answer from {url}{said}\n")), "{error}");
        }
    }

    #[test]
    fn a_certificate_is_asked_for() {
        assert!(Client::new("https://127.0.0.1:1", "nonsense").is_err());
    }
}
