//! Every key that a connection string, a service file or the environment may set.

use std::{collections::BTreeMap, fmt};

use super::{environment::Environment, service, string::Pair};
use crate::error::{Error, Result};

/// What becomes of a key that libpq knows.
#[derive(Clone, Copy)]
enum Treatment {
    /// Read by [`Settings`](super::Settings).
    Used,
    /// Accepted and ignored: it cannot weaken anything, at worst the server refuses the login.
    Ignored,
    /// Ignoring it would leave the user with less protection, or another session, than was asked for.
    Refused(&'static str),
}

use Treatment::{Ignored, Refused, Used};

const NOT_SUPPORTED: &str = "is not supported";

/// The keys of libpq with their environment variables.
const KEYS: &[(&str, &str, Treatment)] = &[
    ("service", "PGSERVICE", Used),
    ("servicefile", "PGSERVICEFILE", Used),
    ("host", "PGHOST", Used),
    ("hostaddr", "PGHOSTADDR", Used),
    ("port", "PGPORT", Used),
    ("user", "PGUSER", Used),
    ("password", "PGPASSWORD", Used),
    ("passfile", "PGPASSFILE", Used),
    ("dbname", "PGDATABASE", Used),
    ("application_name", "PGAPPNAME", Used),
    ("fallback_application_name", "", Used),
    ("options", "PGOPTIONS", Used),
    ("client_encoding", "", Used),
    ("connect_timeout", "PGCONNECT_TIMEOUT", Used),
    ("tcp_user_timeout", "", Used),
    ("keepalives", "", Used),
    ("keepalives_idle", "", Used),
    ("keepalives_interval", "", Used),
    ("keepalives_count", "", Used),
    ("target_session_attrs", "PGTARGETSESSIONATTRS", Used),
    ("load_balance_hosts", "PGLOADBALANCEHOSTS", Used),
    ("channel_binding", "PGCHANNELBINDING", Used),
    ("require_auth", "PGREQUIREAUTH", Used),
    ("sslmode", "PGSSLMODE", Used),
    ("sslnegotiation", "PGSSLNEGOTIATION", Used),
    ("sslrootcert", "PGSSLROOTCERT", Used),
    ("sslcert", "PGSSLCERT", Used),
    ("sslkey", "PGSSLKEY", Used),
    ("sslcertmode", "PGSSLCERTMODE", Used),
    ("sslsni", "PGSSLSNI", Used),
    ("ssl_min_protocol_version", "PGSSLMINPROTOCOLVERSION", Used),
    ("ssl_max_protocol_version", "PGSSLMAXPROTOCOLVERSION", Used),
    ("gssencmode", "PGGSSENCMODE", Used),
    // Kerberos: we never offer it, so there is nothing to tune.
    ("krbsrvname", "PGKRBSRVNAME", Ignored),
    ("gsslib", "PGGSSLIB", Ignored),
    ("gssdelegation", "PGGSSDELEGATION", Ignored),
    // Compression of TLS is never offered; the key log is a debugging aid; encrypted keys are refused when read.
    ("sslcompression", "PGSSLCOMPRESSION", Ignored),
    ("sslkeylogfile", "", Ignored),
    ("sslpassword", "", Ignored),
    ("max_protocol_version", "PGMAXPROTOCOLVERSION", Ignored),
    ("sslcrl", "PGSSLCRL", Refused("is not supported: certificate revocation lists cannot be checked")),
    ("sslcrldir", "PGSSLCRLDIR", Refused("is not supported: certificate revocation lists cannot be checked")),
    ("requirepeer", "PGREQUIREPEER", Refused("is not supported: the owner of a socket cannot be checked")),
    ("requiressl", "PGREQUIRESSL", Refused("is obsolete: use sslmode=require")),
    ("min_protocol_version", "PGMINPROTOCOLVERSION", Refused(NOT_SUPPORTED)),
    ("replication", "", Refused(NOT_SUPPORTED)),
    ("scram_client_key", "", Refused(NOT_SUPPORTED)),
    ("scram_server_key", "", Refused(NOT_SUPPORTED)),
];

/// Who set a value; shown after the key in errors.
#[derive(Clone)]
enum Origin {
    Text,
    Service(String),
    Variable(&'static str),
}

/// The settings as text, each with its origin, before anything is known about their meaning.
pub(super) struct Values(BTreeMap<&'static str, (String, Origin)>);

impl Values {
    /// Completes the pairs of a connection string: from the service file, then from the environment.
    pub(super) fn complete(pairs: Vec<Pair>, environment: &dyn Environment) -> Result<Self> {
        let mut values = Self(BTreeMap::new());
        values.add(pairs, &Origin::Text)?;
        if let Some((name, pairs)) = service::read(values.get("service"), values.get("servicefile"), environment)? {
            let mut from_service = Self(BTreeMap::new());
            from_service.add(pairs, &Origin::Service(name))?;
            for (key, value) in from_service.0 {
                values.0.entry(key).or_insert(value);
            }
        }
        for &(key, variable, treatment) in KEYS {
            if variable.is_empty() || values.0.contains_key(key) {
                continue;
            }
            if let Some(value) = environment.variable(variable)? {
                values.put(key, treatment, value, Origin::Variable(variable))?;
            }
        }
        Ok(values)
    }

    /// The value of a key, if it is set and not empty.
    pub(super) fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(|(value, _)| value.as_str()).filter(|value| !value.is_empty())
    }

    /// An error about the value of a key: says the key and who set it, never the value.
    pub(super) fn refuse(&self, key: &str, reason: impl fmt::Display) -> Error {
        match self.0.get(key) {
            Some((_, origin)) => refusal(key, origin, reason),
            None => Error::config(format!("`{key}` {reason}")),
        }
    }

    /// The value of a key which must be one of a few words.
    pub(super) fn choice<T: Copy>(&self, key: &str, choices: &[(&str, T)]) -> Result<Option<T>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match choices.iter().find(|(word, _)| *word == value) {
            Some((_, choice)) => Ok(Some(*choice)),
            None => {
                let words: Vec<_> = choices.iter().map(|(word, _)| *word).collect();
                Err(self.refuse(key, format_args!("must be one of {}", words.join(", "))))
            }
        }
    }

