//! Which relays an endpoint uses, and what it believes of them: see [`crate::relay`].

use std::sync::Arc;

use iroh::{RelayConfig, RelayMap, RelayMode, RelayUrl};
use iroh_relay::RelayQuicConfig;
use iroh_relay::tls::CaTlsConfig;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};

/// Uses these relays and no others; none without any.
pub(super) fn mode(relays: &[RelayUrl]) -> RelayMode {
    if relays.is_empty() {
        return RelayMode::Disabled;
    }
    RelayMode::Custom(relays.iter().map(config).collect::<RelayMap>())
}

/// A relay of ours tells addresses on UDP of its own port number; others have a port of their own for it, which is iroh's default.
fn config(url: &RelayUrl) -> RelayConfig {
    let quic = match (is_plain(url), url.port()) {
        (true, Some(port)) => RelayQuicConfig::new(port),
        _ => RelayQuicConfig::default(),
    };
    RelayConfig::new(url.clone(), Some(quic))
}

fn is_plain(url: &RelayUrl) -> bool {
    url.scheme() == "http"
}

/// What vouches for a relay: the web's authorities, unless one of them has no HTTPS anyway.
pub(super) fn trust(relays: &[RelayUrl]) -> CaTlsConfig {
    if !relays.iter().any(is_plain) {
        return CaTlsConfig::embedded();
    }
    CaTlsConfig::custom_server_cert_verifier(Arc::new(|provider: Arc<CryptoProvider>| {
        Ok(Arc::new(AnyCertificate(provider)) as Arc<dyn ServerCertVerifier>)
    }))
}

/// Takes any certificate: of whom nothing is believed that matters.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
