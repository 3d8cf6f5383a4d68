//! A database whose every setting is another than ours.

use doorbell::{
    ErrorKind,
    doctor::{Level, Options},
};

use super::migrations::{catalog, functions};
use crate::support::{Database, echo, message};

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
