//! Applying what is missing, in one transaction, beside publishers and other migrators.

use std::time::{Duration, Instant};

use tokio_postgres::{IsolationLevel, Transaction, error::SqlState};
use tracing::{debug, info, warn};

use super::{
    Adopt, OWNERSHIP, PREAMBLE, RECORDS, RENEW_RIGHTS, Report, SERVER, Status, adopt,
    release::{Missing, Recorded},
    replace, script,
    session::Session,
    short,
};
use crate::{
    backoff,
    connection::Settings,
    error::{Error, Result},
    schema::Schema,
};

/// How long other migrators are waited for, before everything is tried again.
const MIGRATORS_WITHIN: &str = "set local lock_timeout = '5 s'";
/// How long anything else is waited for: whoever publishes meanwhile waits behind us.
const TABLES_WITHIN: &str = "set local lock_timeout = '200 ms'";
/// Who makes the schema has this lock, which only its owner can take, from before the first look to the end.
const LOCK: &str = "lock table integration.migrations in share row exclusive mode";
/// How long everything is tried again while somebody holds what is needed.
const PATIENCE: Duration = Duration::from_secs(60);
/// `if not exists` looks before it waits: for whoever was second, the index finds the name taken.
const CREATED_MEANWHILE: [SqlState; 4] =
    [SqlState::UNIQUE_VIOLATION, SqlState::DUPLICATE_SCHEMA, SqlState::DUPLICATE_TABLE, SqlState::DUPLICATE_OBJECT];
const RETRY_BASE: Duration = Duration::from_millis(200);
const RETRY_CAP: Duration = Duration::from_secs(5);

/// Whether the schema is there, and whether its records can be written.
const THERE: &str = "select c.oid is not null, coalesce(pg_catalog.has_table_privilege(c.oid, 'update'), false) \
    from (select pg_catalog.to_regclass('integration.fingerprints')) c (oid)";
const STEPS_APPLIED: &str = "select version, checksum, program from integration.migrations order by version";

/// The owner of the schema, if a hole in it would be one in more: a superuser, or an owner of other schemas.
const OWNS_MORE: &str = "select r.rolname::text from pg_namespace n join pg_roles r on r.oid = n.nspowner \
    where n.nspname = 'integration' and (r.rolsuper or exists ( \
        select from pg_namespace o where o.nspowner = r.oid and o.oid <> n.oid and o.nspname !~ '^pg_' \
            and o.nspname not in ('public', 'information_schema')))";

/// Applies what is missing, in one transaction under one lock: twenty processes that start at once end up with one schema.
/// Tables that were there before are adopted, where somebody said how.
pub(crate) async fn run(settings: &Settings, how: Option<&Adopt>) -> Result<Report> {
    // Most starts change nothing: those need neither the lock nor the right to create a schema.
    if let Ok(Standing { status: Status { version, pending, .. }, recorded_elsewhere: false }) =
        standing(settings).await
        && pending.is_empty()
    {
        return Ok(Report { version, ..Report::default() });
    }
    let until = Instant::now() + PATIENCE;
    let mut failures = 0;
    loop {
        match attempt(settings, how).await {
            Err(error) if is_in_the_way(&error) && Instant::now() < until => {
                debug!(?error, "somebody is in the way of the migration; it is tried again");
                tokio::time::sleep(backoff::delay(RETRY_BASE, RETRY_CAP, failures, rand::random())).await;
                failures += 1;
            }
            result => return result,
        }
    }
}

/// Where the database stands; changes nothing.
pub(crate) async fn status(settings: &Settings) -> Result<Status> {
    Ok(standing(settings).await?.status)
}

struct Standing {
    status: Status,
    /// The fingerprints are another server version's, and may be replaced by the caller.
    recorded_elsewhere: bool,
}

async fn standing(settings: &Settings) -> Result<Standing> {
    let mut session = Session::open(settings).await?;
    let schema = settings.schema();
    let tx = session.client.build_transaction().read_only(true).start().await?;
    let row = tx.query_typed_one(&schema.sql(THERE), &[]).await?;
    let (there, writable): (bool, bool) = (row.try_get(0)?, row.try_get(1)?);
    let recorded = if there { recorded(&tx, schema).await? } else { Recorded::default() };
    let recorded_elsewhere = writable && is_recorded_elsewhere(&tx, schema).await?;
    let is_occupied = adopt::is_occupied(&tx, schema).await?;
    let status = Status { version: recorded.version(), pending: recorded.missing()?.names(), is_occupied };
    Ok(Standing { status, recorded_elsewhere })
}

async fn recorded(tx: &Transaction<'_>, schema: &Schema) -> Result<Recorded> {
    let mut recorded = Recorded::default();
    for row in tx.query_typed(&schema.sql(STEPS_APPLIED), &[]).await? {
        let (version, checksum): (i32, String) = (row.try_get(0)?, row.try_get(1)?);
        match version {
            0 => recorded.code = Some((checksum, row.try_get(2)?)),
            _ => recorded.steps.push(checksum),
        }
    }
    Ok(recorded)
}

