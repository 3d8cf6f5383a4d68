//! What the settings say about encryption; [`super::tls`] does it.

use std::path::{Path, PathBuf};

use super::{environment::Environment, keys::Values};
use crate::error::Result;

/// Whether to encrypt and what to check, with libpq's words and meanings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
pub(super) enum SslMode {
    /// Never.
    Disable,
    /// Only if the server does not let us in without.
    Allow,
    /// If the server can, else without.
    Prefer,
    /// Always, with anybody (unless a root certificate is at hand: then as `VerifyCa`).
    Require,
    /// Always, with a certificate that a trusted authority signed.
    VerifyCa,
    /// Always, with such a certificate made out for the host's name.
    VerifyFull,
}

/// Which authorities are trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Roots {
    /// None are known: the certificate is not checked.
    None,
    /// Those in this file.
    File(PathBuf),
    /// Those of the operating system.
    System,
}

/// A protocol version to start or end with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Tls12,
    Tls13,
}

/// The certificate that we show, and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
}

/// Everything about encryption.
#[derive(Clone, Debug)]
#[cfg_attr(not(feature = "tls"), expect(dead_code, reason = "without TLS the rest is checked and not used"))]
pub(super) struct Ssl {
    pub(super) mode: SslMode,
    pub(super) roots: Roots,
    pub(super) identity: Option<Identity>,
    /// Start with the handshake instead of asking the server first (PostgreSQL 17 and later).
    pub(super) direct: bool,
    /// Tell the server which name we call it by.
    pub(super) sni: bool,
    pub(super) oldest: Protocol,
    pub(super) newest: Protocol,
}

impl Ssl {
    pub(super) fn read(values: &Values, environment: &dyn Environment) -> Result<Self> {
        let own = environment.home().map(|home| home.join(".postgresql"));
        let mode = mode(values)?;
        let direct = values.choice("sslnegotiation", &[("postgres", false), ("direct", true)])?.unwrap_or(false);
        if direct && mode < SslMode::Require {
            return Err(values.refuse("sslnegotiation", "may be `direct` only with sslmode=require or stronger"));
        }
        if cfg!(not(feature = "tls")) && mode >= SslMode::Require {
            return Err(values.refuse("sslmode", "asks for TLS, which this program was built without"));
        }
        if values.choice("gssencmode", &[("disable", false), ("prefer", false), ("require", true)])? == Some(true) {
            return Err(values.refuse("gssencmode", "may not be `require`: GSSAPI encryption is not supported"));
        }
        Ok(Self {
            mode,
            roots: roots(values, mode, own.as_deref())?,
            identity: identity(values, own.as_deref())?,
            direct,
            sni: values.choice("sslsni", &[("1", true), ("0", false)])?.unwrap_or(true),
            oldest: oldest(values)?,
            newest: newest(values)?,
        })
    }
}

fn mode(values: &Values) -> Result<SslMode> {
    let mode = values.choice(
        "sslmode",
        &[
            ("disable", SslMode::Disable),
            ("allow", SslMode::Allow),
            ("prefer", SslMode::Prefer),
            ("require", SslMode::Require),
            ("verify-ca", SslMode::VerifyCa),
            ("verify-full", SslMode::VerifyFull),
        ],
    )?;
    // Anybody can have a certificate from a public authority: without the name's check it would prove nothing.
    match (values.get("sslrootcert") == Some("system"), mode) {
        (true, None) => Ok(SslMode::VerifyFull),
        (true, Some(mode)) if mode != SslMode::VerifyFull => {
            Err(values.refuse("sslmode", "must be verify-full with sslrootcert=system"))
        }
        (_, mode) => Ok(mode.unwrap_or(SslMode::Prefer)),
    }
}

/// A file named by the user must exist (libpq would silently check nothing); the usual one may be missing unless the
/// mode cannot do without.
fn roots(values: &Values, mode: SslMode, own: Option<&Path>) -> Result<Roots> {
    match values.get("sslrootcert") {
        Some("system") => Ok(Roots::System),
        Some(file) => Ok(Roots::File(file.into())),
        None => match own.map(|directory| directory.join("root.crt")).filter(|file| file.exists()) {
            Some(file) => Ok(Roots::File(file)),
            None if mode >= SslMode::VerifyCa => Err(values.refuse(
                "sslmode",
                "needs a root certificate: set sslrootcert to a file or to `system`, or provide ~/.postgresql/root.crt",
            )),
            None => Ok(Roots::None),
        },
    }
}

fn identity(values: &Values, own: Option<&Path>) -> Result<Option<Identity>> {
    let wanted = values.choice("sslcertmode", &[("disable", Some(false)), ("allow", Some(true)), ("require", None)])?;
    let wanted = match wanted {
        Some(Some(wanted)) => wanted,
        Some(None) => return Err(values.refuse("sslcertmode", "may not be `require`: this cannot be checked")),
        None => true,
    };
    let usual = |name: &str| own.map(|directory| directory.join(name));
    let certificate = match values.get("sslcert") {
        Some(file) => Some(PathBuf::from(file)),
        None => usual("postgresql.crt").filter(|file| file.exists()),
    };
    let key = values.get("sslkey").map(PathBuf::from).or_else(|| usual("postgresql.key"));
    match (certificate.filter(|_| wanted), key) {
        (None, _) => Ok(None),
        (Some(certificate), Some(key)) => Ok(Some(Identity { certificate, key })),
        (Some(_), None) => Err(values.refuse("sslkey", "must name the key of the client certificate")),
    }
}

/// TLS below 1.2 is never spoken, so the older floors are met by themselves.
fn oldest(values: &Values) -> Result<Protocol> {
    let choices = [
        ("TLSv1", Protocol::Tls12),
        ("TLSv1.1", Protocol::Tls12),
        ("TLSv1.2", Protocol::Tls12),
        ("TLSv1.3", Protocol::Tls13),
    ];
    Ok(values.choice("ssl_min_protocol_version", &choices)?.unwrap_or(Protocol::Tls12))
}

fn newest(values: &Values) -> Result<Protocol> {
    let choices = [("TLSv1.2", Protocol::Tls12), ("TLSv1.3", Protocol::Tls13)];
    let newest = values.choice("ssl_max_protocol_version", &choices)?.unwrap_or(Protocol::Tls13);
    if newest == Protocol::Tls12 && oldest(values)? == Protocol::Tls13 {
        return Err(values.refuse("ssl_max_protocol_version", "is below ssl_min_protocol_version"));
    }
    Ok(newest)
}
