//! What people add to the tables, take from them and forbid: each step of the maintenance stands on its own.

use super::aside;
use crate::{
    operate::old_messages,
    support::{Database, count, echo, message},
};

const ARCHIVED: &str = "select count(*) from integration.data_staging_archive";

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_key_of_a_users_table_keeps_its_message_and_no_other() {
    let db = Database::new().await;
    let client = db.client().await;
    old_messages(&client, "billing", 10).await;
    let reference = "create table orders (message bigint references integration.data_staging (id)); \
        insert into orders select min(id) from integration.data_staging";
    client.batch_execute(reference).await.unwrap();
    let kept = count(&client, "select message from orders").await;
    let broker = db.broker().await;
    assert_eq!(broker.operator().maintain().await.unwrap().archived, 9);
    assert_eq!(aside(&client, kept).await, ("archive".to_owned(), "23503".to_owned()));
    client.batch_execute("drop table orders; select integration.look_again()").await.unwrap();
    assert_eq!(broker.operator().maintain().await.unwrap().archived, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_that_users_add_do_not_stop_the_archive_and_shared_ones_go_with_the_message() {
    let db = Database::new().await;
    let client = db.client().await;
    let columns = "alter table integration.data_staging_archive add region text, add shop text; \
        alter table integration.data_staging add shop text default 'north', add colour text default 'red', add \"n 1\" integer";
    client.batch_execute(columns).await.unwrap();
    old_messages(&client, "billing", 10).await;
    assert_eq!(db.broker().await.operator().maintain().await.unwrap().archived, 10);
    assert_eq!(count(&client, &format!("{ARCHIVED} where shop = 'north' and region is null")).await, 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_trigger_that_forbids_ddl_keeps_partitions_from_being_made_and_nothing_else() {
    let db = Database::new().await;
    let client = db.client().await;
    old_messages(&client, "billing", 10).await;
    let forbid = "create function forbid() returns event_trigger language plpgsql as $$ begin raise 'no DDL here'; end $$; \
        drop table integration.audit_log_default; \
        create table integration.audit_log_default partition of integration.audit_log default; \
        create event trigger forbid on ddl_command_start when tag in ('CREATE TABLE', 'ALTER TABLE', 'DROP TABLE') \
            execute function forbid()";
    client.batch_execute(forbid).await.unwrap();
    let clock = "create or replace function integration.clock() returns timestamptz language sql \
        as $$ select clock_timestamp() + interval '2 years' $$";
    client.batch_execute(clock).await.unwrap();
    let all = "select (rescued is not null and promoted is not null and folded > 0 and archived = 10 \
        and expired is not null)::integer::bigint from integration.maintain()";
    assert_eq!(count(&client, all).await, 1);
    assert_eq!(count(&client, ARCHIVED).await, 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn emptied_tables_stop_nothing() {
    let db = Database::new().await;
    let client = db.client().await;
    let broker = db.broker().await;
    let (consumer, mut told) = echo(&broker, "billing").await;
    let producer = broker.producer("shop");
    producer.publish(&message("billing", 1)).await.unwrap();
    told.next().await;
    crate::support::until_count(&client, "completed", 1).await;
    let tables = "select string_agg(c.oid::regclass::text, ', ') from pg_class c \
        where c.relnamespace = 'integration'::regnamespace and c.relkind in ('r', 'p') and not c.relispartition \
        and c.relname not in ('migrations', 'code', 'fingerprints', 'processes')";
    let tables: String = client.query_one(tables, &[]).await.unwrap().get(0);
    // Whoever locks every table at once may be chosen for a deadlock with the consumer's process.
    while let Err(error) = client.batch_execute(&format!("truncate {tables}")).await {
        assert_eq!(error.code().unwrap().code(), "40P01", "{error:?}");
    }
    client.batch_execute("select integration.maintain()").await.unwrap();
    producer.publish(&message("billing", 2)).await.unwrap();
    told.next().await;
    crate::support::until_count(&client, "completed", 1).await;
    assert_eq!(broker.operator().maintain().await.unwrap().archived, 0);
    consumer.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_cannot_be_counted_keeps_no_other_from_being_folded() {
    let db = Database::new().await;
    let client = db.client().await;
    let check = "alter table integration.totals add constraint no_mailer check (target_app <> 'mailer')";
    client.batch_execute(check).await.unwrap();
    for target in ["billing", "mailer", "shipping"] {
        client.batch_execute(&format!("select integration.publish('shop', '{target}', 'n', '1')")).await.unwrap();
    }
    assert_eq!(count(&client, "select integration.fold()").await, 2);
    assert_eq!(count(&client, "select count(*) from integration.counters").await, 2);
    assert_eq!(count(&client, "select count(*) from integration.check_counters()").await, 0, "nothing is lost by that");
}
