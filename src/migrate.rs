//! Bringing the schema up to date: embedded files, one lock, checksums.

use sha2::{Digest, Sha256};
use tokio_postgres::Transaction;
use tracing::info;

use crate::{
    connection::Settings,
    error::{Error, ErrorKind, Result},
};

/// One step of the schema. The text is part of the contract once released: an altered file is refused.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Migration {
    /// 1, 2, 3, … without gaps.
    pub version: i32,
    /// The file's name without its ending.
    pub name: &'static str,
    /// The SQL.
    pub sql: &'static str,
}

macro_rules! migrations {
    ($($version:literal $file:literal)*) => {
        &[$(Migration {
            version: $version,
            name: $file,
            sql: include_str!(concat!("../migrations/", $file, ".sql")),
        }),*]
    };
}

/// All steps, in order.
pub const MIGRATIONS: &[Migration] = migrations! {
    1 "0001_tables"
    2 "0002_bell"
    3 "0003_publish"
    4 "0004_claim"
    5 "0005_settle"
    6 "0006_lease"
    7 "0007_audit"
    8 "0008_operate"
    9 "0009_breaker"
    10 "0010_views"
    11 "0011_counters"
    12 "0012_maintenance"
    13 "0013_gates"
    14 "0014_explain"
    15 "0015_list"
};

/// Taken for the length of a migration: "door" and 1.
const LOCK: &str = "select pg_advisory_xact_lock(1685024626, 1)";
const TABLE: &str = "create schema if not exists integration; \
    create table if not exists integration.migrations ( \
        version integer primary key, name text not null, checksum text not null, \
        applied_at timestamptz not null default clock_timestamp()); \
    create table if not exists integration.fingerprints ( \
        kind text not null, name text not null, hash text not null, server_major integer not null, \
        primary key (kind, name))";

/// Each part of the schema and a hash of its definition, which the doctor compares with what was recorded after migrating.
pub(crate) const FINGERPRINTS: &str = include_str!("doctor/fingerprints.sql");
/// Definitions are written by the server, so those of another major version say nothing.
pub(crate) const SERVER_MAJOR: &str = "current_setting('server_version_num')::integer / 10000";
/// What decides how the server writes definitions.
pub(crate) const CANONICAL: &str = "set local search_path = pg_catalog; set local quote_all_identifiers = off";

/// What [`Broker::migrate`](crate::Broker::migrate) did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// Steps applied now, in order; empty when the schema was up to date.
    pub applied: Vec<&'static str>,
    /// The schema's version afterwards.
    pub version: i32,
}

/// Where a database stands.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Status {
    /// The schema's version; 0: there is none.
    pub version: i32,
    /// Steps that are missing.
    pub pending: Vec<&'static str>,
}

/// The whole schema as one script, for those who apply it with their own tools.
pub fn script() -> String {
    let mut script = format!("begin;\n{LOCK};\n{TABLE};\n");
    for migration in MIGRATIONS {
        script.push_str(&format!("\n-- {}\n{}\n", migration.name, migration.sql.trim_end()));
        script.push_str(&format!(
            "insert into integration.migrations (version, name, checksum) values ({}, '{}', '{}');\n",
            migration.version,
            migration.name,
            checksum(migration.sql)
        ));
    }
    script.push_str(&format!("\n{};\ncommit;\n", record()));
    script
}

/// Records the fingerprints of the schema as it is.
fn record() -> String {
    format!(
        "{CANONICAL}; delete from integration.fingerprints; \
         insert into integration.fingerprints (kind, name, hash, server_major) \
         select f.kind, f.name, f.hash, {SERVER_MAJOR} from ({}) f",
        FINGERPRINTS.trim_end()
    )
}

