//! A client that sees everything: raw HTTP/1.1 text over TLS or not.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{Served, Someone};

/// What a test talks through.
pub trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// One connection.
pub struct Client {
    wire: Box<dyn Wire>,
    unread: Vec<u8>,
}

/// A parsed reply.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The code of an error in OData form, or an empty text.
    pub fn code(&self) -> String {
        let Ok(body) = serde_json::from_slice::<serde_json::Value>(&self.body) else {
            return String::new();
        };
        body["error"]["code"].as_str().unwrap_or_default().to_owned()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

impl Client {
    pub fn plain(served: &Served) -> Self {
        Self::on(served.connect("plain"))
    }

    pub fn on(wire: impl Wire + 'static) -> Self {
        Self { wire: Box::new(wire), unread: Vec::new() }
    }

    /// A connection to the interface `main`.
    pub async fn tls(served: &Served, someone: Option<&Someone>) -> Self {
        let pems = someone.map(Someone::pems);
        Self::on(handshake(served, "main", pems, &[b"http/1.1"]).await.unwrap())
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        self.wire.write_all(bytes).await.unwrap();
        self.wire.flush().await.unwrap();
    }

    /// Like [`send`](Self::send), when the other side may already have closed.
    pub async fn try_send(&mut self, bytes: &[u8]) {
        let _ = self.wire.write_all(bytes).await;
        let _ = self.wire.flush().await;
    }

    /// A request and its reply.
    pub async fn call(&mut self, method: &str, path: &str, extra: &str, body: &[u8]) -> Answer {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: test\r\n{extra}content-length: {}\r\n\r\n",
            body.len()
        );
        self.send(&[head.as_bytes(), body].concat()).await;
        self.receive(method).await.expect("a reply")
    }

    pub async fn get(&mut self, path: &str) -> Answer {
        self.call("GET", path, "", b"").await
    }

    /// The next reply; `None` when the connection ends first.
    pub async fn receive(&mut self, method: &str) -> Option<Answer> {
        let head_len = loop {
            match self.unread.windows(4).position(|window| window == b"\r\n\r\n") {
                Some(at) => break at + 4,
                None => self.read_more().await?,
            }
        };
        let head: Vec<u8> = self.unread.drain(..head_len).collect();
        let head = String::from_utf8(head).unwrap();
        let mut lines = head.trim_end().split("\r\n");
        let status = lines.next()?.split(' ').nth(1)?.parse().unwrap();
        let mut headers = HeaderMap::new();
        for line in lines {
            let (name, value) = line.split_once(": ").unwrap();
            assert_eq!(name, name.to_lowercase(), "header names are lower case");
            let name: HeaderName = name.parse().unwrap();
            headers.append(name, HeaderValue::from_str(value).unwrap());
        }
        let len = match headers.get("content-length") {
            Some(len) if method != "HEAD" => len.to_str().unwrap().parse().unwrap(),
            _ => 0_usize,
        };
        while self.unread.len() < len {
            self.read_more().await?;
        }
        let body = self.unread.drain(..len).collect();
        Some(Answer { status, headers, body })
    }

    async fn read_more(&mut self) -> Option<()> {
        let mut buffer = [0; 4096];
        match self.wire.read(&mut buffer).await {
            Ok(0) | Err(_) => None,
            Ok(read) => {
                self.unread.extend_from_slice(&buffer[..read]);
                Some(())
            }
        }
    }

    /// Whether the other side ends the connection without saying anything more.
    pub async fn is_closed(&mut self) -> bool {
        self.unread.is_empty() && self.read_more().await.is_none()
    }
}

/// A TLS handshake with an interface; the server's certificate must be the node's.
pub async fn handshake(
    served: &Served,
    interface: &str,
    client: Option<(String, String)>,
    protocols: &[&[u8]],
) -> std::io::Result<TlsStream<DuplexStream>> {
    let identity = served.node.identity();
    let expected = if interface == "own" {
        identity.self_signed.der().to_vec()
    } else {
        identity.node_certificate.der().to_vec()
    };
    shake_hands(served.connect(interface), expected, client, protocols).await
}

/// A TLS handshake with a server that must show this certificate.
pub async fn shake_hands(
    stream: DuplexStream,
    expected: Vec<u8>,
    client: Option<(String, String)>,
    protocols: &[&[u8]],
) -> std::io::Result<TlsStream<DuplexStream>> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = Arc::new(Exactly { expected, provider: provider.clone() });
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match client {
        None => config.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
            let key = config.crypto_provider().key_provider.load_private_key(key).unwrap();
            // Not checked to be the certificate's: the server must do that.
            let certified = CertifiedKey::new(chain, key);
            config.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certified)))
        }
    };
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

/// Trusts one certificate.
#[derive(Debug)]
struct Exactly {
    expected: Vec<u8>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Exactly {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if **end_entity == *self.expected {
            return Ok(ServerCertVerified::assertion());
        }
        Err(rustls::CertificateError::ApplicationVerificationFailure.into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
