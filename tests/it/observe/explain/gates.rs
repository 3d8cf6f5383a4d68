//! Gates: who closed one, and that claiming and explaining see the same.

use super::{EIGHT, codes, explain, is, register, run};
use crate::support::{Database, count, plain_insert, stop_the_clock as at};

/// What is advised about a breaker that is not closed.
const CLOSE: &str = "when what it guards is well: doorbell breaker close billing";

#[tokio::test]
async fn a_closed_gate_says_who_closed_it_why_and_how_to_open_it() {
    let db = Database::new().await;
    let client = db.client().await;
    at(&client, 0).await;
    register(&client, "one", EIGHT).await;
    let id = plain_insert(&client, "billing", "1").await;
    run(&client, "set application_name = 'anna'; select integration.pause('billing', 'the ledger is being moved')")
        .await;
    at(&client, 5).await;
    let sentence = "billing was paused by anna 5.0 s ago: the ledger is being moved";
    is(&explain(&client, id).await, "paused", sentence, Some("doorbell resume billing"));
    run(
        &client,
        "select integration.resume('billing'); select integration.open_breaker('billing', 'cards are down', '30 s')",
    )
    .await;
    at(&client, 10).await;
    let sentence = "the breaker billing was opened by anna 5.0 s ago: cards are down; canaries go through in 25 s";
    is(&explain(&client, id).await, "breaker_open", sentence, Some(CLOSE));
    run(&client, "select integration.open_breaker('billing')").await;
    let sentence = "the breaker billing was opened by anna 0.0 s ago; it stays open until somebody closes it";
    is(&explain(&client, id).await, "breaker_open", sentence, Some(CLOSE));
    // Canaries go through, and are on their way.
    run(&client, "select integration.open_breaker('billing', 'cards are down', '1 s')").await;
    at(&client, 12).await;
    assert_eq!(codes(&client, id).await, ["ready"]);
    for _ in 0..3 {
        plain_insert(&client, "billing", "1").await;
    }
    assert_eq!(count(&client, "select count(*) from integration.claim('billing', 'one', 100)").await, 3);
    at(&client, 13).await;
    let sentence = "the breaker billing has been half-open for 1.0 s (it was opened: cards are down); \
                    all its canaries are under way, 0 came back well";
    is(&explain(&client, 4).await, "breaker_half_open", sentence, Some(CLOSE));
    run(&client, "select integration.close_breaker('billing'); update integration.targets set max_in_flight = 3").await;
    let sentence = "3 messages of billing are being handled, and max_in_flight is 3";
    let fix = "wait until one of them has ended, or raise max_in_flight of billing";
    is(&explain(&client, 4).await, "in_flight_limit", sentence, Some(fix));
    run(&client, "update integration.targets set max_in_flight = null, rate_max = 3, rate_per = '1 min'").await;
    // Of the three claims above none was counted: there was no limit then.
    assert_eq!(codes(&client, 4).await, ["ready"]);
    run(&client, "begin; savepoint s").await;
    assert_eq!(count(&client, "select count(*) from integration.claim('billing', 'one', 100)").await, 1);
    run(
        &client,
        "rollback to s; update integration.targets set rate_max = 1; select integration.claim('billing', 'one', 100)",
    )
    .await;
    at(&client, 33).await;
    let limited = "select sentence || ' // ' || fix from integration.closed_gates('billing')";
    assert_eq!(
        client.query_one(limited, &[]).await.unwrap().get::<_, String>(0),
        "1 messages of billing were claimed within 60 s, and rate_max is 1; others may be in 40 s // \
         wait, or raise rate_max of billing"
    );
    run(&client, "rollback; update integration.targets set rate_max = null, max_in_flight = 3").await;
    at(&client, 13).await;
    // Several at once: each is told, in the order in which claiming meets them.
    run(&client, "select integration.pause('billing'); select integration.open_breaker('billing'); delete from integration.processes")
        .await;
    assert_eq!(codes(&client, 4).await, ["paused", "breaker_open", "in_flight_limit", "no_consumer"]);
}

