//! TLS as an interface offers it.
//!
//! The peer may show any certificate, self-signed or not: TLS only makes it prove that it holds the
//! key. Who it is, the governance tables say, per request.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::time_provider::TimeProvider;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme,
};

use crate::host::Host;

/// Largest client certificate that is looked at.
const MAX_CLIENT_CERTIFICATE_BYTES: usize = 16 * 1024;

/// The TLS side of an interface, with a certificate that can be replaced while it serves.
pub struct ServerTls {
    config: Arc<ServerConfig>,
    certificate: Arc<Certificate>,
}

/// Why a certificate cannot be installed.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Not a PEM certificate chain or private key.
    #[error("not PEM: {0}")]
    Pem(#[from] rustls::pki_types::pem::Error),
    /// The chain is empty.
    #[error("the certificate chain is empty")]
    NoCertificate,
    /// TLS cannot use the key, or it is not the certificate's.
    #[error(transparent)]
    Tls(#[from] rustls::Error),
}

impl ServerTls {
    /// TLS without a certificate yet: handshakes fail until [`install`](Self::install).
    pub fn new(host: Arc<dyn Host>) -> Result<Self, TlsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let certificate = Arc::new(Certificate::default());
        let verifier = Arc::new(AnyCertificate { provider: provider.clone() });
        let mut config = ServerConfig::builder_with_details(provider, Arc::new(HostTime(host)))
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(certificate.clone());
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        // A resumed handshake saves nothing over P-256 (spec/engine/crypto.md section 4) and would
        // keep a secret for longer.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Self { config: Arc::new(config), certificate })
    }

    /// Shows this certificate from the next handshake on.
    pub fn install(&self, chain_pem: &str, key_pem: &str) -> Result<(), TlsError> {
        let chain =
            CertificateDer::pem_slice_iter(chain_pem.as_bytes()).collect::<Result<Vec<_>, _>>()?;
        if chain.is_empty() {
            return Err(TlsError::NoCertificate);
        }
        let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes())?;
        let certified = CertifiedKey::from_der(chain, key, self.config.crypto_provider())?;
        self.certificate.0.store(Some(Arc::new(certified)));
        Ok(())
    }

    pub(super) fn config(&self) -> Arc<ServerConfig> {
        self.config.clone()
    }
}

#[derive(Default)]
struct Certificate(ArcSwapOption<CertifiedKey>);

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.load_full()
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Certificate").field(&self.0.load().is_some()).finish()
    }
}

/// Accepts every client certificate whose key the client can use.
#[derive(Debug)]
struct AnyCertificate {
    provider: Arc<CryptoProvider>,
}

impl ClientCertVerifier for AnyCertificate {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        if end_entity.len() > MAX_CLIENT_CERTIFICATE_BYTES {
            return Err(CertificateError::BadEncoding.into());
        }
        Ok(ClientCertVerified::assertion())
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

/// The host's clock, as rustls asks for it.
pub(crate) struct HostTime(pub Arc<dyn Host>);

impl TimeProvider for HostTime {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(std::time::Duration::from_millis(self.0.now_ms())))
    }
}

impl fmt::Debug for HostTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HostTime")
    }
}
