//! Migrations: once, whoever starts first, and readable in one place.

use doorbell::{
    Broker, ErrorKind,
    migrate::{self, Schema},
};
use tokio_postgres::Client;

use crate::support::{Database, connect, count, echo, message};

/// Everything that the schema consists of, one line each. Partitions and what differs between versions of PostgreSQL
/// (not-null constraints as objects, the text of views) are left out.
const CATALOG: &str = r#"
with relations as (
    select c.oid, c.relname, c.relkind, c.reloptions from pg_class c
     where c.relnamespace = 'integration'::regnamespace and not c.relispartition),
lines as (
    select 'column ' || r.relname || '.' || lpad(a.attnum::text, 2, '0') || ' ' || a.attname || ' '
           || format_type(a.atttypid, a.atttypmod) || case when a.attnotnull then ' not null' else '' end
           || coalesce(' default ' || pg_get_expr(d.adbin, d.adrelid), '') || case a.attidentity when '' then '' else ' identity' end as line
      from relations r join pg_attribute a on a.attrelid = r.oid and a.attnum > 0 and not a.attisdropped
      left join pg_attrdef d on d.adrelid = r.oid and d.adnum = a.attnum
     where r.relkind in ('r', 'p', 'v')
    union all select 'settings ' || relname || ' ' || array_to_string(reloptions, ', ') from relations where reloptions is not null
    union all select 'constraint ' || r.relname || '.' || k.conname || ' ' || pg_get_constraintdef(k.oid)
      from relations r join pg_constraint k on k.conrelid = r.oid where k.contype <> 'n'
    union all select 'index ' || pg_get_indexdef(r.oid) from relations r where r.relkind in ('i', 'I')
    union all select 'trigger ' || pg_get_triggerdef(t.oid)
      from relations r join pg_trigger t on t.tgrelid = r.oid where not t.tgisinternal
    union all select 'function ' || p.proname || '(' || pg_get_function_arguments(p.oid) || ') returns '
           || coalesce(pg_get_function_result(p.oid), 'what its parameters say') || case p.provolatile when 'i' then ' immutable' when 's' then ' stable' else '' end
           || case when p.prosecdef then ' security definer' else '' end
           || coalesce(' set ' || array_to_string(p.proconfig, ' set '), '')
      from pg_proc p where p.pronamespace = 'integration'::regnamespace)
select line from lines order by line collate pg_catalog."C"
"#;

pub(super) async fn catalog(client: &Client) -> String {
    // It is written down as a session reads it.
    client.batch_execute("set timezone = 'UTC'; set datestyle = 'ISO'; set intervalstyle = postgres").await.unwrap();
    let rows = client.query(CATALOG, &[]).await.unwrap();
    rows.iter().map(|row| row.get::<_, String>(0) + "\n").collect()
}

pub(super) async fn functions(client: &Client) -> String {
    let sql = "select md5(string_agg(pg_get_functiondef(oid), '' order by oid::regprocedure::text)) from pg_proc \
        where pronamespace = 'integration'::regnamespace";
    client.query_one(sql, &[]).await.unwrap().get(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_processes_that_start_at_once_make_one_schema() {
    let db = Database::empty().await;
    let brokers = futures::future::join_all((0..20).map(|_| db.broker())).await;
    let reports = futures::future::try_join_all(brokers.iter().map(Broker::migrate)).await.unwrap();
    assert_eq!(reports.iter().filter(|report| !report.applied.is_empty()).count(), 1);
    assert!(reports.iter().all(|report| report.version == migrate::STEPS.len() as i32));
    let client = db.client().await;
    let steps = "select count(*) from integration.migrations where version > 0";
    assert_eq!(count(&client, steps).await, migrate::STEPS.len() as i64);
}

#[tokio::test(flavor = "multi_thread")]
async fn migrating_again_and_the_script_give_the_same_schema() {
    let migrated = Database::new().await;
    let client = migrated.client().await;
    let first = (catalog(&client).await, functions(&client).await);
    assert!(migrated.broker().await.migrate().await.unwrap().applied.is_empty());
    assert_eq!((catalog(&client).await, functions(&client).await), first);

    let scripted = Database::empty().await;
    let client = scripted.client().await;
    client.batch_execute(&migrate::script(&Schema::default())).await.unwrap();
    assert_eq!((catalog(&client).await, functions(&client).await), first);
    assert!(scripted.broker().await.migrate().await.unwrap().applied.is_empty());
}

/// To accept a change, run the test with `DOORBELL_ACCEPT=1` and review the difference.
#[tokio::test(flavor = "multi_thread")]
async fn the_schema_is_the_one_that_is_checked_in() {
    let client = Database::new().await.client().await;
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/schema/catalog.txt");
    let now = catalog(&client).await;
    if std::env::var_os("DOORBELL_ACCEPT").is_some() {
        std::fs::write(path, &now).unwrap();
    }
    let accepted = std::fs::read_to_string(path).unwrap_or_default();
    let only = |a: &str, b: &str, sign: &str| -> Vec<String> {
        a.lines().filter(|line| !b.lines().any(|other| other == *line)).map(|line| format!("{sign} {line}")).collect()
    };
    let difference = [only(&accepted, &now, "-"), only(&now, &accepted, "+")].concat();
    assert!(difference.is_empty(), "accept with DOORBELL_ACCEPT=1:\n{}", difference.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_or_altered_schema_is_refused() {
    let db = Database::new().await;
    let (client, broker) = (db.client().await, db.broker().await);
    let newer =
        "insert into integration.migrations (version, name, checksum, program) values (1000, 'later', 'x', 'x')";
    client.execute(newer, &[]).await.unwrap();
    let error = broker.migrate().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Schema);
    assert!(error.to_string().contains("newer"), "{error}");
    client.execute("delete from integration.migrations where version = 1000", &[]).await.unwrap();
    client.execute("update integration.migrations set checksum = 'x' where version = 1", &[]).await.unwrap();
    let error = broker.migrate().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Schema);
    assert!(error.to_string().contains("0001_tables"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_owns_the_database_needs_no_other_right() {
    let db = Database::empty().await;
    let admin = db.client().await;
    let role = format!("owner_of_{}", db.name());
    admin
        .batch_execute(&format!("create role {role} login; alter database {} owner to {role}", db.name()))
        .await
        .unwrap();
    let url = db.url.replace("user=postgres", &format!("user={role}"));
    let broker = Broker::connect(&url).await.unwrap();
    broker.migrate().await.unwrap();
    let (consumer, mut told) = echo(&broker, "billing").await;
    let id = broker.producer("shop").publish(&message("billing", 1).dedup_key("a")).await.unwrap();
    assert_eq!(told.next().await.id, id);
    consumer.shutdown().await.unwrap();
    let owner = connect(&url).await;
    assert_eq!(count(&owner, "select count(*) from integration.audit_log where action = 'completed'").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_without_the_schema_says_so() {
    let db = Database::empty().await;
    let error = db.broker().await.producer("shop").publish(&message("billing", 1)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Schema, "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_without_the_right_to_create_may_migrate_where_nothing_is_to_be_done() {
    let db = Database::new().await;
    let role = format!("service_{}", db.name());
    let grants = format!(
        "create role {role} login; grant usage on schema integration to {role}; \
         grant select on integration.migrations to {role}"
    );
    db.client().await.batch_execute(&grants).await.unwrap();
    let broker = Broker::connect(&db.url.replace("user=postgres", &format!("user={role}"))).await.unwrap();
    assert!(broker.migrate().await.unwrap().applied.is_empty());
}
