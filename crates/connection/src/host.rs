//! One place where a server may listen.

use std::{
    fmt,
    net::IpAddr,
    path::{Path, PathBuf},
};

use super::keys::Values;
use crate::error::Result;

const DEFAULT_PORT: u16 = 5432;

/// Where servers put their Unix sockets: Debian and Red Hat, and PostgreSQL as its authors ship it.
const SOCKET_DIRECTORIES: [&str; 2] = ["/var/run/postgresql", "/tmp"];

/// A server's address: a name or address and a port, or a directory with a Unix socket in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Host {
    /// A host name, an IP address, or the absolute path of a socket directory.
    pub(super) name: String,
    /// Where to connect to instead of asking for the name's address (`hostaddr`).
    pub(super) address: Option<IpAddr>,
    pub(super) port: u16,
}

impl Host {
    /// Reads `host`, `hostaddr` and `port`, which are lists of equal length.
    pub(super) fn list(values: &Values) -> Result<Vec<Self>> {
        let names: Vec<&str> = values.get("host").map(|list| list.split(',').collect()).unwrap_or_default();
        let addresses = addresses(values)?;
        if !names.is_empty() && !addresses.is_empty() && names.len() != addresses.len() {
            return Err(values.refuse("hostaddr", "must have as many entries as `host`"));
        }
        if names.iter().any(|name| name.contains('@') || name.chars().any(char::is_control)) {
            return Err(values.refuse("host", "contains an `@` or a control character"));
        }
        let count = names.len().max(addresses.len());
        let ports = ports(values)?;
        if ports.len() > 1 && ports.len() != count {
            return Err(values.refuse("port", "must have one entry, or as many as `host`"));
        }
        let port = |at: usize| ports.get(at).or(ports.first()).copied().unwrap_or(DEFAULT_PORT);

        if count == 0 {
            return Ok(defaults(port(0)));
        }
        let mut hosts = Vec::new();
        for at in 0..count {
            let address = addresses.get(at).copied().flatten();
            match (names.get(at).filter(|name| !name.is_empty()), address) {
                (Some(name), _) => hosts.push(Self { name: (*name).to_owned(), address, port: port(at) }),
                (None, Some(ip)) => hosts.push(Self { name: ip.to_string(), address, port: port(at) }),
                (None, None) => hosts.extend(defaults(port(at))),
            }
        }
        Ok(hosts)
    }

    /// The socket file, where the server is reached through one.
    pub(super) fn socket(&self) -> Option<PathBuf> {
        let local = self.name.starts_with('/') && self.address.is_none();
        local.then(|| Path::new(&self.name).join(format!(".s.PGSQL.{}", self.port)))
    }

    /// The name that the password file knows this host by.
    pub(super) fn passfile_name(&self) -> &str {
        if SOCKET_DIRECTORIES.contains(&self.name.as_str()) { "localhost" } else { &self.name }
    }
}

/// `name:port`, with an IPv6 address in brackets.
impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.name.contains(':') {
            write!(f, "[{}]:{}", self.name, self.port)
        } else {
            write!(f, "{}:{}", self.name, self.port)
        }
    }
}

/// Where to look when nobody named a host: the usual socket directories, then this machine.
fn defaults(port: u16) -> Vec<Host> {
    let sockets: &[&str] = if cfg!(unix) { &SOCKET_DIRECTORIES } else { &[] };
    let names = sockets.iter().chain(&["localhost"]);
    names.map(|name| Host { name: (*name).to_owned(), address: None, port }).collect()
}

fn addresses(values: &Values) -> Result<Vec<Option<IpAddr>>> {
    let list = values.get("hostaddr").map(|list| list.split(',')).into_iter().flatten();
    list.map(|text| match text {
        "" => Ok(None),
        text => text.parse().map(Some).map_err(|_| values.refuse("hostaddr", "must hold numeric IP addresses")),
    })
    .collect()
}

/// The ports as written; an empty entry means the default.
fn ports(values: &Values) -> Result<Vec<u16>> {
    let list = values.get("port").map(|list| list.split(',')).into_iter().flatten();
    list.map(|text| match text.trim() {
        "" => Ok(DEFAULT_PORT),
        text => match text.parse() {
            Ok(port) if port > 0 => Ok(port),
            _ => Err(values.refuse("port", "must be a number from 1 to 65535")),
        },
    })
    .collect()
}
