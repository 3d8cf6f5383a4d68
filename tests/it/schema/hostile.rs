//! A database whose every setting is another than ours.

use doorbell::{
    ErrorKind, Outcome,
    doctor::{Level, Options},
};

use super::migrations::{catalog, functions};
use crate::support::{Database, bells_only, count, echo, message, plain_insert, seen, soon, until, until_count};

/// Each of them has made some program's migrations fail, or mean something else.
const SETTINGS: [(&str, &str); 20] = [
    ("standard_conforming_strings", "off"),
    ("backslash_quote", "off"),
    ("array_nulls", "off"),
    ("transform_null_equals", "on"),
    ("timezone", "'Europe/Berlin'"),
    ("datestyle", "'SQL, DMY'"),
    ("intervalstyle", "sql_standard"),
    ("extra_float_digits", "-15"),
    ("quote_all_identifiers", "on"),
    ("row_security", "off"),
    ("check_function_bodies", "on"),
    ("default_transaction_isolation", "serializable"),
    ("default_transaction_read_only", "on"),
    ("default_transaction_deferrable", "on"),
    ("statement_timeout", "'30 s'"),
    ("lock_timeout", "'10 ms'"),
    ("search_path", "hostile, public"),
    ("client_min_messages", "debug1"),
    ("bytea_output", "escape"),
    ("xmloption", "document"),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_database_with_hostile_settings_gets_the_same_schema_and_the_doctor_finds_no_drift() {
    let expected = Database::new().await.client().await;
    let expected = (catalog(&expected).await, functions(&expected).await);

    let db = Database::empty().await;
    let admin = db.client().await;
    // What a hostile search_path finds first.
    admin
        .batch_execute(
            "create schema hostile; \
             create function hostile.clock_timestamp() returns timestamptz language sql as $$ select '-infinity'::timestamptz $$; \
             create function hostile.hashtext(text) returns integer language sql as 'select 1'; \
             create table hostile.settings (only_row integer)",
        )
        .await
        .unwrap();
    for (name, value) in SETTINGS {
        admin.batch_execute(&format!("alter database {} set {name} = {value}", db.name())).await.unwrap();
    }
    let broker = db.broker().await;
    broker.migrate().await.unwrap();
    assert!(broker.migrate().await.unwrap().applied.is_empty());
    let report = broker.operator().doctor(&Options::default()).await.unwrap();
    let drift: Vec<_> = report.findings.iter().filter(|f| f.check == "drift" && f.level > Level::Ok).collect();
    assert!(drift.is_empty(), "{drift:#?}");

    for (name, _) in SETTINGS {
        admin.batch_execute(&format!("alter database {} reset {name}", db.name())).await.unwrap();
    }
    let client = db.client().await;
    assert_eq!((catalog(&client).await, functions(&client).await), expected);
    let (consumer, mut told) = echo(&db.broker().await, "billing").await;
    let id = db.broker().await.producer("shop").publish(&message("billing", 1)).await.unwrap();
    assert_eq!(told.next().await.id, id);
    consumer.shutdown().await.unwrap();
    let missing = db.broker().await.producer("").publish(&message("billing", 1)).await.unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::Invalid);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_not_utf8_is_refused_with_what_to_do() {
    let admin = Database::new().await;
    for encoding in ["LATIN1", "SQL_ASCII"] {
        let name = format!("{}_{}", admin.name(), encoding.to_lowercase());
        let sql = format!("create database {name} template template0 encoding '{encoding}' locale 'C'");
        admin.client().await.batch_execute(&sql).await.unwrap();
        let db = Database { url: admin.url.replace(&format!("dbname={}", admin.name()), &format!("dbname={name}")) };
        let error = db.broker().await.migrate().await.unwrap_err();
        assert!(error.to_string().contains(encoding) && error.to_string().contains("UTF8"), "{error}");
    }
}

/// What serializable transactions have read is remembered until those that ran beside them have ended, too.
#[tokio::test(flavor = "multi_thread")]
async fn our_statements_are_read_committed_whatever_the_database_says_and_transactions_of_others_are_as_it_says() {
    let db = Database::new().await;
    let client = db.client().await;
    let set = format!("alter database {} set default_transaction_isolation = 'serializable'", db.name());
    client.batch_execute(&set).await.unwrap();
    let beside = db.client().await;
    beside.batch_execute("begin isolation level serializable; select from integration.settings").await.unwrap();
    let broker = db.broker().await;
    let (consumer, mut told) = echo(&broker, "billing").await;
    let producer = broker.producer("shop");
    for n in 0..10 {
        producer.publish(&message("billing", n)).await.unwrap();
        told.next().await;
    }
    broker.operator().maintain().await.unwrap();
    consumer.shutdown().await.unwrap();
    let remembered = "select count(*) from pg_locks l join pg_database d on d.oid = l.database \
        where d.datname = current_database() and l.mode = 'SIReadLock' and l.pid is distinct from $1";
    let own: i32 = beside.query_one("select pg_backend_pid()", &[]).await.unwrap().get(0);
    assert_eq!(client.query_one(remembered, &[&own]).await.unwrap().get::<_, i64>(0), 0);
    beside.batch_execute("rollback").await.unwrap();

    let shown = "select current_setting('transaction_isolation')";
    let mut own = broker.client().await.unwrap();
    let transaction = own.transaction().await.unwrap();
    assert_eq!(transaction.query_one(shown, &[]).await.unwrap().get::<_, String>(0), "serializable");
    transaction.rollback().await.unwrap();
    let (tell, mut told) = seen();
    let consumer = broker.consumer("ledger").config(bells_only()).on_tx("n", move |_: i64, _, tx| {
        let tell = tell.clone();
        Box::pin(async move {
            let _ = tell.send(tx.query_one(shown, &[]).await?.get::<_, String>(0));
            Ok(Outcome::Done)
        })
    });
    let consumer = consumer.start().await.unwrap();
    producer.publish(&message("ledger", 1)).await.unwrap();
    assert_eq!(told.next().await, "serializable");
    until_count(&client, "completed", 11).await;
    consumer.shutdown().await.unwrap();
}

/// A report of a whole month, which somebody made in a serializable transaction, beside others of these.
#[tokio::test(flavor = "multi_thread")]
async fn what_serializable_transactions_have_read_keeps_no_old_partition() {
    let db = Database::new().await;
    let client = db.client().await;
    let old = "create table integration.audit_log_old partition of integration.audit_log \
        for values from ('2001-01-01Z') to ('2001-02-01Z')";
    client.batch_execute(old).await.unwrap();
    let (beside, report) = (db.client().await, db.client().await);
    beside.batch_execute("begin isolation level serializable; select from integration.settings").await.unwrap();
    let read = "begin isolation level serializable; select from integration.audit_log_old; commit";
    report.batch_execute(read).await.unwrap();
    let remembered = "select count(*) from pg_locks where relation = 'integration.audit_log_old'::regclass";
    assert_eq!(count(&client, remembered).await, 1);
    assert_eq!(count(&client, "select dropped::bigint from integration.drop_old_partitions()").await, 1);
    beside.batch_execute("rollback").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_read_only_for_a_while_is_worked_on_afterwards_and_beats_go_on() {
    let db = Database::new().await;
    let admin = db.client().await;
    admin.batch_execute("set default_transaction_read_only = off").await.unwrap();
    let (consumer, mut told) = echo(&db.broker().await, "billing").await;
    let set = async |value: &str| {
        let set = format!("alter database {} set default_transaction_read_only = {value}", db.name());
        admin.batch_execute(&set).await.unwrap();
        let end = "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() \
            and pid <> pg_backend_pid() and backend_type = 'client backend'";
        admin.batch_execute(end).await.unwrap();
    };
    set("on").await;
    // Sessions that were opened meanwhile, and know no better.
    let sessions = "select count(*) >= 2 from pg_stat_activity where datname = current_database() \
        and pid <> pg_backend_pid() and backend_type = 'client backend'";
    until(&admin, "it has come back", sessions).await;
    let reset = format!("alter database {} reset default_transaction_read_only", db.name());
    admin.batch_execute(&reset).await.unwrap();
    let beats = "select count(*) = 1 from integration.processes where beat_at > $1";
    let off: std::time::SystemTime = admin.query_one("select clock_timestamp()", &[]).await.unwrap().get(0);
    soon("it beats again", async {
        while !admin.query_one(beats, &[&off]).await.unwrap().get::<_, bool>(0) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let id = plain_insert(&admin, "billing", "1").await;
    assert_eq!(told.next().await.id, id);
    consumer.shutdown().await.unwrap();
}
