//! `doorbell ui`: everything in a browser.

use std::{net::SocketAddr, path::PathBuf};

use axum::Router;
use clap::Args;
use doorbell_ui::{Access, Network, Options, Person, Rights};
use serde_json::json;
use tokio::net::TcpListener;

use crate::{
    Global,
    exit::{Exit, Failure},
    output, watch,
};

const UNGUARDED: &str = "others than this machine can reach that address, so say who may come in: --tokens, --user-header, or \
    DOORBELL_UI_TOKEN in the environment";

/// Show everything in a browser: what is wrong, why, and what to type
///
/// Serves pages until Ctrl-C, and prints their address. They are read over connections of their own, a few whatever the number of
/// viewers, on which the server refuses every change. Only this machine can reach them unless --listen says otherwise, which needs
/// one of the ways to say who somebody is. TLS is a proxy's.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  doorbell ui
  doorbell ui --read-only --redact card.number
  doorbell ui --trace-url 'https://jaeger.example.com/trace/{trace_id}'
  doorbell ui --listen 0.0.0.0:7171 --allow-host ops.example.com --tokens /etc/doorbell/tokens
  doorbell ui --base-path /ops/doorbell --allow-host ops.example.com --user-header X-Remote-User --trusted-proxy 127.0.0.1

DOORBELL_UI_TOKEN: one token of at least 32 characters, with all rights; open http://…/?token=TOKEN once, or type it in. A file of \
tokens has a name, its rights (look, payload and act, with commas between) and a token, or sha256: and its digest, on each line.

JSON: {\"url\"}.")]
pub(crate) struct Ui {
    /// Where: an address with a port, or a port of this machine alone; port 0 is any that is free
    #[arg(long, value_name = "ADDR", value_parser = watch::address, default_value = "7171")]
    listen: SocketAddr,
    /// The path below which a proxy passes requests on, if it does not take it away
    #[arg(long, value_name = "PATH", value_parser = base_path)]
    base_path: Option<String>,
    /// A name by which browsers reach it, besides localhost and the address; may be repeated
    #[arg(long = "allow-host", value_name = "HOST")]
    hosts: Vec<String>,
    /// Nobody changes anything
    #[arg(long)]
    read_only: bool,
    /// A file of who may come in with which token
    #[arg(long, value_name = "FILE", conflicts_with = "user_header")]
    tokens: Option<PathBuf>,
    /// The header in which a proxy names who asks
    #[arg(long, value_name = "NAME", requires = "proxies")]
    user_header: Option<String>,
    /// A proxy whose header is believed: an address, or a network (10.0.0.0/8); may be repeated
    #[arg(long = "trusted-proxy", value_name = "NETWORK", requires = "user_header")]
    proxies: Vec<Network>,
    /// Nobody sees payloads or headers
    #[arg(long)]
    hide_payload: bool,
    /// What of payloads nobody sees (card.number); may be repeated
    #[arg(long, value_name = "PATH")]
    redact: Vec<String>,
    /// Where traces are to be seen; messages with a header traceparent have a link there
    #[arg(long, value_name = "URL")]
    trace_url: Option<String>,
}

fn base_path(text: &str) -> Result<String, String> {
    let path = text.trim_end_matches('/');
    let plain = |c: char| c.is_ascii_alphanumeric() || "/-_.~".contains(c);
    match path.strip_prefix('/') {
        Some(names) if path.chars().all(plain) && names.split('/').all(|name| !name.trim_matches('.').is_empty()) => {
            Ok(path.to_owned())
        }
        _ => Err("write a path that begins with a slash: /ops/doorbell".to_owned()),
    }
}

/// Whoever runs the program, with all rights.
pub(crate) fn here() -> Person {
    Person { name: whoami::username().unwrap_or_default(), rights: Rights::ALL }
}

impl Ui {
    pub(crate) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        let access = self.access()?;
        let options = Options {
            read_only: self.read_only,
            hide_payload: self.hide_payload,
            redact: self.redact,
            trace_url: self.trace_url,
            ..Options::new(access)
        };
        let unusable = |error| Failure::new(Exit::Usage, format!("--listen {}: {error}", self.listen));
        let listener = TcpListener::bind(self.listen).await.map_err(unusable)?;
        let address = listener.local_addr()?;
        let hosts = [options.hosts.clone(), vec![address.ip().to_string()], self.hosts].concat();
        let broker = global.database.broker().await?;
        let pages = doorbell_ui::router(&broker, Options { hosts, ..options })?;
        let (router, path) = match self.base_path {
            Some(path) => (Router::new().nest_service(&path, pages), path),
            None => (pages, String::new()),
        };
        let url = format!("http://{address}{path}/");
        if global.json {
            output::json(&json!({ "url": url }))?
        } else {
            output::line(&url)?
        }
        axum::serve(listener, router.into_make_service_with_connect_info::<SocketAddr>()).await?;
        Ok(Exit::Done)
    }

    /// Who may come in: this machine, unless something says more.
    fn access(&self) -> Result<Access, Failure> {
        let token = std::env::var("DOORBELL_UI_TOKEN").ok().filter(|token| !token.is_empty());
        let wrong = |error: doorbell::Error, what: &str| Failure::from(error).context(what.to_owned());
        if let Some(file) = &self.tokens {
            let text = std::fs::read_to_string(file)
                .map_err(|error| Failure::new(Exit::Usage, format!("--tokens {}: {error}", file.display())))?;
            return Access::tokens(&text).map_err(|error| wrong(error, &format!("--tokens {}", file.display())));
        }
        if let Some(name) = &self.user_header {
            return Access::header(name, self.proxies.clone()).map_err(|error| wrong(error, "--user-header"));
        }
        match token {
            Some(token) => Access::token(&token, here()).map_err(|error| wrong(error, "DOORBELL_UI_TOKEN")),
            None if self.listen.ip().is_loopback() => Ok(Access::anybody(here())),
            None => Err(Failure::new(Exit::Usage, format!("--listen {}: {UNGUARDED}", self.listen))),
        }
    }
}
