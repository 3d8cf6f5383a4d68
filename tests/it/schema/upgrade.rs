//! From one version's code to the next, while the fleet works.

use doorbell::{
    Broker, Settings,
    doctor::{Level, Options},
    migrate,
};
use tokio_postgres::Client;

use super::migrations::{catalog, functions};
use crate::support::{Database, connect, count, echo, message, plain_insert, until};

/// Has the database say that other functions and views are in force.
const OTHER_CODE: &str = "update integration.code set checksum = 'other' where kind in ('function', 'view'); \
    update integration.migrations set checksum = 'other' where version = 0";
const OTHER_TRIGGER: &str = "update integration.code set checksum = 'other' where name like '%data_staging_published'; \
    update integration.migrations set checksum = 'other' where version = 0";

async fn run(client: &Client, sql: &str) {
    client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
}

async fn drift(broker: &Broker) -> Vec<String> {
    let report = broker.operator().doctor(&Options::default()).await.unwrap();
    let ills = report.findings.into_iter().filter(|finding| finding.check == "drift" && finding.level > Level::Ok);
    ills.map(|finding| finding.what).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changed_is_replaced_what_is_gone_is_dropped_and_the_rest_is_left_alone() {
    let db = Database::new().await;
    let (client, broker) = (db.client().await, db.broker().await);
    let before = (catalog(&client).await, functions(&client).await);
    let role = format!("reader_of_{}", db.name());
    run(
        &client,
        &format!(
            "create role {role}; grant select on integration.stats to {role} with grant option; \
             create function integration.mine() returns integer language sql as 'select 1'; \
             select integration.set_audit_level('all'); \
             {OTHER_CODE}; \
             drop view integration.wakeups; create view integration.wakeups as select 1 as another_column; \
             drop function integration.has_suspects(text, text[]); \
             create function integration.has_suspects(p_target text, p_types text[]) returns integer \
                 language sql as 'select 7'; \
             create function integration.gone(p integer default 1) returns integer language sql as 'select 1'; \
             create view integration.gone_too as select integration.gone() from integration.stats; \
             insert into integration.code values ('function', 'gone(integer)', 'x'), ('view', 'gone_too', 'x'), \
                 ('trigger', 'data_staging.gone', 'x'); \
             create trigger gone after insert on integration.data_staging execute function integration.on_published()"
        )
        .replace(
            "create trigger gone after insert on integration.data_staging execute",
            "create trigger gone after insert on integration.data_staging referencing new table as published execute",
        ),
    )
    .await;
    let report = broker.migrate().await.unwrap();
    assert_eq!(report.applied, ["code"]);
    assert!(broker.migrate().await.unwrap().applied.is_empty());
    assert_eq!(drift(&broker).await, ["function mine() is added: it is not Doorbell's"]);
    let granted = format!(
        "select count(*) from information_schema.role_table_grants where grantee = '{role}' \
        and table_name = 'stats' and is_grantable = 'YES'"
    );
    assert_eq!(count(&client, &granted).await, 1);
    let all = "select count(*) from pg_trigger where tgname = 'data_staging_audit_published'";
    assert_eq!(count(&client, all).await, 1, "the audit level stays");
    run(&client, "drop function integration.mine(); select integration.set_audit_level('outcomes')").await;
    assert_eq!((catalog(&client).await, functions(&client).await), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_of_somebody_elses_on_ours_is_named_and_nothing_is_lost() {
    let db = Database::new().await;
    let (client, broker) = (db.client().await, db.broker().await);
    run(&client, OTHER_CODE).await;
    run(
        &client,
        "insert into integration.code values ('view', 'gone', 'x'); create view theirs as table integration.stats",
    )
    .await;
    let error = broker.migrate().await.unwrap_err();
    assert!(format!("{error}: {:?}", std::error::Error::source(&error)).contains("theirs"), "{error:?}");
    assert_eq!(count(&client, "select count(*) from theirs").await, 0);
    run(&client, "drop view theirs").await;
    assert_eq!(broker.migrate().await.unwrap().applied, ["code"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn functions_and_views_are_replaced_beside_an_open_transaction_that_publishes() {
    let db = Database::new().await;
    let (client, broker) = (db.client().await, db.broker().await);
    let (consumer, mut told) = echo(&broker, "billing").await;
    run(&client, OTHER_CODE).await;
    let mut publisher = db.client().await;
    let open = publisher.transaction().await.unwrap();
    run_in(&open, "billing").await;
    // Were any lock of the table's asked for that publishing does not go with, this would not end before the transaction.
    assert_eq!(broker.migrate().await.unwrap().applied, ["code"]);
    let id = broker.producer("shop").publish(&message("billing", 1)).await.unwrap();
    assert_eq!(told.next().await.id, id);
    open.commit().await.unwrap();
    told.next().await;
    consumer.shutdown().await.unwrap();
}

async fn run_in(tx: &tokio_postgres::Transaction<'_>, target: &str) {
    let sql = "insert into integration.data_staging (source_app, target_app, record_type, data) values ('psql', $1, 'n', '1')";
    tx.execute(sql, &[&target]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trigger_is_replaced_when_nobody_is_in_the_way_and_publishing_goes_on_until_then() {
    let db = Database::new().await;
    let (client, broker) = (db.client().await, db.broker().await);
    run(&client, OTHER_TRIGGER).await;
    let mut publisher = db.client().await;
    let open = publisher.transaction().await.unwrap();
    run_in(&open, "billing").await;
    let migrating = tokio::spawn({
        let broker = broker.clone();
        async move { broker.migrate().await }
    });
    let waits = "select count(*) > 0 from pg_locks where not granted and mode = 'ShareRowExclusiveLock' \
        and relation = 'integration.data_staging'::regclass";
    // It comes back again and again, and gives way each time: what waits behind it is published.
    for n in 0..3 {
        until(&client, "the migration waits for the table", waits).await;
        plain_insert(&client, "billing", &n.to_string()).await;
    }
    assert!(!migrating.is_finished());
    open.commit().await.unwrap();
    assert_eq!(migrating.await.unwrap().unwrap().applied, ["code"]);
    assert_eq!(count(&client, "select count(*) from integration.data_staging").await, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_processes_with_new_code_that_start_at_once_apply_it_once() {
    let db = Database::new().await;
    run(&db.client().await, &format!("{OTHER_CODE}; {OTHER_TRIGGER}")).await;
    let brokers = futures::future::join_all((0..20).map(|_| db.broker())).await;
    let reports = futures::future::try_join_all(brokers.iter().map(Broker::migrate)).await.unwrap();
    assert_eq!(reports.iter().filter(|report| !report.applied.is_empty()).count(), 1);
    assert!(drift(&brokers[0]).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_use_the_schema_cannot_keep_its_owner_from_migrating() {
    let db = Database::new().await;
    let client = db.client().await;
    let role = format!("user_of_{}", db.name());
    run(
        &client,
        &format!(
            "create role {role} login; grant usage on schema integration to {role}; \
             grant select, insert on all tables in schema integration to {role}; {OTHER_CODE}"
        ),
    )
    .await;
    let theirs = connect(&db.url.replace("user=postgres", &format!("user={role}"))).await;
    for mode in ["share row exclusive", "share", "exclusive", "access exclusive"] {
        let lock = format!("begin; lock table integration.migrations in {mode} mode");
        assert!(theirs.batch_execute(&lock).await.is_err(), "{mode}");
        theirs.batch_execute("rollback").await.unwrap();
    }
    run(&theirs, "begin; lock table integration.migrations in access share mode").await;
    assert_eq!(db.broker().await.migrate().await.unwrap().applied, ["code"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_of_the_version_before_leaves_newer_code_alone() {
    let db = Database::new().await;
    let (client, broker) = (db.client().await, db.broker().await);
    let mut numbers = env!("CARGO_PKG_VERSION").split('.').map(|number| number.parse::<u32>().unwrap());
    let (major, minor) = (numbers.next().unwrap(), numbers.next().unwrap());
    let installed = |minor: u32| {
        format!(
            "{OTHER_CODE}; update integration.migrations set program = '{major}.{minor}.0' where version = 0; \
             insert into integration.migrations (version, name, checksum, program) values (2, 'later', 'x', 'x') \
             on conflict do nothing"
        )
    };
    run(&client, &installed(minor + 1)).await;
    assert!(broker.migrate().await.unwrap().applied.is_empty());
    run(&client, &installed(minor + 2)).await;
    assert!(broker.migrate().await.unwrap_err().to_string().contains("use a newer doorbell"));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_minor_version_of_the_server_is_no_drift_and_is_recorded_by_the_next_migrate() {
    let db = Database::new().await;
    let (client, broker) = (db.client().await, db.broker().await);
    run(
        &client,
        "update integration.fingerprints set server = server - 1, hash = case when deparsed then 'x' else hash end",
    )
    .await;
    assert_eq!(drift(&broker).await, Vec::<String>::new());
    run(&client, "create or replace function integration.ring(p_target text) returns void language sql as 'select'")
        .await;
    let ring = drift(&broker).await;
    assert_eq!(ring, ["function ring(text) is altered"], "what we wrote is compared all the same");
    assert!(broker.migrate().await.unwrap().applied.is_empty());
    let old = format!("select count(*) from integration.fingerprints where server <> {SERVER} or hash = 'x'");
    assert_eq!(count(&client, &old).await, 0);
}

const SERVER: &str = "current_setting('server_version_num')::integer";

#[tokio::test(flavor = "multi_thread")]
async fn the_fix_for_an_altered_function_is_the_statement_in_force() {
    let db = Database::new().await;
    let client = db.client().await;
    run(&client, "create or replace function integration.ring(p_target text) returns void language sql as 'select'")
        .await;
    let report = db.broker().await.operator().doctor(&Options::default()).await.unwrap();
    let ring = report.findings.into_iter().find(|finding| finding.what == "function ring(text) is altered").unwrap();
    let fix = ring.fix.unwrap();
    let (_, bell) = migrate::CODE.iter().find(|(name, _)| *name == "code/bell").unwrap();
    assert!(bell.contains(&fix) && fix.starts_with("create or replace function integration.ring("), "{fix}");
    run(&client, &fix).await;
    assert_eq!(drift(&db.broker().await).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_of_the_role_do_not_keep_it_from_waiting() {
    // Covered for every setting in hostile.rs; here: a statement_timeout that would end a migration that has to wait.
    let db = Database::new().await;
    run(&db.client().await, OTHER_CODE).await;
    let settings = Settings::parse(&format!("{} options='-c statement_timeout=1'", db.url)).unwrap();
    let broker = Broker::with_config(settings, Default::default()).await.unwrap();
    assert_eq!(broker.migrate().await.unwrap().applied, ["code"]);
}
