//! Who subscribes late gets what was published before, once each, whatever is being published meanwhile.

use doorbell::operate::{Moment, Subscription};
use tokio_postgres::{Client, IsolationLevel};

use super::{said, subscribed, to};
use crate::support::{Database, count, plain_insert, soon};

/// Published to `orders`, and not exactly once at the warehouse; an on_complete of `delete` leaves the audit log to say.
const WRONG: &str = "select count(*) from integration.data_staging d where d.target_app = 'orders' and 1 <> ( \
    select count(*) from integration.data_staging c where c.target_app = 'warehouse' and c.origin_id = d.id)";

fn late() -> Subscription {
    let since = Some(Moment::Ago(std::time::Duration::from_secs(86_400)));
    Subscription { since, ..to("orders", "warehouse") }
}

async fn keep_until_caught_up(client: &Client) {
    let caught_up = "select count(*) from integration.subscriptions where caught_up_at is null";
    soon("the subscriber catches up", async {
        while count(client, caught_up).await > 0 {
            client.batch_execute("select integration.keep_topics(10)").await.unwrap();
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn history_waits_for_every_transaction_that_could_not_see_the_subscription() {
    let db = Database::new().await;
    let client = db.client().await;
    let operator = subscribed(&db, &["billing"]).await;
    let (mut writes, mut looks) = (db.client().await, db.client().await);
    plain_insert(&client, "orders", "0").await;
    // One has published, the other has a snapshot and nothing else yet.
    let writing = writes.transaction().await.unwrap();
    writing.batch_execute("select integration.publish('shop', 'orders', 'n', '1')").await.unwrap();
    let looking = looks.build_transaction().isolation_level(IsolationLevel::RepeatableRead).start().await.unwrap();
    looking.batch_execute("select 1 from integration.settings").await.unwrap();
    operator.subscribe(&late()).await.unwrap();
    let keep = "select integration.keep_topics()";
    for _ in 0..4 {
        client.batch_execute(keep).await.unwrap();
    }
    writing.commit().await.unwrap();
    for _ in 0..4 {
        client.batch_execute(keep).await.unwrap();
    }
    let copies = "select count(*) from integration.data_staging where target_app = 'warehouse'";
    assert_eq!(count(&client, copies).await, 0, "one may still publish and not know");
    plain_insert(&client, "orders", "2").await;
    assert_eq!(count(&client, copies).await, 1, "what is published now does not wait");
    looking.batch_execute("select integration.publish('shop', 'orders', 'n', '3')").await.unwrap();
    looking.commit().await.unwrap();
    keep_until_caught_up(&client).await;
    assert_eq!(count(&client, WRONG).await, 0);
    let replayed = "select concat(data::text, ':', headers ->> 'replayed') from integration.data_staging \
        where target_app = 'warehouse' order by data::text";
    assert_eq!(said(&client, replayed).await, "0:true 1:true 2: 3:true");
    assert_eq!(count(&client, "select count(*) from integration.live_copies").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn history_waits_for_nobody_who_began_when_the_subscription_could_be_seen() {
    let db = Database::new().await;
    let client = db.client().await;
    let operator = subscribed(&db, &["billing"]).await;
    let (mut before, mut after) = (db.client().await, db.client().await);
    plain_insert(&client, "orders", "0").await;
    let running = before.transaction().await.unwrap();
    running.batch_execute("select integration.publish('shop', 'orders', 'n', '1')").await.unwrap();
    operator.subscribe(&late()).await.unwrap();
    client.batch_execute("select integration.keep_topics()").await.unwrap();
    let open = after.transaction().await.unwrap();
    open.batch_execute("select integration.publish('shop', 'orders', 'n', '2')").await.unwrap();
    running.commit().await.unwrap();
    keep_until_caught_up(&client).await;
    open.commit().await.unwrap();
    assert_eq!(count(&client, WRONG).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_and_history_are_what_was_published_exactly_while_many_publish() {
    let db = Database::new().await;
    let client = db.client().await;
    let operator = subscribed(&db, &["billing"]).await;
    let publishers: Vec<_> = (0..4)
        .map(|n| {
            let url = db.url.clone();
            tokio::spawn(async move {
                let mut client = crate::support::connect(&url).await;
                for round in 0..40 {
                    let level = match (n + round) % 2 {
                        0 => IsolationLevel::ReadCommitted,
                        _ => IsolationLevel::RepeatableRead,
                    };
                    let tx = client.build_transaction().isolation_level(level).start().await.unwrap();
                    for _ in 0..3 {
                        let sql = "insert into integration.data_staging (source_app, target_app, record_type, data) \
                            select 'shop', 'orders', 'n', '1' from generate_series(1, 2)";
                        tx.batch_execute(sql).await.unwrap();
                        tokio::task::yield_now().await;
                    }
                    match round % 5 {
                        0 => tx.rollback().await.unwrap(),
                        _ => tx.commit().await.unwrap(),
                    }
                }
            })
        })
        .collect();
    let some = "select count(*) >= 60 from integration.data_staging where target_app = 'orders'";
    crate::support::until(&client, "some are published", some).await;
    operator.subscribe(&late()).await.unwrap();
    keep_until_caught_up(&client).await;
    for publisher in publishers {
        soon("a publisher ends", publisher).await.unwrap();
    }
    assert_eq!(count(&client, "select count(*) from integration.data_staging where target_app = 'orders'").await, 768);
    assert_eq!(count(&client, WRONG).await, 0);
    client.batch_execute("select integration.keep_topics()").await.unwrap();
    assert_eq!(count(&client, "select count(*) from integration.live_copies").await, 0);
    assert_eq!(count(&client, "select count(*) from integration.check_counters()").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_is_gone_when_history_is_copied_is_not_made_again() {
    let db = Database::new().await;
    let client = db.client().await;
    let operator = subscribed(&db, &["billing"]).await;
    operator.subscribe(&late()).await.unwrap();
    plain_insert(&client, "orders", "1").await;
    client.batch_execute("delete from integration.data_staging where target_app = 'warehouse'").await.unwrap();
    keep_until_caught_up(&client).await;
    assert_eq!(count(&client, "select count(*) from integration.data_staging where target_app = 'warehouse'").await, 0);
    let again = operator.subscribe(&late()).await.unwrap_err();
    assert_eq!(again.kind(), doorbell::ErrorKind::IllegalTransition);
}
