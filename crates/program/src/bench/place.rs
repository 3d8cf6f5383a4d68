//! On which server it is measured: a durable one of our own, or a database that was named.

use std::{fmt, path::PathBuf};

use clap::Args;
use doorbell_bench::{Lab, SERVER_SETTINGS};
use doorbell_server::{EphemeralOptions, Server};
use serde::Serialize;

use super::failure::failure;
use crate::{
    Global,
    consent::consent,
    exit::{Exit, Failure},
};

const CONNECTIONS_MAX: u32 = 500;

/// What decides how long a commit takes.
const SHOWN: [&str; 9] = [
    "fsync",
    "synchronous_commit",
    "full_page_writes",
    "shared_buffers",
    "max_wal_size",
    "min_wal_size",
    "checkpoint_timeout",
    "wal_sync_method",
    "max_connections",
];

const IN_USE: &str =
    "select ((select count(*) from integration.data_staging) + (select count(*) from integration.processes))::float8";
const IS_SUPERUSER: &str = "select rolsuper::integer::float8 from pg_roles where rolname = current_user";

/// Where to measure.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct PlaceArgs {
    /// The directory of the PostgreSQL programs for the private server [default: what is installed]
    #[arg(long, value_name = "DIRECTORY")]
    pub(crate) bindir: Option<PathBuf>,

    /// With --database-url: every message in it is deleted, also where there are some or consumers are registered
    #[arg(long)]
    pub(crate) yes_use_this_database: bool,

    /// Fetch PostgreSQL without asking where none is installed (or set DOORBELL_FETCH_PG=1)
    #[arg(long)]
    pub(crate) yes: bool,
}

/// The server, as the results name it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ServerFacts {
    pub(crate) version: String,
    pub(crate) private: bool,
    pub(crate) settings: Vec<(String, String)>,
}

impl fmt::Display for ServerFacts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.private { "a private, durable server" } else { "the database that was named" };
        write!(f, "PostgreSQL {}, {kind}:", self.version)?;
        self.settings.iter().try_for_each(|(name, value)| write!(f, " {name}={value}"))
    }
}

/// An open place. A private server vanishes with it.
pub(crate) struct Place {
    pub(crate) lab: Lab,
    pub(crate) server: ServerFacts,
    own: Option<Server>,
    /// As it was found.
    audit_level: &'static str,
}

impl Place {
    pub(crate) async fn open(args: &PlaceArgs, global: &Global) -> Result<Self, Failure> {
        match global.database.named() {
            Some(url) => Self::named(url, args.yes_use_this_database).await,
            None => Self::private(args).await,
        }
    }

    /// A server of our own, whatever else the environment names: nobody's data is in the way.
    pub(crate) async fn private(args: &PlaceArgs) -> Result<Self, Failure> {
        let options = EphemeralOptions {
            durable: true,
            max_connections: CONNECTIONS_MAX,
            settings: SERVER_SETTINGS.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
            bin_directory: args.bindir.clone(),
            consent: consent(args.yes),
            ..EphemeralOptions::default()
        };
        let own = Server::ephemeral(options).await?;
        let url = own.connection_string("postgres");
        doorbell::Broker::connect(&url).await?.migrate().await?;
        let lab = Lab::open(&url).await.map_err(failure)?;
        lab.run_in().await.map_err(failure)?;
        // It tells records of the log from full pages; not everybody's PostgreSQL comes with it.
        let _ = lab.execute("create extension if not exists pg_walinspect").await;
        Self::with(lab, Some(own)).await.map_err(failure)
    }

    async fn named(url: &str, use_it: bool) -> Result<Self, Failure> {
        let broker = doorbell::Broker::connect(url).await?;
        broker.migrate().await?;
        broker.close().await;
        let plain = doorbell_bench::connect(url).await.map_err(|error| {
            failure(error).context("benchmarks connect without TLS and by a connection string that names the host")
        })?;
        let number = async |sql: &str| -> Result<f64, Failure> {
            let row = plain.query_one(sql, &[]).await.map_err(doorbell::Error::from)?;
            Ok(row.try_get(0).map_err(doorbell::Error::from)?)
        };
        if number(IS_SUPERUSER).await? == 0.0 {
            let why = "floors are measured without triggers, which takes a superuser; give one in --database-url, or leave it \
                       out to measure on a private server";
            return Err(Failure::new(Exit::Usage, why));
        }
        if number(IN_USE).await? > 0.0 && !use_it {
            let why = "there are messages or registered consumers in this database, and benchmarks delete every message; \
                       name another one, or add --yes-use-this-database";
            return Err(Failure::new(Exit::Usage, why));
        }
        let lab = Lab::open(url).await.map_err(failure)?;
        Self::with(lab, None).await.map_err(failure)
    }

    async fn with(lab: Lab, own: Option<Server>) -> doorbell_bench::Result<Self> {
        let (server, audit_level) = (facts(&lab, own.is_some()).await?, lab.audit_level().await?);
        Ok(Self { lab, server, own, audit_level })
    }

    /// Stops a private server; leaves a named database as it was, but for its messages.
    pub(crate) async fn close(self) -> Result<(), Failure> {
        let Self { lab, own, audit_level, .. } = self;
        match own {
            Some(own) => Ok(own.stop().await?),
            None => lab.restore(audit_level).await.map_err(failure),
        }
    }
}

async fn facts(lab: &Lab, private: bool) -> doorbell_bench::Result<ServerFacts> {
    let mut settings = Vec::new();
    for name in SHOWN {
        settings.push((name.to_owned(), lab.text(&format!("show {name}")).await?));
    }
    let version = lab.text("show server_version").await?;
    let version = version.split_whitespace().next().unwrap_or_default().to_owned();
    Ok(ServerFacts { version, private, settings })
}
