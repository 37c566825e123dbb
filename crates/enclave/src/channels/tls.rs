//! Who is at the other end of a channel.
//!
//! Both sides show the certificate that the service has endorsed for their node key: TLS 1.3 makes
//! them prove that they hold the key, whose digest is the node's id, and the endorsement says that
//! the service has accepted the evidence for it. Validity in time is not looked at: the host has
//! the clock, and a node is shut out by the governed list, not by a date.

use std::io;
use std::sync::Arc;

use coco_consensus::NodeId;
use coco_crypto::{Certificate, PublicKey, sha256};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, ServerConfig,
    SignatureScheme,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use crate::host::{Host, Stream};
use crate::session::{HostTime, TlsError};

/// Says what is spoken, so that no client's session is mistaken for a channel.
const PROTOCOL: &[u8] = b"coco-node/1";
/// Nodes are known by their keys, not by names; a client must ask for some name.
const NAME: &str = "node.coco.invalid";

/// How a node shows itself, and whom it believes to be one.
struct Credentials {
    provider: Arc<CryptoProvider>,
    time: Arc<HostTime>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    verifier: Arc<EndorsedNode>,
}

impl Credentials {
    /// Those of a node with this certificate and its key, both PEM, among nodes that the service of
    /// this key has endorsed.
    fn new(
        host: &Arc<dyn Host>,
        certificate: &str,
        key: &str,
        service_key: PublicKey,
    ) -> Result<Self, TlsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let chain = CertificateDer::pem_slice_iter(certificate.as_bytes());
        Ok(Self {
            time: Arc::new(HostTime(Arc::clone(host))),
            chain: chain.collect::<Result<_, _>>()?,
            key: PrivateKeyDer::from_pem_slice(key.as_bytes())?,
            verifier: Arc::new(EndorsedNode { provider: Arc::clone(&provider), service_key }),
            provider,
        })
    }

    fn server(&self, protocol: &[u8]) -> Result<ServerConfig, TlsError> {
        let provider = Arc::clone(&self.provider);
        let mut config = ServerConfig::builder_with_details(provider, self.time.clone())
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(self.verifier.clone())
            .with_single_cert(self.chain.clone(), self.key.clone_key())?;
        config.alpn_protocols = vec![protocol.to_vec()];
        config.send_tls13_tickets = 0;
        Ok(config)
    }

    fn client(&self, protocol: &[u8]) -> Result<ClientConfig, TlsError> {
        let provider = Arc::clone(&self.provider);
        let mut config = ClientConfig::builder_with_details(provider, self.time.clone())
            .with_protocol_versions(&[&TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(self.verifier.clone())
            .with_client_auth_cert(self.chain.clone(), self.key.clone_key())?;
        config.alpn_protocols = vec![protocol.to_vec()];
        config.resumption = Resumption::disabled();
        Ok(config)
    }
}

/// Makes channels of streams.
pub(super) struct Handshakes {
    acceptor: TlsAcceptor,
    connector: TlsConnector,
}

impl Handshakes {
    /// Those of a node with this endorsed certificate, both PEM, and its key, among nodes that the
    /// service of this key has endorsed.
    pub fn new(
        host: &Arc<dyn Host>,
        certificate: &str,
        key: &str,
        service_key: PublicKey,
    ) -> Result<Self, TlsError> {
        let credentials = Credentials::new(host, certificate, key, service_key)?;
        Ok(Self {
            acceptor: TlsAcceptor::from(Arc::new(credentials.server(PROTOCOL)?)),
            connector: TlsConnector::from(Arc::new(credentials.client(PROTOCOL)?)),
        })
    }

    /// Another node has called; returns which.
    pub async fn accept(
        &self,
        stream: Box<dyn Stream>,
    ) -> io::Result<(NodeId, TlsStream<Box<dyn Stream>>)> {
        let stream = TlsStream::Server(self.acceptor.accept(stream).await?);
        Ok((peer(&stream)?, stream))
    }

    /// Calls another node, which must be this one.
    pub async fn connect(
        &self,
        node: NodeId,
        stream: Box<dyn Stream>,
    ) -> io::Result<TlsStream<Box<dyn Stream>>> {
        let name = ServerName::try_from(NAME).map_err(io::Error::other)?;
        let stream = TlsStream::Client(self.connector.connect(name, stream).await?);
        let found = peer(&stream)?;
        match found == node {
            true => Ok(stream),
            false => Err(io::Error::other(format!("{found} answers instead of {node}"))),
        }
    }
}

/// Calls nodes of a service as their clients do, with a certificate of one's own.
pub(crate) struct ServiceClient(TlsConnector);

impl ServiceClient {
    /// A client with this certificate and its key, both PEM, that trusts what the service of this
    /// key has endorsed.
    pub fn new(
        host: &Arc<dyn Host>,
        certificate: &str,
        key: &str,
        service_key: PublicKey,
    ) -> Result<Self, TlsError> {
        let credentials = Credentials::new(host, certificate, key, service_key)?;
        Ok(Self(TlsConnector::from(Arc::new(credentials.client(b"http/1.1")?))))
    }

    /// A stream to a node of the service, whichever it is.
    pub async fn connect(
        &self,
        stream: Box<dyn Stream>,
    ) -> io::Result<impl AsyncRead + AsyncWrite + Send + Unpin + use<>> {
        let name = ServerName::try_from(NAME).map_err(io::Error::other)?;
        self.0.connect(name, stream).await
    }
}

/// Who is at the other end of a stream whose handshake is done.
fn peer(stream: &TlsStream<Box<dyn Stream>>) -> io::Result<NodeId> {
    let (_, connection) = stream.get_ref();
    if connection.alpn_protocol() != Some(PROTOCOL) {
        return Err(io::Error::other("the other side does not speak as a node"));
    }
    let certificate = connection.peer_certificates().and_then(|chain| chain.first());
    let certificate = certificate.and_then(|der| Certificate::from_der(der).ok());
    let certificate = certificate.ok_or_else(|| io::Error::other("no certificate"))?;
    Ok(NodeId(sha256(certificate.spki_der())))
}

/// Accepts the certificates that the service has endorsed.
#[derive(Debug)]
struct EndorsedNode {
    provider: Arc<CryptoProvider>,
    service_key: PublicKey,
}

impl EndorsedNode {
    fn check(&self, der: &CertificateDer<'_>) -> Result<(), rustls::Error> {
        let certificate = Certificate::from_der(der).map_err(|_| CertificateError::BadEncoding)?;
        if certificate.is_authority() {
            // The service's own certificate is no node's.
            return Err(CertificateError::InvalidPurpose.into());
        }
        let endorsed = certificate.verify_signed_by_key(&self.service_key);
        endorsed.map_err(|_| CertificateError::UnknownIssuer.into())
    }

    fn verify_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }
}

/// TLS 1.2 is not offered.
fn no_tls12() -> Result<HandshakeSignatureValid, rustls::Error> {
    Err(rustls::Error::General("nodes speak TLS 1.3".to_owned()))
}

impl ServerCertVerifier for EndorsedNode {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.check(end_entity).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verify_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for EndorsedNode {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.check(end_entity).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verify_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
