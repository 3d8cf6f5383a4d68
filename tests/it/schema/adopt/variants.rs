//! Tables that are not quite the document's, and are adopted all the same.

use doorbell::migrate::Adopt;

use super::{adopt, contents, document, populated, same};
use crate::support::{Database, count, row};

#[tokio::test(flavor = "multi_thread")]
async fn other_types_of_the_same_meaning_are_adopted() {
    let (db, client) = populated().await;
    // The document's tables and their history had another idea of everything that can be read without loss.
    let altered = "
        create type public.states as enum ('pending', 'processing', 'completed', 'failed');
        alter table integration.audit_log drop constraint audit_log_staging_id_fkey;
        drop index integration.idx_processing, integration.idx_cleanup;
        alter table integration.data_staging
            alter column id type integer, alter column source_app type text, alter column data type json,
            alter column status drop default, alter column status type public.states using status::public.states,
            alter column priority type smallint, alter column created_at type timestamptz,
            alter column error_message type varchar(1000);
        alter table integration.data_staging_archive alter column data type json";
    client.batch_execute(altered).await.unwrap();
    let before = contents(&client).await;
    let broker = db.broker().await;
    adopt(&broker).await;
    same(&before, &contents(&client).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_that_are_missing_or_null_get_their_defaults() {
    let db = Database::empty().await;
    let client = db.client().await;
    client.batch_execute("create schema integration").await.unwrap();
    client.batch_execute(&document()).await.unwrap();
    let reduced = "
        drop table integration.audit_log;
        alter table integration.data_staging drop column retry_count, drop column error_message, drop column processed_at;
        insert into integration.data_staging (source_app, target_app, record_type, data, priority, created_at, updated_at)
        values ('erp', 'billing', 'n', '1', null, null, '2026-01-02 03:04:05')";
    client.batch_execute(reduced).await.unwrap();
    let mut how = Adopt::default();
    how.times_in = Some("America/New_York".to_owned());
    let report = db.broker().await.adopt(&how).await.unwrap();
    assert_eq!(report.adopted.unwrap().rows["data_staging.pending"], 1);
    let message = row(&client, 1).await;
    assert_eq!((&*message.status, message.retry_count, message.error), ("pending", 0, None));
    let same = "select count(*) from integration.data_staging where priority = 0 and created_at = updated_at \
        and created_at = '2026-01-02 08:04:05 UTC'";
    assert_eq!(count(&client, same).await, 1);
    assert_eq!(count(&client, "select count(*) from integration.settings where audit_retention < '1 year'").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_column_that_may_stay_behind_stays_with_its_table() {
    let (db, client) = populated().await;
    client.batch_execute("alter table integration.data_staging add column tenant text default 'x'").await.unwrap();
    let mut how = Adopt::default();
    how.leave = vec!["data_staging.tenant".to_owned()];
    let adoption = db.broker().await.adopt(&how).await.unwrap().adopted.unwrap();
    assert!(adoption.left.contains(&"the column data_staging.tenant text".to_owned()), "{:?}", adoption.left);
    let kept = format!("select count(*) from {}.data_staging where tenant = 'x'", adoption.before);
    assert_eq!(count(&client, &kept).await, 397);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_alone_is_adopted() {
    let (db, client) = populated().await;
    client.batch_execute("drop table integration.audit_log, integration.data_staging cascade").await.unwrap();
    let report = adopt(&db.broker().await).await;
    assert_eq!(report.adopted.unwrap().rows["data_staging_archive"], 3);
    assert_eq!(count(&client, "select count(*) from integration.data_staging_archive").await, 3);
    let id = crate::support::plain_insert(&client, "billing", "{}").await;
    assert_eq!(id, 11, "archived messages had up to 10");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_schema_of_the_document_becomes_an_installation_of_that_name() {
    let db = Database::empty().await;
    let client = db.client().await;
    client.batch_execute("create schema exchange").await.unwrap();
    client.batch_execute(&document().replace("integration.", "exchange.")).await.unwrap();
    let insert = "insert into exchange.data_staging (source_app, target_app, record_type, data) values ('integration', 'b', 'n', '1')";
    client.batch_execute(insert).await.unwrap();
    let settings =
        doorbell::Settings::parse(&db.url).unwrap().with_schema(doorbell::migrate::Schema::new("exchange").unwrap());
    let broker = doorbell::Broker::with_config(settings, doorbell::BrokerConfig::default()).await.unwrap();
    let adoption = adopt(&broker).await.adopted.unwrap();
    assert_eq!(adoption.before, "exchange_before_doorbell");
    assert_eq!(count(&client, "select count(*) from exchange.data_staging where source_app = 'integration'").await, 1);
    assert_eq!(count(&client, "select count(*) from exchange.check_counters()").await, 0);
}