/// Applies what is missing, in one transaction under one lock: twenty processes that start at once end up with one schema.
pub(crate) async fn run(settings: &Settings) -> Result<Report> {
    // Most starts change nothing: those need neither the lock nor the right to create a schema.
    if let Ok(Status { version, pending }) = status(settings).await
        && pending.is_empty()
    {
        return Ok(Report { applied: Vec::new(), version });
    }
    let mut client = Session::open(settings).await?;
    let tx = client.client.transaction().await?;
    // Waiting for other migrators is right, waiting for somebody's open transaction is not.
    tx.batch_execute(LOCK).await?;
    tx.batch_execute("set local lock_timeout = '10s'; set local client_min_messages = warning").await?;
    tx.batch_execute(TABLE).await.map_err(|error| Error::from(error).context("create the schema"))?;
    let known = applied(&tx).await?;
    let missing = missing(&known)?;
    let mut report = Report { version: MIGRATIONS.len() as i32, ..Report::default() };
    for migration in missing {
        tx.batch_execute(migration.sql)
            .await
            .map_err(|error| Error::from(error).context(format_args!("migration {}", migration.name)))?;
        tx.execute(
            "insert into integration.migrations (version, name, checksum) values ($1, $2, $3)",
            &[&migration.version, &migration.name, &checksum(migration.sql)],
        )
        .await?;
        report.applied.push(migration.name);
    }
    if !report.applied.is_empty() {
        tx.batch_execute(&record()).await.map_err(|error| Error::from(error).context("record the schema"))?;
    }
    tx.commit().await?;
    if !report.applied.is_empty() {
        info!(applied = ?report.applied, version = report.version, "schema migrated");
    }
    Ok(report)
}

/// Where the database stands; changes nothing.
pub(crate) async fn status(settings: &Settings) -> Result<Status> {
    let mut client = Session::open(settings).await?;
    let tx = client.client.build_transaction().read_only(true).start().await?;
    let there: bool =
        tx.query_one("select to_regclass('integration.migrations') is not null", &[]).await?.try_get(0)?;
    let known = if there { applied(&tx).await? } else { Vec::new() };
    let pending = missing(&known)?.iter().map(|migration| migration.name).collect();
    Ok(Status { version: known.len() as i32, pending })
}

async fn applied(tx: &Transaction<'_>) -> Result<Vec<(i32, String)>> {
    let rows = tx.query("select version, checksum from integration.migrations order by version", &[]).await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}

/// What is to be applied, or why nothing can be.
fn missing(applied: &[(i32, String)]) -> Result<&'static [Migration]> {
    for (at, (version, stored)) in applied.iter().enumerate() {
        let Some(migration) = MIGRATIONS.get(at) else {
            return Err(Error::new(
                ErrorKind::Schema,
                format!(
                    "the database is at schema version {version}, newer than this program's {}; use a newer doorbell",
                    MIGRATIONS.len()
                ),
            ));
        };
        if migration.version != *version || checksum(migration.sql) != *stored {
            return Err(Error::new(
                ErrorKind::Schema,
                format!("migration {} is not the one that was applied to this database", migration.name),
            ));
        }
    }
    Ok(&MIGRATIONS[applied.len()..])
}

/// SHA-256 of the text with unix line ends, so that a checkout's line endings do not matter.
fn checksum(sql: &str) -> String {
    let digest = Sha256::digest(sql.replace("\r\n", "\n"));
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A connection of its own: migrations run once, and session settings must not reach the pool.
struct Session {
    client: tokio_postgres::Client,
    _driver: tokio::task::JoinSet<()>,
}

impl Session {
    async fn open(settings: &Settings) -> Result<Self> {
        let (client, messages) = settings.connect().await?;
        let mut driver = tokio::task::JoinSet::new();
        driver.spawn(messages.drain());
        Ok(Self { client, _driver: driver })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_numbered_without_gaps() {
        for (at, migration) in MIGRATIONS.iter().enumerate() {
            assert_eq!(migration.version as usize, at + 1);
        }
    }

    #[test]
    fn a_newer_database_and_an_altered_migration_are_refused() {
        let all: Vec<_> = MIGRATIONS.iter().map(|m| (m.version, checksum(m.sql))).collect();
        assert!(missing(&all).expect("complete").is_empty());
        let mut newer = all.clone();
        newer.push((all.len() as i32 + 1, "x".into()));
        assert!(missing(&newer).expect_err("newer").to_string().contains("newer"));
        let mut altered = all;
        altered[0].1 = "x".into();
        assert!(missing(&altered).expect_err("altered").to_string().contains("0001_tables"));
    }
}
