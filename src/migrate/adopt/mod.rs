//! Tables of the integration document that were there before Doorbell: its messages become ours, in one transaction.
//!
//! The old tables move to a schema beside, untouched, and the schema is made as everywhere; then rows, ids, rights and
//! counts follow. So what comes out is what a migration makes, whatever was there. Statements that were waiting for the
//! old table find the new one under its name.

mod column;
mod columns;
mod own;

use std::collections::{BTreeMap, BTreeSet};

use doorbell_schema::text;
use tokio_postgres::{
    Transaction,
    types::{ToSql, Type},
};

use self::{column::Column, columns::Reading, own::Own};
use super::{PREAMBLE, STEPS, parts, session::Session};
use crate::{
    connection::Settings,
    error::{Error, ErrorKind, Result},
    schema::Schema,
};

const FOUND: &str = text("adopt/found");
const SURROUNDINGS: &str = text("adopt/surroundings");
const NAMES: &str = text("adopt/names");
const ROWS: &str = text("adopt/rows");
const FINISH: &str = text("adopt/finish");

/// Whether a message can be published that names nobody's own columns; its id is one that no message has.
const PUBLISH: &str = "savepoint publish; insert into integration.data_staging (id, source_app, target_app, record_type, data) \
    values (9223372036854775807, 'doorbell', 'doorbell', 'doorbell', '{}'); rollback to publish";
/// Whether tables are there that no migration made.
const IS_OCCUPIED: &str = "select exists (select from pg_class c where c.relnamespace = to_regnamespace('integration') \
    and c.relname in ('data_staging', 'data_staging_archive', 'audit_log')) \
    and to_regclass('integration.fingerprints') is null";
/// What a session of this role in this database reads times in, whatever the preamble says.
const ZONE: &str = "select reset_val from pg_settings where name = 'TimeZone'";
const ZONE_EXISTS: &str = "select exists (select from pg_timezone_names where lower(name) = lower($1))";
const TABLES: [&str; 3] = ["data_staging", "data_staging_archive", "audit_log"];
const STATUSES: &[&str] = &["pending", "processing", "completed", "failed", "cancelled"];

/// How tables of the integration document are adopted.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Adopt {
    /// The zone in which times of type `TIMESTAMP` are read (`Europe/Berlin`, `UTC`); `None`: the one that a session of this
    /// role has in this database, which is what `NOW()` was written in if the producers' sessions had the same.
    pub times_in: Option<String>,
    /// Columns that the document does not have and that may stay in the old tables, as `data_staging.tenant`. Statements
    /// that name them fail afterwards. All others are kept.
    pub leave: Vec<String>,
}

/// What adopting the tables that are there does, or did.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Adoption {
    /// The schema that the old tables move to.
    pub before: String,
    /// The zone in which times without one are read; `None`: there are no such times.
    pub times_in: Option<String>,
    /// How many rows each table has, and each status of `data_staging`: `data_staging.pending`.
    pub rows: BTreeMap<String, i64>,
    /// What the new tables will have besides what a migration makes: columns that the document does not have, with what belongs
    /// to them alone.
    pub kept: Vec<String>,
    /// What the old tables have and the new ones will not.
    pub left: Vec<String>,
    /// Why it is refused: what differs from the document, and what would be lost. Empty: nothing is in the way.
    pub differences: Vec<String>,
}

/// What is there, seen in one transaction.
pub(super) struct Found {
    pub(super) adoption: Adoption,
    zone: String,
    readings: BTreeMap<String, Reading>,
    /// Indexes and constraints of columns that are kept: what they are, and the statement that makes them.
    made_again: Vec<(String, String)>,
}

/// Looks; changes nothing. `None`: there is nothing to adopt.
pub(crate) async fn look(settings: &Settings, how: &Adopt) -> Result<Option<Adoption>> {
    let mut session = Session::open(settings).await?;
    let schema = settings.schema();
    let tx = session.client.build_transaction().read_only(true).start().await?;
    tx.batch_execute(PREAMBLE).await?;
    match is_occupied(&tx, schema).await? {
        true => Ok(Some(find(&tx, schema, how).await?.adoption)),
        false => Ok(None),
    }
}

/// Whether tables are in the way that no migration made.
pub(super) async fn is_occupied(tx: &Transaction<'_>, schema: &Schema) -> Result<bool> {
    Ok(tx.query_typed_one(&schema.sql(IS_OCCUPIED), &[]).await?.try_get(0)?)
}