/// Explaining must not drift from claiming and holding: the same states, asked and tried.
#[tokio::test]
async fn gates_are_closed_exactly_when_claiming_is_not_admitted_and_any_gate_keeps_from_holding() {
    let db = Database::new().await;
    let client = db.client().await;
    at(&client, 3600).await;
    plain_insert(&client, "billing", "1").await;
    plain_insert(&client, "billing", "2").await;
    run(&client, "select integration.claim('billing', 'me', p_lease => '1 h')").await;
    let claimed = "insert into integration.turns (target_app, claimed_at, claimed) \
        values ('billing', array[integration.clock() - interval '1 s', integration.clock()], '{5, 1}')";
    run(&client, claimed).await;
    let breakers = [
        "",
        "('billing', 'closed', null, 0, '0 s')",
        "('billing', 'open', null, 0, '0 s')",
        "('billing', 'open', integration.clock() + interval '1 s', 0, '0 s')",
        "('billing', 'open', integration.clock(), 0, '0 s')",
        "('billing', 'open', integration.clock() - interval '1 s', 0, '0 s')",
        "('billing', 'half_open', null, 2, '0 s')",
        "('billing', 'half_open', null, 0, '0 s')",
        "('billing', 'half_open', null, 0, '30 s')",
        "('billing', 'half_open', null, 0, '31 s')",
        "('other', 'open', null, 0, '0 s')",
        "('shared', 'open', null, 0, '0 s')",
    ];
    let mut admitted = 0;
    for paused in ["null", "integration.clock()"] {
        for (in_flight, rate) in [("null", "null"), ("1", "null"), ("2", "null"), ("null", "1"), ("null", "2")] {
            for key in ["null", "'shared'"] {
                for breaker in breakers {
                    run(&client, "truncate integration.targets, integration.breakers").await;
                    let target = format!(
                        "insert into integration.targets (target_app, paused_at, max_in_flight, breaker_key, rate_max) \
                         values ('billing', {paused}, {in_flight}, {key}, {rate})"
                    );
                    run(&client, &target).await;
                    if !breaker.is_empty() {
                        let breaker = format!(
                            "insert into integration.breakers (breaker_key, state, retry_at, canaries_left, changed_at) \
                             select k, s, r, c, integration.clock() - a::interval \
                               from (values {breaker}) v (k, s, r, c, a)"
                        );
                        run(&client, &breaker.replace("null,", "null::timestamptz,")).await;
                    }
                    let gates = "select count(*) from integration.closed_gates('billing')";
                    let closed = count(&client, gates).await > 0;
                    run(&client, "begin").await;
                    let claimed =
                        count(&client, "select count(*) from integration.claim('billing', 'you', p_lease => '1 h')")
                            .await;
                    run(&client, "rollback").await;
                    let state = format!(
                        "paused {paused}, max_in_flight {in_flight}, rate_max {rate}, breaker {key}: {breaker}"
                    );
                    assert_eq!(closed, claimed == 0, "{state}");
                    admitted += claimed;
                    let guarded = if key == "null" { "('billing'" } else { "('shared'" };
                    let breaks = breaker.starts_with(guarded) && !breaker.contains("closed");
                    let free = paused == "null" && in_flight == "null" && rate == "null" && !breaks;
                    run(&client, "begin").await;
                    let held = count(&client, "select count(h.id) from integration.hold('billing', 1) h").await;
                    run(&client, "rollback").await;
                    assert_eq!(held, i64::from(free), "{state}");
                }
            }
        }
    }
    assert!(admitted > 10, "some states let messages through");
    // A consumer that held messages has died: they are claimed with leases, and not held for a while.
    run(&client, "truncate integration.targets, integration.breakers").await;
    let leases = "insert into integration.targets (target_app, leases_until) \
        values ('billing', integration.clock() + interval '1 s')";
    run(&client, leases).await;
    assert_eq!(count(&client, "select count(h.id) from integration.hold('billing', 1) h").await, 0);
    assert_eq!(count(&client, "select count(*) from integration.closed_gates('billing')").await, 0);
    assert_eq!(count(&client, "select count(*) from integration.claim('billing', 'you', p_lease => '1 h')").await, 1);
}
