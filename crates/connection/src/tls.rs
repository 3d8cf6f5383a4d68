//! TLS by rustls, with libpq's meaning of `sslmode`.

use std::{io, path::Path, sync::Arc};

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error as TlsError, RootCertStore, SignatureScheme,
    SupportedProtocolVersion,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_name,
    },
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
    server::ParsedCertificate,
    version::{TLS12, TLS13},
};
use tokio::net::TcpStream;
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::ssl::{Identity, Protocol, Roots, Ssl, SslMode};
use crate::error::{Error, ErrorKind, Result};

/// A TCP stream that is encrypted.
type TlsStream = <MakeRustlsConnect as MakeTlsConnect<TcpStream>>::Stream;

/// Certificates and rules, read and ready for a handshake.
#[derive(Clone)]
pub(super) struct Encryption(MakeRustlsConnect);

/// Reads the certificate files. They are read for every connection, so that renewed ones are used without a restart.
pub(super) async fn prepare(ssl: &Ssl) -> Result<Option<Encryption>> {
    let ssl = ssl.clone();
    let reading = tokio::task::spawn_blocking(move || client_config(&ssl));
    let config = reading.await.map_err(|error| {
        Error::new(ErrorKind::Io, "the certificate files were not read to the end").with_source(error)
    })??;
    Ok(Some(Encryption(MakeRustlsConnect::new(config))))
}

impl Encryption {
    /// Makes the handshake with a server that is called `name`.
    pub(super) async fn handshake(&self, stream: TcpStream, name: &str) -> io::Result<TlsStream> {
        let mut maker = self.0.clone();
        let Ok(connector) = MakeTlsConnect::<TcpStream>::make_tls_connect(&mut maker, name);
        connector.connect(stream).await
    }
}

fn client_config(ssl: &Ssl) -> Result<ClientConfig> {
    let provider = Arc::new(ring::default_provider());
    let versions: &[&SupportedProtocolVersion] = match (ssl.oldest, ssl.newest) {
        (Protocol::Tls12, Protocol::Tls12) => &[&TLS12],
        (Protocol::Tls13, _) => &[&TLS13],
        (Protocol::Tls12, Protocol::Tls13) => &[&TLS12, &TLS13],
    };
    let unusable = |error: TlsError| Error::config("TLS cannot be set up").with_source(error);
    let verifier = Arc::new(Verifier::new(ssl, provider.clone())?);
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .map_err(unusable)?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match &ssl.identity {
        None => builder.with_no_client_auth(),
        Some(identity) => {
            let (chain, key) = read_identity(identity)?;
            builder.with_client_auth_cert(chain, key).map_err(|error| {
                Error::config("sslcert and sslkey do not make a usable client certificate").with_source(error)
            })?
        }
    };
    config.enable_sni = ssl.sni;
    if ssl.direct {
        config.alpn_protocols = vec![b"postgresql".to_vec()];
    }
    Ok(config)
}

/// Checks the server's certificate as far as `sslmode` asks.
#[derive(Debug)]
struct Verifier {
    provider: Arc<CryptoProvider>,
    /// Without it nothing is known about the other side except that it has the key of the certificate it shows. That
    /// much is always checked, or channel binding would bind to nothing.
    chain: Option<Arc<WebPkiServerVerifier>>,
    /// The trusted certificates themselves, for servers that show one of them.
    trusted: Vec<CertificateDer<'static>>,
    name: bool,
}

impl Verifier {
    fn new(ssl: &Ssl, provider: Arc<CryptoProvider>) -> Result<Self> {
        let trusted = match &ssl.roots {
            Roots::None => Vec::new(),
            Roots::File(file) => certificates("sslrootcert", file)?,
            Roots::System => system_certificates()?,
        };
        let mut roots = RootCertStore::empty();
        let (usable, _) = roots.add_parsable_certificates(trusted.iter().cloned());
        let chain = match (&ssl.roots, usable) {
            (Roots::None, _) => None,
            (_, 0) => return Err(Error::config("`sslrootcert` holds no usable certificate")),
            _ => Some(WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build().map_err(
                |error| Error::config("the certificates of `sslrootcert` cannot be used").with_source(error),
            )?),
        };
        Ok(Self { provider, chain, trusted, name: ssl.mode == SslMode::VerifyFull })
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        let Some(chain) = &self.chain else {
            return Ok(ServerCertVerified::assertion());
        };
        match chain.verify_server_cert(certificate, intermediates, name, ocsp, now) {
            // The name is looked at last, so the chain was good.
            Err(TlsError::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if !self.name => Ok(ServerCertVerified::assertion()),
            // A certificate that signed itself (`openssl req -x509`) says it is an authority, and rustls does not take
            // an authority for a server. Who lists that very certificate as trusted means it, as OpenSSL sees it too.
            // Its dates were checked before its kind.
            Err(TlsError::InvalidCertificate(CertificateError::Other(_)))
                if self.trusted.iter().any(|trusted| trusted == certificate) =>
            {
                if self.name {
                    verify_server_name(&ParsedCertificate::try_from(certificate)?, name)?;
                }
                Ok(ServerCertVerified::assertion())
            }
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

fn certificates(key: &str, file: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let unusable =
        |error| Error::config(format!("`{key}`: cannot read certificates from {}", file.display())).with_source(error);
    CertificateDer::pem_file_iter(file).map_err(unusable)?.collect::<Result<Vec<_>, _>>().map_err(unusable)
}

fn system_certificates() -> Result<Vec<CertificateDer<'static>>> {
    let mut found = rustls_native_certs::load_native_certs();
    if found.certs.is_empty() {
        let error = Error::config("`sslrootcert=system`: the system has no root certificates");
        return Err(match found.errors.pop() {
            Some(cause) => error.with_source(cause),
            None => error,
        });
    }
    Ok(found.certs)
}

fn read_identity(identity: &Identity) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
    let Identity { certificate, key } = identity;
    if key_is_exposed(key) {
        return Err(Error::config(format!(
            "`sslkey`: {} can be read by others; its mode should be 0600, or 0640 if it belongs to root",
            key.display()
        )));
    }
    let chain = certificates("sslcert", certificate)?;
    let key = PrivateKeyDer::from_pem_file(key).map_err(|error| {
        Error::config(format!("`sslkey`: cannot read an unencrypted PEM key from {}", key.display())).with_source(error)
    })?;
    Ok((chain, key))
}

/// libpq's rule for private keys.
#[cfg(unix)]
fn key_is_exposed(key: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(key).is_ok_and(|file| file.mode() & if file.uid() == 0 { 0o027 } else { 0o077 } != 0)
}

#[cfg(not(unix))]
fn key_is_exposed(_: &Path) -> bool {
    false
}