/// Why a migration does not go on where such tables are.
pub(super) fn refusal(schema: &Schema) -> Error {
    Error::new(
        ErrorKind::Schema,
        format!(
            "the schema {schema} has tables that Doorbell did not make (data_staging, data_staging_archive or audit_log): \
             `doorbell migrate --adopt --dry-run` (Broker::adoption) says what would become of them and of their rows"
        ),
    )
}

/// Locks the old tables against everybody and moves them out of the way; what was waiting for them goes on waiting.
/// `None`: there are none any more, because somebody else was faster.
pub(super) async fn set_aside(tx: &Transaction<'_>, schema: &Schema, how: &Adopt) -> Result<Option<Found>> {
    let relations = relations(tx, schema).await?;
    let names: Vec<_> = relations.keys().map(|table| format!("{schema}.{table}")).collect();
    // A view cannot be locked like that; it is named as a difference.
    let lock = format!("lock table {} in access exclusive mode", names.join(", "));
    tx.batch_execute(&lock).await.map_err(|error| Error::from(error).context("lock the tables to be adopted"))?;
    if !is_occupied(tx, schema).await? {
        return Ok(None);
    }
    let found = find(tx, schema, how).await?;
    if !found.adoption.differences.is_empty() {
        let why = found.adoption.differences.join("; ");
        return Err(Error::new(
            ErrorKind::Schema,
            format!("the tables of {schema} cannot be adopted as they are: {why}"),
        ));
    }
    let before = &found.adoption.before;
    let moved: String = names.iter().map(|table| format!("alter table {table} set schema {before};\n")).collect();
    let moved = tx.batch_execute(&format!("create schema {before};\n{moved}")).await;
    moved.map_err(|error| Error::from(error).context(format_args!("move the old tables to the schema {before}")))?;
    Ok(Some(found))
}

impl Found {
    /// Fills the tables that a migration made meanwhile.
    pub(super) async fn copy(&self, tx: &Transaction<'_>, schema: &Schema) -> Result<()> {
        let before = &self.adoption.before;
        let failed = |what: &str| {
            let what = format!("adopt {what}");
            move |error: tokio_postgres::Error| Error::from(error).context(what)
        };
        for table in self.readings.keys().map(String::as_str).chain(["data_staging_archive"]).collect::<BTreeSet<_>>() {
            for definition in self.added(table) {
                let sql = format!("alter table {schema}.{table} add column {definition}");
                tx.batch_execute(&sql).await.map_err(failed(&format!("the column {definition} of {table}")))?;
            }
        }
        // Rows are not published, but were: no bell, no history, and they are counted at the end.
        let triggers = |what| format!("alter table {schema}.data_staging {what} trigger user");
        tx.batch_execute(&triggers("disable")).await?;
        // History last: it says of which message it is.
        for (table, reading) in TABLES.iter().filter_map(|table| self.readings.get_key_value(*table)) {
            let (mut columns, mut values): (Vec<&str>, Vec<&str>) =
                reading.expressions.iter().map(|(column, value)| (*column, &**value)).unzip();
            let mut from = format!("{before}.{table} o");
            if table == "data_staging_archive" {
                // Its columns have no defaults: what is archived has been a message.
                columns.extend(["attempt", "crash_count", "redrive_count"]);
                values.extend(["0", "0", "0"]);
            } else if table == "audit_log" {
                columns.extend(["role_name", "source_app", "target_app", "record_type"]);
                values.extend(["''", "m.source_app", "m.target_app", "m.record_type"]);
                from += &format!(
                    " left join lateral (select d.source_app, d.target_app, d.record_type from {schema}.data_staging d \
                        where d.id = o.staging_id union all \
                      select a.source_app, a.target_app, a.record_type from {schema}.data_staging_archive a \
                        where a.id = o.staging_id limit 1) m on true"
                );
            }
            let is_copied = |own: &&Own| table == "data_staging_archive" || !own.is_generated();
            let own: Vec<&str> = reading.own.iter().filter(is_copied).map(|own| &*own.name).collect();
            let mut values = schema.sql(&values.join(", ")).into_owned();
            values.extend(own.iter().map(|name| format!(", o.{name}")));
            columns.extend(own);
            let sql = format!("insert into {schema}.{table} ({}) select {values} from {from}", columns.join(", "));
            tx.execute_typed(&sql, &[(&self.zone, Type::TEXT)]).await.map_err(failed(table))?;
        }
        tx.batch_execute(&triggers("enable")).await?;
        let finish = schema.sql(FINISH).replace("{before}", before);
        tx.batch_execute(&finish).await.map_err(failed("what belongs to the tables"))?;
        self.make_again(tx, schema).await
    }

