//! Why a message is not running: every answer, in the situation it is about.

mod asked;
mod ended;
mod gates;
mod takeover;

use doorbell::{ConsumerConfig, Outcome};
use tokio_postgres::Client;

use crate::support::{Database, connect, count, grants, plain_insert, soon, stop_the_clock as at, until};

/// What `integration.explain` says, in a transaction that may change nothing and lock no row.
async fn explain(client: &Client, id: i64) -> Vec<(String, String, Option<String>)> {
    client.batch_execute("begin transaction read only").await.unwrap();
    let rows = client.query("select code, sentence, fix from integration.explain($1)", &[&id]).await.unwrap();
    client.batch_execute("commit").await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect()
}

async fn codes(client: &Client, id: i64) -> Vec<String> {
    explain(client, id).await.into_iter().map(|(code, ..)| code).collect()
}

/// Checks the cause, its sentence and its fix.
#[track_caller]
fn is(causes: &[(String, String, Option<String>)], code: &str, sentence: &str, fix: Option<&str>) {
    let (is_code, is_sentence, is_fix) = &causes[0];
    assert_eq!((is_code.as_str(), is_sentence.as_str(), is_fix.as_deref()), (code, sentence, fix));
}

async fn run(client: &Client, sql: &str) {
    client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
}

/// A process that is alive for 15 seconds.
async fn register(client: &Client, owner: &str, targets: &str) {
    let sql =
        format!("select integration.register('{owner}', 'host-1', 4242, 'billing-service', '1.0', '{targets}', 15000)");
    run(client, &sql).await;
}

const EIGHT: &str = r#"{"billing": {"types": null, "capacity": 8}}"#;

#[tokio::test]
async fn a_message_that_is_being_handled_says_by_whom_and_whether_they_live() {
    let db = Database::new().await;
    let client = db.client().await;
    at(&client, 0).await;
    register(&client, "one", EIGHT).await;
    for _ in 0..3 {
        plain_insert(&client, "billing", "1").await;
    }
    run(
        &client,
        "select integration.claim('billing', 'one'); select integration.claim('billing', 'me', p_lease => '1 min')",
    )
    .await;
    run(
        &client,
        "update integration.data_staging set status = 'processing', updated_at = integration.clock() where id = 3",
    )
    .await;
    at(&client, 3).await;
    let sentence = "one (host-1, process 4242) has been handling attempt 1 for 3.0 s; its last beat was 3.0 s ago";
    is(&explain(&client, 1).await, "processing", sentence, None);
    let sentence = "me has been handling attempt 1 for 3.0 s; its lease runs for 57 s";
    is(&explain(&client, 2).await, "processing", sentence, None);
    let sentence = "plain SQL that named no owner has been handling attempt 0 for 3.0 s; if it died, nothing can tell";
    let fix = "make sure that whoever took it has ended, then: update integration.data_staging \
               set status = 'pending' where id = 3 and status = 'processing' and attempt = 0";
    is(&explain(&client, 3).await, "foreign_claim", sentence, Some(fix));
    run(&client, "insert into integration.targets (target_app, foreign_lease) values ('billing', '10 min')").await;
    let sentence =
        "plain SQL that named no owner has been handling attempt 0 for 3.0 s; it goes back 2026-03-01 12:10:00Z";
    is(&explain(&client, 3).await, "foreign_claim", sentence, Some(fix));

    let dead = |why: &str, who: &str, seconds: &str| {
        format!("attempt 1 was claimed {seconds} s ago by {who}, {why}; any consumer process or maintenance returns it")
    };
    // Its connection ended with its process: the session lock, taken on this server, is free.
    run(&client, "update integration.processes set locked_on = pg_postmaster_start_time()").await;
    let one = "one (host-1, process 4242)";
    let sentence = dead("whose connection is gone and whose last beat was 3.0 s ago", one, "3.0");
    is(&explain(&client, 1).await, "owner_dead", &sentence, Some("select integration.rescue()"));
    run(&client, "select integration.hold_session_lock('one')").await;
    assert_eq!(codes(&client, 1).await, ["processing"]);
    at(&client, 70).await;
    let sentence = dead("whose lease ran out 55 s ago", one, "70");
    is(&explain(&client, 1).await, "owner_dead", &sentence, Some("select integration.rescue()"));
    let sentence = dead("its lease ran out 10 s ago", "me", "70");
    is(&explain(&client, 2).await, "owner_dead", &sentence, Some("select integration.rescue()"));
    run(&client, "delete from integration.processes").await;
    let sentence = dead("which is not registered any more", "one", "70");
    is(&explain(&client, 1).await, "owner_dead", &sentence, Some("select integration.rescue()"));
    // And what it says is true.
    run(&client, "select integration.maintain()").await;
    assert_eq!(codes(&client, 1).await, ["no_consumer", "suspect"]);
}