    /// The value of a key which must be a whole number.
    pub(super) fn integer(&self, key: &str) -> Result<Option<i32>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match value.trim().parse() {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(self.refuse(key, "must be a whole number")),
        }
    }

    fn add(&mut self, pairs: Vec<Pair>, origin: &Origin) -> Result<()> {
        let mut after_secret = false;
        for (key, value) in pairs {
            let Some(&(key, _, treatment)) = KEYS.iter().find(|(known, ..)| *known == key) else {
                return Err(unknown(&key, after_secret, origin));
            };
            after_secret = matches!(key, "password" | "sslpassword");
            self.put(key, treatment, value, origin.clone())?;
        }
        Ok(())
    }

    fn put(&mut self, key: &'static str, treatment: Treatment, value: String, origin: Origin) -> Result<()> {
        if value.contains('\0') {
            return Err(refusal(key, &origin, "contains a zero byte"));
        }
        if let Refused(reason) = treatment
            && !value.is_empty()
        {
            return Err(refusal(key, &origin, reason));
        }
        self.0.insert(key, (value, origin));
        Ok(())
    }
}

fn refusal(key: &str, origin: &Origin, reason: impl fmt::Display) -> Error {
    Error::config(match origin {
        Origin::Text => format!("`{key}` {reason}"),
        Origin::Service(service) => format!("`{key}` of service `{service}` {reason}"),
        Origin::Variable(variable) => format!("environment variable {variable} (`{key}`) {reason}"),
    })
}

/// Names the key, unless it may be the tail of a password in which a space or an `&` was not escaped.
fn unknown(key: &str, after_secret: bool, origin: &Origin) -> Error {
    let is_word = key.len() <= 40 && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if after_secret || !is_word {
        return Error::config("unknown key in the connection settings (its name may be part of a password: not shown)");
    }
    match origin {
        Origin::Service(service) => Error::config(format!("unknown key `{key}` in service `{service}`")),
        Origin::Text | Origin::Variable(_) => Error::config(format!("unknown key `{key}` in the connection string")),
    }
}
