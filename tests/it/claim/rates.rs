//! Targets of which only so many messages may be claimed within a time, by all together.

use std::collections::BTreeSet;

use doorbell::{ConsumerConfig, Message, Outcome};

use crate::support::{Database, bells_only, count, message, seen, stop_the_clock, until_count};

pub(crate) async fn limited(db: &Database, max: i32, per: &str) {
    let limit = format!("select integration.set_target('billing', '{{\"rate_max\": {max}, \"rate_per\": \"{per}\"}}')");
    db.client().await.batch_execute(&limit).await.unwrap();
}

pub(crate) async fn publish(db: &Database, messages: i64) {
    let messages: Vec<Message> = (0..messages).map(|n| message("billing", n)).collect();
    db.broker().await.producer("shop").publish_many(&messages).await.unwrap();
}

/// The most messages that were claimed within any such time, by the history.
pub(crate) async fn most_within(db: &Database, per: &str) -> i64 {
    let most = format!(
        "select coalesce(max(n), 0) from (select count(*) over (order by a.created_at range between '{per}'::interval \
             preceding and current row) as n \
           from integration.audit_log a where a.action = 'claimed') w"
    );
    count(&db.client().await, &most).await
}

#[tokio::test]
async fn no_more_than_so_many_are_claimed_within_the_time_and_the_next_when_the_first_are_so_old() {
    let db = Database::new().await;
    let client = db.client().await;
    stop_the_clock(&client, 0).await;
    limited(&db, 5, "10 s").await;
    publish(&db, 30).await;
    let claim = "select count(*) from integration.claim('billing', 'me', 3, p_lease => '1 h')";
    let opens = async || {
        client.query_one("select integration.opens_in('billing')", &[]).await.unwrap().get::<_, Option<i64>>(0)
    };
    let mut claimed = Vec::new();
    for second in [0, 4, 9, 10, 13, 14, 15, 20, 21] {
        stop_the_clock(&client, second).await;
        claimed.push((second, count(&client, claim).await, opens().await));
    }
    assert_eq!(
        claimed,
        [
            (0, 3, Some(0)),
            (4, 2, Some(6000)),
            (9, 0, Some(1000)),
            (10, 3, Some(4000)),
            (13, 0, Some(1000)),
            (14, 2, Some(6000)),
            (15, 0, Some(5000)),
            (20, 3, Some(4000)),
            (21, 0, Some(3000)),
        ]
    );
    // A clock that was set back keeps nobody waiting for longer than the time.
    stop_the_clock(&client, 5).await;
    assert_eq!(count(&client, claim).await, 3);
    // Nothing found costs nothing, and what is rolled back was never claimed.
    stop_the_clock(&client, 59).await;
    assert_eq!(count(&client, "select count(*) from integration.claim('billing', 'me', 3, '{none}', '1 h')").await, 0);
    client.batch_execute("begin").await.unwrap();
    assert_eq!(count(&client, claim).await, 3);
    client.batch_execute("rollback").await.unwrap();
    assert_eq!(opens().await, Some(0));
    assert_eq!(count(&client, "select count(*) from integration.claim('billing', 'me', 9, p_lease => '1 h')").await, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn several_processes_keep_the_rate_together_also_when_one_is_gone_and_each_wakes_when_it_may_go_on() {
    let db = Database::new().await;
    limited(&db, 10, "300 ms").await;
    db.client().await.batch_execute("select integration.set_audit_level('all')").await.unwrap();
    let (tell, mut told) = seen();
    let mut consumers = Vec::new();
    for _ in 0..3 {
        let tell = tell.clone();
        // What wakes them is that the time is over, and nothing else.
        let config = ConsumerConfig { concurrency: 4, ..bells_only() };
        let broker = db.broker().await;
        let consumer = broker.consumer("billing").config(config).on("n", move |n: i64, _| {
            let _ = tell.send(n);
            async { Ok(Outcome::Done) }
        });
        consumers.push((consumer.start().await.unwrap(), broker));
    }
    publish(&db, 45).await;
    let mut all: BTreeSet<i64> = told.take(20).await.into_iter().collect();
    // Without a word to anybody.
    drop(consumers.pop());
    while all.len() < 45 {
        all.insert(told.next().await);
    }
    let client = db.client().await;
    until_count(&client, "completed", 45).await;
    for (consumer, _) in consumers {
        consumer.shutdown().await.unwrap();
    }
    let most = most_within(&db, "299 ms").await;
    assert!((1..=10).contains(&most), "{most}");
}
