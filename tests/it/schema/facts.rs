//! Facts that SQL and Rust share, and that settings decide: each has one owner.

use doorbell::Message;

use crate::support::{Database, count};

#[tokio::test(flavor = "multi_thread")]
async fn names_and_keys_have_the_lengths_that_the_schema_says() {
    let client = Database::new().await.client().await;
    assert_eq!(count(&client, "select integration.name_chars_max()::bigint").await, Message::NAME_CHARS_MAX as i64);
    assert_eq!(count(&client, "select integration.key_chars_max()::bigint").await, Message::KEY_CHARS_MAX as i64);
    let checks = "select count(*) from pg_constraint c where c.connamespace = 'integration'::regnamespace \
        and pg_get_constraintdef(c.oid) ~ 'char_length\\((target_app|record_type)\\)' \
        and (pg_get_constraintdef(c.oid) ~ format('<= %s\\)', integration.name_chars_max())) = $1";
    let agreeing: i64 = client.query_one(checks, &[&true]).await.unwrap().get(0);
    let differing: i64 = client.query_one(checks, &[&false]).await.unwrap().get(0);
    assert_eq!((agreeing, differing), (10, 0), "the tables of settings take the same names");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_dead_is_the_same_for_rescue_for_explain_and_for_what_is_due() {
    let db = Database::new().await;
    let client = db.client().await;
    let register = "select integration.register('gone', 'host', 1, '', '0.1.0', '{}', 3600000); \
        update integration.processes set locked_on = pg_postmaster_start_time(); \
        select integration.publish('shop', 'billing', 'n', '1'); \
        select * from integration.claim('billing', 'gone')";
    client.batch_execute(register).await.unwrap();
    let dead = async || {
        let due = "select count(*) from integration.maintenance_due() where task = 'rescue'";
        let told = "select count(*) from integration.explain(1) where code = 'owner_dead'";
        client.batch_execute("begin").await.unwrap();
        let rescued = count(&client, "select integration.rescue()::bigint").await;
        client.batch_execute("rollback").await.unwrap();
        [count(&client, due).await, count(&client, told).await, rescued]
    };
    for (grace, is_dead) in [("1 hour", 0), ("0", 1)] {
        client.execute(&format!("update integration.settings set rescue_grace = '{grace}'"), &[]).await.unwrap();
        assert_eq!(dead().await, [is_dead; 3], "{grace}");
    }
    // A session that has the lock is alive.
    let session = db.client().await;
    session.execute("select integration.hold_session_lock('gone')", &[]).await.unwrap();
    assert_eq!(dead().await, [0; 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn months_are_those_of_utc_whatever_the_database_is_set_to_and_wrong_bounds_are_healed() {
    let db = Database::new().await;
    let admin = db.client().await;
    for setting in ["timezone = 'Europe/Berlin'", "datestyle = 'SQL, DMY'"] {
        admin.batch_execute(&format!("alter database {} set {setting}", db.name())).await.unwrap();
    }
    let client = db.client().await;
    // As a session in Berlin reckons: an hour or two before the months of UTC.
    let wrong = "create table integration.audit_log_203104 partition of integration.audit_log \
        for values from ('2031-03-31 22:00:00Z') to ('2031-04-30 22:00:00Z')";
    client.batch_execute(wrong).await.unwrap();
    for month in 0..18 {
        let (year, month) = (2031 + month / 12, month % 12 + 1);
        let clock = format!(
            "create or replace function integration.clock() returns timestamptz language sql \
             as $$ select timestamptz '{year}-{month:02}-15 12:00:00Z' $$"
        );
        client.batch_execute(&clock).await.unwrap();
        client.batch_execute("select integration.ensure_partitions()").await.unwrap();
    }
    let client = admin;
    client.batch_execute("set timezone = 'UTC'; set datestyle = 'ISO'").await.unwrap();
    let wrong = "select count(*) from pg_class c join pg_inherits i on i.inhrelid = c.oid \
        where c.relname ~ '_203[12]..$' and c.relkind = 'r' \
          and pg_get_expr(c.relpartbound, c.oid) <> format('FOR VALUES FROM (%L) TO (%L)', \
              to_timestamp(right(c.relname, 6), 'YYYYMM'), to_timestamp(right(c.relname, 6), 'YYYYMM') + interval '1 month')";
    assert_eq!(count(&client, wrong).await, 0);
    let made = "select count(*) from pg_class where relname ~ '^(audit_log|data_staging_archive)_203[12]..$' \
        and relkind = 'r'";
    assert_eq!(count(&client, made).await, 2 * (18 + 3));
}
