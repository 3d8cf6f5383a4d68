//! Outages that last longer than the lease, in which nobody dies: the server is away, frozen, or has set its clock.

use doorbell_server::Server;

use super::{Long, all_have_looked_around, broker, nothing_happened_to, pace, server};
use crate::support::{Database, connect, count, message, plain_insert, stop_the_clock, until_count};

const MESSAGES: usize = 4;

/// Two processes with messages in hand; the server is away three times, and the same handlers finish.
async fn cost_nothing(away: impl AsyncFn(&mut Server)) {
    let (mut server, url) = server().await;
    let long = Long::default();
    let brokers = [broker(&url).await, broker(&url).await];
    let consumers = [long.consumer(&brokers[0], "t0").await, long.consumer(&brokers[1], "t1").await];
    for n in 0..MESSAGES {
        brokers[0].producer("shop").publish(&message(["t0", "t1"][n % 2], 1)).await.unwrap();
    }
    let client = connect(&url).await;
    until_count(&client, "processing", MESSAGES).await;
    // The claims are on disk: what a crash takes back is another scenario.
    client.batch_execute("checkpoint").await.unwrap();
    for outage in ["the first outage", "the second outage", "the third outage"] {
        away(&mut server).await;
        let client = connect(&url).await;
        all_have_looked_around(&client, brokers.len()).await;
        nothing_happened_to(&client, MESSAGES, outage).await;
    }
    long.let_go();
    until_count(&connect(&url).await, "completed", MESSAGES).await;
    assert_eq!(long.begun(), MESSAGES, "handlers were begun");
    for consumer in consumers {
        consumer.shutdown().await.unwrap();
    }
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_down_for_longer_than_the_lease_costs_no_message_anything() {
    cost_nothing(async |server| {
        server.kill().await.unwrap();
        pace::outlast_the_lease().await;
        server.start_again().await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_frozen_for_longer_than_the_lease_costs_no_message_anything() {
    cost_nothing(async |server| {
        server.pause();
        pace::outlast_the_lease().await;
        server.resume();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_whose_clock_is_set_costs_no_message_anything() {
    let db = Database::new().await;
    let client = db.client().await;
    let long = Long::default();
    let brokers = [broker(&db.url).await, broker(&db.url).await];
    let consumers = [long.consumer(&brokers[0], "t0").await, long.consumer(&brokers[1], "t1").await];
    for n in 0..MESSAGES {
        brokers[0].producer("shop").publish(&message(["t0", "t1"][n % 2], 1)).await.unwrap();
    }
    until_count(&client, "processing", MESSAGES).await;
    for step in ["1 minute", "1 hour", "0"] {
        let clock = format!(
            "create or replace function integration.clock() returns timestamptz language sql volatile parallel safe \
             return clock_timestamp() + interval '{step}'"
        );
        client.batch_execute(&clock).await.unwrap();
        all_have_looked_around(&client, brokers.len()).await;
        nothing_happened_to(&client, MESSAGES, &format!("the clock was set {step} ahead")).await;
    }
    long.let_go();
    until_count(&client, "completed", MESSAGES).await;
    assert_eq!(long.begun(), MESSAGES, "handlers were begun");
    for consumer in consumers {
        consumer.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn a_server_that_is_frozen_in_the_midst_of_a_rescue_finds_nobody_dead() {
    let db = Database::new().await;
    let client = db.client().await;
    client
        .batch_execute(
            "create sequence public.asked;
             create table public.frozen as select 0 as after;
             create or replace function integration.clock() returns timestamptz language sql volatile parallel safe
                 return timestamptz '2030-01-01 UTC' + case when nextval('public.asked') > (select after from public.frozen)
                     then interval '1 hour' else interval '0' end",
        )
        .await
        .unwrap();
    let id = plain_insert(&client, "billing", "1").await;
    // However often the time was asked for when it jumps.
    for after in 0..40 {
        let before = format!(
            "update public.frozen set after = 1000000000;
             delete from integration.processes;
             update integration.contact set seen_at = integration.clock(), resumed_at = integration.clock() - interval '1 hour';
             select integration.register('p', 'host', 1, 'app', '1', '{{}}', 15000);
             update integration.data_staging set status = 'pending' where id = {id};
             select integration.claim('billing', 'p');
             update public.frozen set after = {after};
             select setval('public.asked', 1, false)"
        );
        client.batch_execute(&before).await.unwrap();
        assert_eq!(count(&client, "select integration.rescue()::bigint").await, 0, "frozen after {after}");
        assert_eq!(count(&client, "select count(*) from integration.processes").await, 1, "frozen after {after}");
    }
    let asked = count(&client, "select last_value from public.asked").await;
    assert!(asked < 40, "void: the time was asked for {asked} times");
}

/// All come back at once after an outage: one listener takes its session lock, and its row with it, at the very moment in which
/// another process has all leases begin anew.
#[tokio::test]
async fn a_lease_that_could_not_begin_anew_because_its_row_was_in_use_has_begun_anew_all_the_same() {
    let db = Database::new().await;
    let (client, listener) = (db.client().await, db.client().await);
    let at = async |second| stop_the_clock(&client, second).await;
    at(0).await;
    let both = "update integration.contact set seen_at = integration.clock(), resumed_at = integration.clock(); \
        select integration.register(o, 'host', 1, 'app', '1', '{}', 6000) from unnest('{busy, other}'::text[]) o";
    client.batch_execute(both).await.unwrap();
    at(1).await;
    let beat = "select integration.beat(o, 6000) from unnest('{busy, other}'::text[]) o; select integration.rescue()";
    client.batch_execute(beat).await.unwrap();
    let id = plain_insert(&client, "billing", "1").await;
    client.batch_execute("select integration.claim('billing', 'busy')").await.unwrap();
    // The server is away for longer than the lease, and nobody looks.
    at(21).await;
    listener.batch_execute("begin; select integration.hold_session_lock('busy')").await.unwrap();
    let rescue = "select integration.rescue()::bigint";
    assert_eq!(count(&client, rescue).await, 0);
    // Without a session lock, as before the outage.
    listener.batch_execute("rollback; select pg_advisory_unlock_all()").await.unwrap();
    for second in [22, 24, 26] {
        at(second).await;
        client.batch_execute("select integration.beat('other', 6000)").await.unwrap();
        assert_eq!(count(&client, rescue).await, 0, "at {second} s");
    }
    let there = "select count(*) from integration.processes where owner = 'busy'";
    assert_eq!(count(&client, there).await, 1, "it has had no time to beat");
    assert_eq!(crate::support::row(&client, id).await.crash_count, 0);
    // Nor did it beat in a lease from then on: dead.
    at(28).await;
    assert_eq!(count(&client, rescue).await, 1);
    assert_eq!(count(&client, there).await, 0);
}
