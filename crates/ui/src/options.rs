//! What the pages show and allow.

use doorbell::{Error, Result};

use super::access::Access;

/// What stands for the id of a trace.
pub(super) const TRACE_ID: &str = "{trace_id}";

/// What the pages show and allow; from [`Options::new`].
#[derive(Clone, Debug)]
pub struct Options {
    /// Who may come in.
    pub access: Access,
    /// By what names and addresses browsers may reach the server, without ports; whatever else stands in `Host` is answered 421,
    /// or a page of somebody else's whose name is given our address could read ours. Default: `localhost`, `127.0.0.1` and `::1`.
    pub hosts: Vec<String>,
    /// Nobody changes anything, whatever their rights. Default: false.
    pub read_only: bool,
    /// Nobody sees payloads or headers of messages, or looks for messages by them. Default: false.
    pub hide_payload: bool,
    /// What of each payload nobody sees: names with points between (`card.number`), in arrays of each element. With any, nobody
    /// looks for messages by their payloads. Default: nothing.
    pub redact: Vec<String>,
    /// Where traces are to be seen: an address with `{trace_id}` in it, to which messages with a header `traceparent` have a link.
    /// Default: nowhere.
    pub trace_url: Option<String>,
}

impl Options {
    /// With the defaults.
    pub fn new(access: Access) -> Self {
        let hosts = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).to_vec();
        Self { access, hosts, read_only: false, hide_payload: false, redact: Vec::new(), trace_url: None }
    }

    /// Whether they can be served so.
    pub(super) fn check(&self) -> Result<()> {
        let is_address = |url: &str| url.starts_with("https://") || url.starts_with("http://");
        match &self.trace_url {
            Some(url) if !is_address(url) || !url.contains(TRACE_ID) => Err(Error::config(format!(
                "{url:?} leads to no trace: write an address with {TRACE_ID} in it, https://jaeger.example.com/trace/{TRACE_ID}"
            ))),
            _ => Ok(()),
        }
    }

    /// Whether a `Host` is one of ours.
    pub(super) fn knows_host(&self, host: &str) -> bool {
        let name = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !name.ends_with(':') => name,
            _ => host,
        };
        let name = name.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.');
        self.hosts.iter().any(|known| known.trim_matches(['[', ']']).eq_ignore_ascii_case(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Person, Rights};

    #[test]
    fn a_host_is_known_with_any_port_and_in_any_case() {
        let anybody = Access::anybody(Person { name: "anna".to_owned(), rights: Rights::ALL });
        let options = Options::new(anybody);
        for known in ["localhost", "LocalHost:7171", "localhost.", "127.0.0.1:80", "[::1]:7171", "[::1]", "::1"] {
            assert!(options.knows_host(known), "{known}");
        }
        for unknown in ["", "evil.example", "localhost.evil.example", "127.0.0.1.nip.io:7171", "127.0.0.2", "[::2]:1"] {
            assert!(!options.knows_host(unknown), "{unknown}");
        }
    }
}