    /// The columns that a new table gets, as they are defined.
    fn added(&self, table: &str) -> Vec<String> {
        let own = |table: &str| self.readings.get(table).into_iter().flat_map(|reading| &reading.own);
        if table != "data_staging_archive" {
            return own(table).map(Own::definition).collect();
        }
        // What is archived keeps its values, also where nobody archived them before.
        let more = own("data_staging").filter(|column| own(table).all(|its| its.name != column.name));
        own(table).chain(more).map(Own::plain).collect()
    }

    /// What belongs to columns that are kept, and was not to be in the way of the rows.
    async fn make_again(&self, tx: &Transaction<'_>, schema: &Schema) -> Result<()> {
        let refused = |what: &str| {
            let what = format!("{what} cannot be kept");
            move |error: tokio_postgres::Error| Error::from(error).context(what)
        };
        let own = self.readings.get("data_staging").map_or(&[][..], |reading| &reading.own);
        for column in own.iter().filter(|own| own.is_not_null && !own.is_generated()) {
            let sql = format!("alter table {schema}.data_staging alter column {} set not null", column.name);
            tx.batch_execute(&sql).await.map_err(refused(&column.sentence()))?;
        }
        for (what, make) in &self.made_again {
            tx.batch_execute(make).await.map_err(refused(what))?;
        }
        if own.is_empty() {
            return Ok(());
        }
        let published = tx.batch_execute(&schema.sql(PUBLISH)).await;
        published.map_err(|error| {
            Error::from(error)
                .context("a message that does not name your columns would be refused as they are (--leave leaves one)")
        })
    }
}

async fn find(tx: &Transaction<'_>, schema: &Schema, how: &Adopt) -> Result<Found> {
    let before = format!("{schema}_before_doorbell");
    let zone = match &how.times_in {
        Some(zone) => zone.clone(),
        None => tx.query_typed_one(ZONE, &[]).await?.try_get(0)?,
    };
    if !tx.query_typed_one(ZONE_EXISTS, &[(&zone, Type::TEXT)]).await?.try_get::<_, bool>(0)? {
        return Err(Error::invalid(format!(
            "{zone:?} is not a time zone that the server knows; try Europe/Berlin or UTC"
        )));
    }
    let (mut left, mut kept, mut differences) = (Vec::new(), Vec::new(), Vec::new());
    let mut readings = BTreeMap::new();
    let mut readable = BTreeSet::new();
    for (table, Relation { kind, is_readable, columns }) in relations(tx, schema).await? {
        if kind != "r" {
            differences.push(format!("{table} is not an ordinary table but {}", kind_of_relation(&kind)));
            continue;
        }
        let reading = columns::read(&table, &columns, &how.leave);
        kept.extend(reading.own.iter().map(Own::sentence));
        left.extend(reading.left.iter().cloned());
        differences.extend(reading.differences.iter().cloned());
        // Where columns are missing nothing can be said of the rows.
        if is_readable && reading.differences.is_empty() {
            readable.insert(table.clone());
        }
        readings.insert(table, reading);
    }
    differences.extend(unequal(&readings));
    let names: Vec<&str> = readings.values().flat_map(|reading| &reading.own).map(|own| &*own.of).collect();
    let mut made_again = Vec::new();
    let parameters: [(&(dyn ToSql + Sync), Type); 2] = [(&names, Type::TEXT_ARRAY), (&how.leave, Type::TEXT_ARRAY)];
    for row in tx.query_typed(&schema.sql(SURROUNDINGS), &parameters).await? {
        let (in_the_way, what, make): (bool, String, Option<String>) =
            (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        match make {
            _ if in_the_way => differences.push(what),
            Some(make) => {
                kept.push(what.clone());
                made_again.push((what, make));
            }
            None => left.push(what),
        }
    }
    differences.extend(taken_names(tx, schema, &before).await?);
    let mut rows = BTreeMap::new();
    for table in readable {
        let (counted, wrong) = look_at_rows(tx, schema, &table, &readings[&table], &zone).await?;
        rows.extend(counted);
        differences.extend(wrong);
    }
    let times_in = readings.values().any(|reading| reading.has_zoneless).then(|| zone.clone());
    Ok(Found { adoption: Adoption { before, times_in, rows, kept, left, differences }, zone, readings, made_again })
}

/// Columns that could not go from one table to the other.
fn unequal(readings: &BTreeMap<String, Reading>) -> Vec<String> {
    let own = |table| readings.get(table).into_iter().flat_map(|reading| &reading.own);
    let pairs = own("data_staging")
        .filter_map(|one| Some((one, own("data_staging_archive").find(|its| its.name == one.name)?)));
    let unequal = pairs.filter(|(one, archived)| one.written != archived.written);
    unequal
        .map(|(one, archived)| format!("{} is {}, and {} is {}", one.of, one.written, archived.of, archived.written))
        .collect()
}

/// One of the three tables, or what has its name.
struct Relation {
    kind: String,
    /// Whether this role may; who may not is told so by what surrounds the table.
    is_readable: bool,
    columns: Vec<Column>,
}

async fn relations(tx: &Transaction<'_>, schema: &Schema) -> Result<BTreeMap<String, Relation>> {
    let mut relations = BTreeMap::new();
    for row in tx.query_typed(&schema.sql(FOUND), &[]).await? {
        let (kind, is_readable) = (row.try_get(1)?, row.try_get(2)?);
        let relation = relations.entry(row.try_get(0)?).or_insert(Relation { kind, is_readable, columns: Vec::new() });
        relation.columns.push(Column::read(&row)?);
    }
    Ok(relations)
}

fn kind_of_relation(kind: &str) -> &'static str {
    match kind {
        "p" => "partitioned: attach its rows to an ordinary one first",
        "v" => "a view",
        "m" => "a materialized view",
        _ => "a foreign one",
    }
}