#[tokio::test]
async fn without_a_consumer_that_takes_it_a_message_says_which_ones_there_are() {
    let db = Database::new().await;
    let client = db.client().await;
    at(&client, 0).await;
    let id = plain_insert(&client, "billing", "1").await;
    register(&client, "elsewhere", r#"{"shipping": {"capacity": 8}}"#).await;
    let sentence = "no live consumer of billing is registered";
    let start = "start the service that handles the messages of billing";
    is(&explain(&client, id).await, "no_consumer", sentence, Some(start));
    register(&client, "one", r#"{"billing": {"types": ["b", "a"], "capacity": 8}}"#).await;
    let sentence = "the only live consumer process of billing does not accept n; it accepts: a, b";
    let start = "start a consumer of billing that accepts n";
    is(&explain(&client, id).await, "type_not_accepted", sentence, Some(start));
    register(&client, "two", r#"{"billing": {"types": ["c"], "capacity": 8}}"#).await;
    let sentence = "none of the 2 live consumer processes of billing accepts n; they accept: a, b, c";
    is(&explain(&client, id).await, "type_not_accepted", sentence, Some(start));
    run(&client, "delete from integration.processes where owner = 'two'").await;
    at(&client, 20).await;
    let sentence = "no live consumer of billing is registered; the last one, one, stopped beating 20 s ago";
    let start = "start the service that handles the messages of billing; the last one was billing-service on host-1";
    is(&explain(&client, id).await, "no_consumer", sentence, Some(start));
    // A real consumer, which says of itself what it accepts.
    let db = Database::new().await;
    let (client, broker) = (db.client().await, db.broker().await);
    let id = plain_insert(&client, "it's billing", "1").await;
    let fix = explain(&client, id).await[0].2.clone();
    assert_eq!(fix.as_deref(), Some("start the service that handles the messages of it's billing"));
    let config = ConsumerConfig { record_types: Some(vec!["other".to_owned()]), ..ConsumerConfig::default() };
    let consumer = broker.consumer("it's billing").config(config).fallback(|_| async { Ok(Outcome::Done) });
    let consumer = consumer.start().await.unwrap();
    until(&client, "it is registered", "select count(*) = 1 from integration.processes where targets <> '{}'").await;
    assert_eq!(codes(&client, id).await, ["type_not_accepted"]);
    consumer.shutdown().await.unwrap();
    broker.close().await;
    assert_eq!(codes(&client, id).await, ["no_consumer"]);
}

#[tokio::test]
async fn a_message_in_the_queue_says_how_many_are_before_it_and_whether_workers_are_free() {
    let db = Database::new().await;
    let client = db.client().await;
    at(&client, 0).await;
    register(&client, "one", r#"{"billing": {"types": null, "capacity": 2}}"#).await;
    for _ in 0..4 {
        plain_insert(&client, "billing", "1").await;
    }
    run(&client, "update integration.data_staging set priority = (id = 4)::int").await;
    // The one of higher priority is the next, whatever its age.
    let sentence = "nothing holds it: it is the next, and 2 of 2 workers of billing are free";
    is(&explain(&client, 4).await, "ready", sentence, None);
    let sentence = "one message is before it; 2 of 2 workers of billing are free";
    is(&explain(&client, 1).await, "queued", sentence, None);
    let sentence = "3 messages are before it; 2 of 2 workers of billing are free";
    is(&explain(&client, 3).await, "queued", sentence, None);
    run(&client, "select integration.claim('billing', 'one', 2)").await;
    let sentence = "all 2 workers of billing are busy; one message is before it";
    is(&explain(&client, 3).await, "busy", sentence, None);
    // Cancelled, and its handler does not know it before the next beat.
    run(&client, "select integration.cancel(array[4])").await;
    let sentence = "all 2 workers of billing are busy; one message is before it; a handler whose message was \
                    cancelled is being stopped";
    is(&explain(&client, 3).await, "busy", sentence, None);
    at(&client, 1).await;
    run(&client, "select integration.beat('one', 15000)").await;
    assert_eq!(codes(&client, 3).await, ["queued"]);
    run(&client, "select integration.claim('billing', 'one', 1)").await;
    run(
        &client,
        "insert into integration.data_staging (source_app, target_app, record_type, data, priority) \
                  select 'shop', 'billing', 'n', '1', n % 3 from generate_series(1, 20000) n",
    )
    .await;
    let sentence = "all 2 workers of billing are busy; more than 10000 messages are before it";
    is(&explain(&client, 3).await, "busy", sentence, None);
}

#[tokio::test]
async fn a_suspect_says_that_it_runs_alone() {
    let db = Database::new().await;
    let client = db.client().await;
    at(&client, 0).await;
    for _ in 0..2 {
        plain_insert(&client, "billing", "1").await;
    }
    run(&client, "select integration.claim('billing', 'dead', 2, p_lease => '-1 s'); select integration.maintain()")
        .await;
    register(&client, "one", EIGHT).await;
    let sentence = "a consumer died while handling it: it is a suspect, and a consumer process of billing runs \
                    one suspect at a time; one other is before it";
    is(&explain(&client, 2).await, "suspect", sentence, None);
    let claimed = "select count(*) from integration.claim('billing', 'one', 10)";
    assert_eq!(count(&client, claimed).await, 0, "claim leaves it alone");
    assert_eq!(count(&client, "select id from integration.claim_suspect('billing', 'one')").await, 1);
}

#[tokio::test]
async fn a_row_that_another_transaction_holds_says_whose() {
    let db = Database::new().await;
    let (client, holder) = (db.client().await, db.client().await);
    register(&client, "one", EIGHT).await;
    let id = plain_insert(&client, "billing", "1").await;
    run(&holder, "set application_name = 'an editor'; begin; update integration.data_staging set priority = 1").await;
    let causes = soon("it does not wait", explain(&client, id)).await;
    assert_eq!(causes[0].0, "locked");
    assert!(causes[0].1.contains("(an editor), open for"), "{}", causes[0].1);
    let pid = count(&holder, "select pg_backend_pid()::bigint").await;
    let fix = causes[0].2.as_deref().unwrap();
    assert!(fix.starts_with("have that transaction ended; ") && fix.contains(&format!("({pid})")), "{fix}");
    assert_eq!(count(&client, "select count(*) from integration.claim('billing', 'one')").await, 0);
    run(&holder, "rollback").await;
    assert_eq!(codes(&client, id).await, ["ready"]);
    // A consumer that handles messages in transactions does the same, and is no trouble.
    register(&client, "one", r#"{"billing": {"types": null, "capacity": 8, "holds": true}}"#).await;
    run(&holder, "set application_name = 'billing-service'; begin; select integration.hold('billing', 1)").await;
    let causes = explain(&client, id).await;
    assert_eq!((causes[0].0.as_str(), &causes[0].2), ("held", &None));
    assert!(causes[0].1.starts_with("a consumer is handling it in a transaction: session "), "{}", causes[0].1);
    run(&holder, "rollback").await;
    assert_eq!(codes(&client, id).await, ["ready"]);
}

#[tokio::test]
async fn the_rights_of_a_consumer_are_enough_to_explain_what_is_there() {
    let db = Database::new().await;
    let client = db.client().await;
    let role = format!("consumer_{}", db.name());
    run(
        &client,
        &format!(
            "create role {role} login; {}; select integration.grant_to('{role}', 'look')",
            grants("consumer", &role)
        ),
    )
    .await;
    for _ in 0..4 {
        plain_insert(&client, "billing", "1").await;
    }
    run(
        &client,
        "select integration.claim('billing', 'me', 3, p_lease => '1 h'); select integration.snooze(1, 1, 'me', '1 h'); \
         select integration.reject(2, 1, 'me', 'no such card')",
    )
    .await;
    let consumer = connect(&db.url.replace("user=postgres", &format!("user={role}"))).await;
    for (id, code) in [(1, "scheduled"), (2, "failed"), (3, "processing"), (4, "no_consumer")] {
        assert_eq!(codes(&consumer, id).await[0], code);
    }
    run(&client, "begin; update integration.data_staging set priority = 1 where id = 4").await;
    let locked = &explain(&consumer, 4).await[0];
    assert!(locked.0 == "locked" && !locked.1.contains("open for"), "{}", locked.1);
}
