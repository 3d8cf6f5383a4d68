//! Following: each message and each change is told once, however late its transaction commits.

use std::collections::BTreeMap;

use doorbell::{
    Broker,
    operate::{AuditEvent, Follower},
};
use rand::{RngExt, SeedableRng, rngs::StdRng};

use crate::support::{Database, count, message, plain_insert, soon};

async fn following(broker: &Broker, target: Option<&str>) -> Follower {
    let mut follower = broker.operator().follow(target);
    assert_eq!(follower.events().await.unwrap(), [], "what was there before is not told");
    follower
}

fn told(events: &[AuditEvent]) -> Vec<(&str, i64)> {
    events.iter().map(|event| (event.action.as_str(), event.id.unwrap_or(0))).collect()
}

#[tokio::test]
async fn a_message_and_its_story_are_told_once_and_in_order() {
    let db = Database::new().await;
    let (client, broker) = (db.client().await, db.broker().await);
    plain_insert(&client, "billing", "0").await;
    let mut follower = following(&broker, Some("billing")).await;
    plain_insert(&client, "shipping", "1").await;
    let id = plain_insert(&client, "billing", "2").await;
    client
        .batch_execute(
            "select integration.claim('billing', 'me', 2, p_lease => '1 h'); \
             select integration.fail(1, 1, 'me', 'no'); select integration.complete(3, 1, 'me'); \
             select integration.pause('billing', 'enough'); select integration.pause('shipping')",
        )
        .await
        .unwrap();
    let events = follower.events().await.unwrap();
    assert_eq!(told(&events), [("published", id), ("errored", 1), ("completed", id), ("paused", 0)]);
    let errored = &events[1];
    assert_eq!((errored.attempt, errored.old_status.as_deref()), (Some(1), Some("processing")));
    assert_eq!((errored.owner.as_deref(), errored.record_type.as_deref()), (Some("me"), Some("n")));
    assert!(errored.details.as_deref().unwrap().contains(r#""reason": "no""#));
    assert_eq!(follower.events().await.unwrap(), []);
}

#[tokio::test]
async fn what_happened_a_moment_before_is_not_told_however_much_it_is() {
    let db = Database::new().await;
    let (client, broker) = (db.client().await, db.broker().await);
    // More than one look takes.
    let many = "insert into integration.data_staging (source_app, target_app, record_type, data) \
                select 'shop', 'billing', 'n', '1' from generate_series(1, 12000); \
                select integration.complete_many('me', array_agg(c.id), array_agg(c.attempt), array_agg(c.created_at)) \
                  from integration.claim('billing', 'me', 20000, p_lease => '1 h') c";
    client.batch_execute(many).await.unwrap();
    let mut follower = following(&broker, None).await;
    let id = plain_insert(&client, "billing", "1").await;
    assert_eq!(told(&follower.events().await.unwrap()), [("published", id)]);
    // And what happens afterwards is told, in as many calls as it takes.
    client.batch_execute(many).await.unwrap();
    let mut events = Vec::new();
    while events.len() < 24_001 {
        events.extend(follower.events().await.unwrap());
    }
    assert_eq!(events.len(), 24_001);
    assert_eq!(follower.events().await.unwrap(), []);
}

#[tokio::test]
async fn what_commits_late_is_told_when_it_does_and_what_is_rolled_back_never() {
    let db = Database::new().await;
    let (client, broker) = (db.client().await, db.broker().await);
    let (early, late, never) = (db.client().await, db.client().await, db.client().await);
    let old = plain_insert(&client, "billing", "0").await;
    // Begun, and its id taken, before anybody follows.
    early.batch_execute("begin").await.unwrap();
    let before = plain_insert(&early, "billing", "1").await;
    plain_insert(&client, "billing", "2").await;
    let mut follower = following(&broker, None).await;
    for session in [&late, &never] {
        session.batch_execute("begin").await.unwrap();
    }
    let first = plain_insert(&late, "billing", "3").await;
    late.execute("update integration.data_staging set status = 'cancelled' where id = $1", &[&old]).await.unwrap();
    plain_insert(&never, "billing", "4").await;
    let last = plain_insert(&client, "billing", "5").await;
    client.batch_execute("select integration.cancel('{3}')").await.unwrap();
    assert_eq!(told(&follower.events().await.unwrap()), [("published", last), ("cancelled", 3)]);
    assert_eq!(follower.events().await.unwrap(), []);
    late.batch_execute("commit").await.unwrap();
    never.batch_execute("rollback").await.unwrap();
    assert_eq!(told(&follower.events().await.unwrap()), [("published", first), ("cancelled", old)]);
    early.batch_execute("commit").await.unwrap();
    assert_eq!(told(&follower.events().await.unwrap()), [("published", before)]);
    assert_eq!(follower.events().await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_missed_or_told_twice_while_many_commit_out_of_order() {
    const WRITERS: u64 = 6;
    const ROUNDS: usize = 40;
    let db = Database::new().await;
    let broker = db.broker().await;
    let mut follower = following(&broker, None).await;
    let mut writers = tokio::task::JoinSet::new();
    for seed in 0..WRITERS {
        let (mut one, mut other, broker) = (db.client().await, db.client().await, broker.clone());
        writers.spawn(async move {
            let mut random = StdRng::seed_from_u64(seed);
            for round in 0..ROUNDS {
                let held = one.transaction().await.unwrap();
                let sql = "insert into integration.data_staging (source_app, target_app, record_type, data) \
                           values ('psql', 'billing', 'n', '1') returning id";
                let id: i64 = held.query_one(sql, &[]).await.unwrap().get(0);
                held.execute("select integration.cancel(array[$1::bigint])", &[&id]).await.unwrap();
                // Later ids become visible first.
                let passing = other.transaction().await.unwrap();
                passing.query_one(sql, &[]).await.unwrap();
                passing.commit().await.unwrap();
                if round % 8 == 0 {
                    let many: Vec<_> = (0..100).map(|n| message("billing", n)).collect();
                    broker.producer("shop").publish_many(&many).await.unwrap();
                }
                match random.random_range(0..4) {
                    0 => held.rollback().await.unwrap(),
                    _ => held.commit().await.unwrap(),
                }
            }
        });
    }
    let mut published: BTreeMap<i64, usize> = BTreeMap::new();
    let mut cancelled: BTreeMap<i64, usize> = BTreeMap::new();
    let mut running = true;
    while running {
        running = !writers.is_empty();
        while let Some(ended) = writers.try_join_next() {
            ended.unwrap();
        }
        for event in soon("an answer", follower.events()).await.unwrap() {
            let told = if event.action == "published" { &mut published } else { &mut cancelled };
            *told.entry(event.id.unwrap()).or_default() += 1;
        }
    }
    let client = db.client().await;
    for (what, told, query) in [
        ("published", published, "select id from integration.data_staging order by id"),
        ("cancelled", cancelled, "select id from integration.data_staging where status = 'cancelled' order by id"),
    ] {
        let there: Vec<i64> = client.query(query, &[]).await.unwrap().iter().map(|row| row.get(0)).collect();
        let wrong: Vec<_> = there.iter().filter(|id| told.get(id) != Some(&1)).collect();
        assert!(wrong.is_empty(), "{what}, but not told once: {wrong:?}");
        assert_eq!(told.len(), there.len(), "{what} although it is not there");
    }
    assert!(count(&client, "select count(*) from integration.data_staging").await > 500);
}
