//! JSON over HTTPS, through a stream of the host's.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, InvalidDnsNameError, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value as Json;
use tokio_rustls::TlsConnector;

use crate::host::Host;
use crate::session::HostTime;

const HTTPS_PORT: u16 = 443;
/// A longer URL is not followed.
const MAX_URL_BYTES: usize = 2_048;

/// Something cannot be fetched.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error("the CA bundle is not PEM: {0}")]
    Pem(#[from] rustls::pki_types::pem::Error),
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    #[error("{0:?} is not the https URL of a server")]
    Url(String),
    #[error("the server's name: {0}")]
    Name(#[from] InvalidDnsNameError),
    #[error("{server}: {error}")]
    Connect { server: String, error: std::io::Error },
    #[error("{url}: {error}")]
    Http { url: String, error: hyper::Error },
    #[error("{url}: {error}")]
    Body { url: String, error: Box<dyn std::error::Error + Send + Sync> },
    #[error("{url} answered {status}")]
    Status { url: String, status: StatusCode },
    #[error("{url} is not JSON: {error}")]
    Json { url: String, error: serde_json::Error },
}

/// A client that trusts servers of one CA bundle.
pub(super) struct Https {
    host: Arc<dyn Host>,
    tls: TlsConnector,
    max_response_bytes: usize,
}

impl Https {
    pub fn new(
        host: Arc<dyn Host>,
        ca_bundle: &str,
        max_response_bytes: u64,
    ) -> Result<Self, FetchError> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(ca_bundle.as_bytes()) {
            roots.add(certificate?)?;
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        let time = Arc::new(HostTime(Arc::clone(&host)));
        let mut config = ClientConfig::builder_with_details(provider, time)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.resumption = rustls::client::Resumption::disabled();
        let max_response_bytes = usize::try_from(max_response_bytes).unwrap_or(usize::MAX);
        Ok(Self { host, tls: TlsConnector::from(Arc::new(config)), max_response_bytes })
    }

    /// What is at the URL. Redirects are not followed: the URL is the issuer's word.
    pub async fn get_json(&self, url: &str) -> Result<Json, FetchError> {
        let body = self.get(url).await?;
        serde_json::from_slice(&body)
            .map_err(|error| FetchError::Json { url: url.to_owned(), error })
    }

    async fn get(&self, url: &str) -> Result<Bytes, FetchError> {
        let not_url = || FetchError::Url(url.chars().take(MAX_URL_BYTES).collect());
        let uri: Uri = Some(url)
            .filter(|url| url.len() <= MAX_URL_BYTES)
            .and_then(|url| url.parse().ok())
            .ok_or_else(not_url)?;
        let name = uri.host().filter(|_| uri.scheme_str() == Some("https")).ok_or_else(not_url)?;
        let server = format!("{name}:{}", uri.port_u16().unwrap_or(HTTPS_PORT));
        let failed = |error| FetchError::Connect { server: server.clone(), error };
        let tls_name = ServerName::try_from(name.trim_matches(['[', ']']).to_owned())?;
        let stream = self.host.connect(&server).await.map_err(failed)?;
        let stream = self.tls.connect(tls_name, stream).await.map_err(failed)?;

        let failed = |error| FetchError::Http { url: url.to_owned(), error };
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
        let exchange = async {
            let reply = sender.send_request(request(&uri)).await.map_err(failed)?;
            let status = reply.status();
            if status != StatusCode::OK {
                return Err(FetchError::Status { url: url.to_owned(), status });
            }
            let body = Limited::new(reply.into_body(), self.max_response_bytes).collect().await;
            let body = body.map_err(|error| FetchError::Body { url: url.to_owned(), error })?;
            Ok(body.to_bytes())
        };
        // The connection lives no longer than the exchange, which it drives; if it ends before, it
        // has given the exchange all it had, or the reason.
        let driven = async {
            let _ = connection.await;
            std::future::pending().await
        };
        tokio::select! {
            biased;
            answer = exchange => answer,
            never = driven => never,
        }
    }
}

fn request(uri: &Uri) -> Request<Empty<Bytes>> {
    let mut request = Request::new(Empty::new());
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    *request.uri_mut() = path.parse().unwrap_or_default();
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    if let Ok(host) = HeaderValue::from_str(host) {
        request.headers_mut().insert(header::HOST, host);
    }
    request.headers_mut().insert(header::ACCEPT, HeaderValue::from_static("application/json"));
    request
}