async fn is_recorded_elsewhere(tx: &Transaction<'_>, schema: &Schema) -> Result<bool> {
    let sql = format!("select exists (select from integration.fingerprints where deparsed and server <> {SERVER})");
    Ok(tx.query_typed_one(&schema.sql(&sql), &[]).await?.try_get(0)?)
}

async fn attempt(settings: &Settings, how: Option<&Adopt>) -> Result<Report> {
    let schema = settings.schema();
    let mut session = Session::open(settings).await?;
    let transaction = session.client.build_transaction().isolation_level(IsolationLevel::ReadCommitted);
    let tx = transaction.read_only(false).start().await?;
    tx.batch_execute(PREAMBLE).await?;
    tx.batch_execute(MIGRATORS_WITHIN).await?;
    let owned = tx.batch_execute(&schema.sql(OWNERSHIP)).await;
    owned.map_err(|error| Error::from(error).context("create the schema"))?;
    let mut found = None;
    if !tx.query_typed_one(&schema.sql(THERE), &[]).await?.try_get::<_, bool>(0)? {
        if adopt::is_occupied(&tx, schema).await? {
            tx.batch_execute(TABLES_WITHIN).await?;
            found = adopt::set_aside(&tx, schema, how.ok_or_else(|| adopt::refusal(schema))?).await?;
            tx.batch_execute(MIGRATORS_WITHIN).await?;
        }
        create(&tx, schema).await?;
    }
    tx.batch_execute(&schema.sql(LOCK)).await?;
    tx.batch_execute(TABLES_WITHIN).await?;
    let recorded = recorded(&tx, schema).await?;
    let missing = recorded.missing()?;
    let version = recorded.version() + missing.steps.len() as i32;
    apply(&tx, schema, &missing, recorded.steps.len()).await?;
    if let Some(found) = &found {
        found.copy(&tx, schema).await?;
    }
    let report = Report { applied: missing.names(), version, adopted: found.map(|found| found.adoption) };
    let owns_more = tx.query_typed(&schema.sql(OWNS_MORE), &[]).await?;
    tx.commit().await?;
    if !report.applied.is_empty() {
        info!(applied = ?report.applied, version = report.version, "schema migrated");
        if let Some(row) = owns_more.first() {
            let owner: String = row.try_get(0)?;
            warn!(%owner, "the owner of the schema is a superuser or owns other schemas; better one that owns nothing else");
        }
    }
    Ok(report)
}

/// Creates the records, unless somebody else just did.
async fn create(tx: &Transaction<'_>, schema: &Schema) -> Result<()> {
    tx.batch_execute("savepoint records").await?;
    match tx.batch_execute(&schema.sql(RECORDS)).await {
        Err(error) if error.code().is_some_and(|code| CREATED_MEANWHILE.contains(code)) => {
            Ok(tx.batch_execute("rollback to records").await?)
        }
        result => result.map_err(|error| Error::from(error).context("create the schema")),
    }
}

async fn apply(tx: &Transaction<'_>, schema: &Schema, missing: &Missing, applied: usize) -> Result<()> {
    for (at, (name, sql)) in missing.steps.iter().enumerate() {
        let sql = format!("{sql}\n;{}", script::record_step(applied + at + 1, short(name), sql));
        let applied = tx.batch_execute(&schema.sql(&sql)).await;
        applied.map_err(|error| Error::from(error).context(format_args!("migration {}", short(name))))?;
    }
    let recorded = async |condition: &str| {
        let recorded = tx.batch_execute(&schema.sql(&script::record_fingerprints(condition))).await;
        recorded.map_err(|error| Error::from(error).context("record the schema"))
    };
    if missing.code {
        let mut replacement = replace::Replacement::read(tx, schema).await?;
        replacement.functions_and_views().await?;
        recorded("f.kind <> 'trigger'").await?;
        // From here on publishers may wait.
        replacement.triggers().await?;
        recorded("f.kind = 'trigger'").await?;
    } else if !missing.steps.is_empty() || is_recorded_elsewhere(tx, schema).await? {
        recorded("true").await?;
    }
    if missing.code || !missing.steps.is_empty() {
        let renewed = tx.batch_execute(&schema.sql(RENEW_RIGHTS)).await;
        renewed.map_err(|error| Error::from(error).context("renew the rights"))?;
    }
    Ok(())
}

/// Whether somebody holds what was needed.
fn is_in_the_way(error: &Error) -> bool {
    let codes = [SqlState::LOCK_NOT_AVAILABLE, SqlState::T_R_DEADLOCK_DETECTED];
    codes.iter().any(|code| error.sqlstate() == Some(code.code()))
}
