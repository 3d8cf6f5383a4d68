//! A settle that cannot succeed holds nobody.

use std::sync::Arc;

use doorbell::{BrokerConfig, ConsumerConfig, Outcome};
use tokio::sync::Semaphore;

use super::{LEAVE_OUT, LEFT_IN, MEND, REFUSE, as_refused, aside, one_bad_among};
use crate::support::{Database, bells_only, count, plain_insert, row, seen, until, until_status};

#[tokio::test(flavor = "multi_thread")]
async fn an_outcome_that_is_refused_is_owed_and_the_only_worker_goes_on() {
    let later = Outcome::retry_after(std::time::Duration::from_secs(3600), "later");
    for (outcome, verb, ends, refuse) in [
        (Outcome::Done, "complete", "completed", REFUSE),
        (Outcome::reject("no"), "reject", "failed", REFUSE),
        (later.clone(), "retry", "scheduled", REFUSE),
        (Outcome::Done, "complete", "completed", LEAVE_OUT),
        (later, "retry", "scheduled", LEAVE_OUT),
    ] {
        let db = Database::new().await;
        let client = db.client().await;
        let bad = one_bad_among(&client, "billing", 0).await;
        let gate = Arc::new(Semaphore::new(0));
        let (tell, mut told) = seen();
        let broker = db.broker_with(BrokerConfig::default()).await;
        let config = ConsumerConfig { concurrency: 1, ..bells_only() };
        let (opened, answer) = (gate.clone(), outcome.clone());
        let consumer = broker.consumer("billing").config(config).fallback(move |delivery| {
            let (tell, gate, answer) = (tell.clone(), gate.clone(), answer.clone());
            async move {
                tell.send(delivery.id)?;
                gate.acquire().await?.forget();
                Ok(if delivery.payload().contains("tenant") { Outcome::Done } else { answer })
            }
        });
        let consumer = consumer.start().await.unwrap();
        assert_eq!(told.next().await, bad);
        client.batch_execute(refuse).await.unwrap();
        opened.add_permits(1);
        until(&client, "it is owed", "select count(*) = 1 from integration.set_aside_now").await;
        let sqlstate = if refuse == REFUSE { "23514" } else { "27000" };
        assert_eq!(aside(&client, bad).await, (verb.to_owned(), sqlstate.to_owned()));
        // The slot is free, and maintenance and the heartbeat go on.
        let next = plain_insert(&client, "billing", "{\"tenant\": 1}").await;
        assert_eq!(told.next().await, next);
        opened.add_permits(1);
        until_status(&client, next, "completed").await;
        client.batch_execute(if refuse == REFUSE { MEND } else { LEFT_IN }).await.unwrap();
        let settled = until_status(&client, bad, ends).await;
        assert_eq!(settled.attempt, 1);
        assert_eq!(told.rest().count(), 0, "it ran once");
        consumer.shutdown().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_owed_is_written_although_who_handled_it_is_gone() {
    let db = Database::new().await;
    let client = db.client().await;
    let bad = one_bad_among(&client, "billing", 3).await;
    let claim = "select integration.register('me', 'host', 1, '', '1', '{}', 60000); \
        create temp table mine as select * from integration.claim('billing', 'me', 10)";
    client.batch_execute(claim).await.unwrap();
    client.batch_execute(REFUSE).await.unwrap();
    let settle = "select count(*) from (select array_agg(id) ids, array_agg(attempt) attempts, array_agg(created_at) created, \
            array_agg('complete'::text) done, array_agg(null::text) none, array_agg(null::bigint) no from mine) m, \
        integration.settle_or_owe('me', m.ids, m.attempts, m.created, m.done, m.none, m.no) s where s.status = $1";
    let of = async |status: &str| client.query_one(settle, &[&status]).await.unwrap().get::<_, i64>(0);
    assert_eq!(of("completed").await, 3);
    assert_eq!(aside(&client, bad).await, as_refused("complete"));
    assert_eq!(count(&client, "select integration.deregister('me')::bigint").await, 0, "its outcome is known");
    assert_eq!(count(&client, "select integration.rescue()::bigint").await, 0);
    assert_eq!(row(&client, bad).await.status, "processing");
    client.batch_execute(MEND).await.unwrap();
    client.batch_execute("select integration.rescue()").await.unwrap();
    let ended = row(&client, bad).await;
    assert_eq!((ended.status.as_str(), ended.attempt, ended.crash_count), ("completed", 1, 0));
    assert_eq!(count(&client, "select count(*) from integration.set_aside").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_owed_is_forgotten_when_the_message_is_somebody_elses() {
    let db = Database::new().await;
    let client = db.client().await;
    one_bad_among(&client, "billing", 0).await;
    client.batch_execute("select * from integration.claim('billing', 'me', p_lease => '1 h')").await.unwrap();
    client.batch_execute(REFUSE).await.unwrap();
    let settle = "select integration.settle_or_owe('me', array[id], array[attempt], array[created_at], '{complete}', '{null}', \
        '{null}') from integration.data_staging";
    client.batch_execute(settle).await.unwrap();
    let cancel = "alter table integration.data_staging drop constraint has_tenant; \
        select integration.cancel(array(select id from integration.data_staging)); \
        select integration.look_again(); select integration.rescue()";
    client.batch_execute(cancel).await.unwrap();
    assert_eq!(count(&client, "select count(*) from integration.data_staging where status = 'cancelled'").await, 1);
    assert_eq!(count(&client, "select count(*) from integration.set_aside").await, 0);
}