/// Names of ours that something else has.
async fn taken_names(tx: &Transaction<'_>, schema: &Schema, before: &str) -> Result<Vec<String>> {
    let mut ours: BTreeSet<(&str, String)> = BTreeSet::new();
    for (_, sql) in STEPS {
        for statement in ["\ncreate table integration.", "\ncreate index "] {
            let names = sql.split(statement).skip(1).filter_map(|rest| rest.split([' ', '\n', '(']).next());
            ours.extend(names.map(|name| ("relation", name.to_owned())));
        }
    }
    ours.extend(["migrations", "code", "fingerprints"].map(|name| ("relation", name.to_owned())));
    ours.extend(["data_staging_id_seq", "audit_log_id_seq"].map(|name| ("relation", name.to_owned())));
    ours.extend(parts().into_iter().map(|part| match part.kind.name() {
        "view" => ("relation", part.name),
        kind => (kind, part.name),
    }));
    ours.insert(("schema", before.to_owned()));
    let mut taken = Vec::new();
    for row in tx.query_typed(&schema.sql(NAMES).replace("{before}", before), &[]).await? {
        let (kind, name): (&str, String) = (row.try_get(0)?, row.try_get(1)?);
        if ours.contains(&(kind, name.clone())) {
            taken.push(format!("the {kind} {name} is there already, and Doorbell makes one of that name: rename it"));
        }
    }
    Ok(taken)
}

/// How many rows there are, and what is wrong with some of them.
async fn look_at_rows(
    tx: &Transaction<'_>,
    schema: &Schema,
    table: &str,
    reading: &Reading,
    zone: &str,
) -> Result<(BTreeMap<String, i64>, Vec<String>)> {
    if table == "audit_log" {
        let rows = tx.query_typed_one(&format!("select count(*) from {schema}.{table}"), &[]).await?.try_get(0)?;
        return Ok((BTreeMap::from([(table.to_owned(), rows)]), Vec::new()));
    }
    let columns: Vec<_> = reading.expressions.iter().map(|(name, value)| format!("{value} as {name}")).collect();
    let columns = columns.join(", ").replace("integration.clock()", "clock_timestamp()");
    let sql = ROWS.replace("{columns}", &columns).replace("{table}", &format!("{schema}.{table}"));
    let (mut rows, mut wrong) = (BTreeMap::from([(table.to_owned(), 0)]), Vec::new());
    for row in tx.query_typed(&sql, &[(&zone, Type::TEXT), (&STATUSES, Type::TEXT_ARRAY)]).await? {
        let (status, problem, count): (Option<String>, Option<String>, i64) =
            (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        *rows.entry(table.to_owned()).or_default() += count;
        match problem {
            Some(problem) => {
                let first: Option<i64> = row.try_get(3)?;
                let first = first.map_or("null".to_owned(), |id| id.to_string());
                let noun = if count == 1 { "row" } else { "rows" };
                wrong.push(format!("{table} has {count} {noun} with {problem}, the first with id {first}"));
            }
            None if table == "data_staging" => {
                *rows.entry(format!("{table}.{}", status.unwrap_or_default())).or_default() += count;
            }
            None => {}
        }
    }
    Ok((rows, wrong))
}
