//! What becomes of completed messages, per target.

use std::time::Duration;

use doorbell::{ConsumerConfig, Outcome};
use futures::FutureExt;

use crate::support::{Database, bells_only, count, message, until};

#[tokio::test(flavor = "multi_thread")]
async fn completed_messages_are_kept_archived_or_deleted_as_their_target_says() {
    let db = Database::new().await;
    let client = db.client().await;
    let settings = "insert into integration.targets (target_app, on_complete) values ('archiving', 'archive'), ('deleting', 'delete')";
    client.batch_execute(settings).await.unwrap();
    let broker = db.broker().await;
    let mut consumers = Vec::new();
    for target in ["keeping", "archiving", "deleting"] {
        let messages: Vec<_> = (0..50).map(|n| message(target, n)).collect();
        broker.producer("shop").publish_many(&messages).await.unwrap();
        let consumer = broker.consumer(target).config(bells_only()).fallback(|delivery| async move {
            Ok(if delivery.json::<i64>()? == 7 { Outcome::reject("seven") } else { Outcome::Done })
        });
        consumers.push(consumer.start().await.unwrap());
    }
    let open = "select not exists (select from integration.data_staging where status not in ('completed', 'failed'))";
    until(&client, "everything has ended", open).await;
    for (target, kept, archived) in [("keeping", 50, 0), ("archiving", 1, 49), ("deleting", 1, 0)] {
        let rows = format!("select count(*) from integration.data_staging where target_app = '{target}'");
        assert_eq!(count(&client, &rows).await, kept, "{target}");
        let moved = format!(
            "select count(*) from integration.data_staging_archive where target_app = '{target}' \
             and status = 'completed' and attempt >= 1 and processed_at is not null and owner is null"
        );
        assert_eq!(count(&client, &moved).await, archived, "{target}");
        let told = format!(
            "select count(*) from integration.audit_log where target_app = '{target}' and action = 'completed' \
             and new_status = 'completed' and owner is not null"
        );
        assert_eq!(count(&client, &told).await, 49, "{target}");
    }
    for consumer in consumers {
        consumer.shutdown().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn in_transactions_the_same_becomes_of_them() {
    let db = Database::new().await;
    let client = db.client().await;
    let settings = "insert into integration.targets (target_app, on_complete) values ('archiving', 'archive')";
    client.batch_execute(settings).await.unwrap();
    let broker = db.broker().await;
    let consumer = broker
        .consumer("archiving")
        .config(ConsumerConfig { hold: Some(Duration::from_secs(1)), ..bells_only() })
        .on_tx("n", |_: i64, _, _| async { Ok(Outcome::Done) }.boxed());
    let consumer = consumer.start().await.unwrap();
    let messages: Vec<_> = (0..50).map(|n| message("archiving", n)).collect();
    broker.producer("shop").publish_many(&messages).await.unwrap();
    until(&client, "the table is empty", "select not exists (select from integration.data_staging)").await;
    let archived = "select count(*) from integration.data_staging_archive where attempt >= 1 and status = 'completed'";
    assert_eq!(count(&client, archived).await, 50);
    consumer.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_late_settle_of_an_archived_message_says_that_it_is_gone() {
    let db = Database::new().await;
    let client = db.client().await;
    client
        .batch_execute("insert into integration.targets (target_app, on_complete) values ('n', 'archive')")
        .await
        .unwrap();
    client.execute("select integration.publish('shop', 'n', 'n', '1')", &[]).await.unwrap();
    client.execute("select integration.claim('n', 'me', p_lease => '1 min')", &[]).await.unwrap();
    client.execute("select integration.complete(1, 1, 'me')", &[]).await.unwrap();
    let late = client.execute("select integration.complete(1, 1, 'me')", &[]).await.unwrap_err();
    let late = late.as_db_error().unwrap();
    assert_eq!((late.code().code(), late.detail()), ("MQ001", Some("the message is no longer in data_staging")));
}
