//! The verbs that make a client short, as a client calls them.

use serde_json::{Value, json};
use tokio_postgres::Client;

use crate::support::{Database, Ear, count, plain_insert, row, until};

/// What take answers.
pub(super) struct Took {
    pub(super) messages: Value,
    may_wait: bool,
    due_in_ms: Option<i64>,
    barrier: Option<i64>,
}

impl Took {
    fn ids(&self) -> Vec<i64> {
        self.messages.as_array().unwrap().iter().map(|message| message["id"].as_i64().unwrap()).collect()
    }

    /// What settle_many is given when all of them come to the same end.
    pub(super) fn all(&self, outcome: &Value) -> Value {
        let settled = |message: &Value| {
            let mut settled = message.as_object().unwrap().clone();
            settled.extend(outcome.as_object().unwrap().clone());
            Value::Object(settled)
        };
        self.messages.as_array().unwrap().iter().map(settled).collect()
    }
}

/// Says hello for billing on a connection of its own.
pub(super) async fn hello(client: &Client) -> String {
    let sql = "select owner from integration.hello('billing', p_backend => pg_backend_pid())";
    client.query_one(sql, &[]).await.unwrap().get(0)
}

pub(super) async fn take(client: &Client, owner: &str, limit: i32, barrier: Option<i64>) -> Took {
    let sql = "select t.* from integration.take('billing', $1, $2, p_barrier => $3, p_backend => pg_backend_pid()) t";
    let row = client.query_one(sql, &[&owner, &limit, &barrier]).await.unwrap();
    Took { messages: row.get(0), may_wait: row.get(1), due_in_ms: row.get(2), barrier: row.get(3) }
}

async fn settle(client: &Client, owner: &str, verdicts: &Value) -> Vec<(i64, String)> {
    let sql = "select * from integration.settle_many('billing', $1, $2) order by id";
    client.query(sql, &[&owner, verdicts]).await.unwrap().iter().map(|row| (row.get(0), row.get(1))).collect()
}

/// Takes until the answer is to wait; returns the barrier.
async fn park(client: &Client, owner: &str) -> i64 {
    let mut barrier = None;
    loop {
        let took = take(client, owner, 10, barrier).await;
        assert_eq!(took.ids(), [] as [i64; 0]);
        barrier = took.barrier;
        if took.may_wait {
            return barrier.expect("who may wait is parked");
        }
    }
}

const LEFT: &str = "select (select count(*) from pg_listening_channels()) + \
    (select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid())";
const PARKED: &str = "select integration.somebody_is_parked('billing')";

async fn is_parked(client: &Client) -> bool {
    client.query_one(PARKED, &[]).await.unwrap().get(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn hello_leaves_nothing_in_a_session_that_may_be_anybodys() {
    let db = Database::new().await;
    let client = db.client().await;
    for backend in ["null", "pg_backend_pid() + 1"] {
        let sql = format!("select owner, direct from integration.hello('billing', p_backend => {backend})");
        let row = client.query_one(&sql, &[]).await.unwrap();
        assert!(!row.get::<_, bool>(1));
        let sql = format!("select may_wait, barrier from integration.take('billing', $1, 10, p_backend => {backend})");
        let took = client.query_one(&sql, &[&row.get::<_, String>(0)]).await.unwrap();
        assert_eq!((took.get(0), took.get::<_, Option<i64>>(1)), (true, None));
        assert_eq!(count(&client, LEFT).await, 0);
    }
    hello(&client).await;
    assert_eq!(count(&client, LEFT).await, 3, "two channels and the session lock");
    let registered = "select count(*) from integration.processes where targets @> '{\"billing\": {\"capacity\": 1}}'";
    assert_eq!(count(&client, registered).await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn take_says_to_wait_only_when_whoever_publishes_rings() {
    let db = Database::new().await;
    let (client, publisher) = (db.client().await, db.client().await);
    let owner = hello(&client).await;
    // Has looked for somebody parked, and found nobody.
    publisher.batch_execute("begin").await.unwrap();
    let early = plain_insert(&publisher, "billing", "1").await;
    let took = take(&client, &owner, 10, None).await;
    assert!(!took.may_wait && took.barrier.is_some());
    for _ in 0..3 {
        let again = take(&client, &owner, 10, took.barrier).await;
        assert_eq!((again.may_wait, again.barrier), (false, took.barrier), "a silent publisher is at work");
    }
    publisher.batch_execute("commit").await.unwrap();
    let mut took = take(&client, &owner, 10, took.barrier).await;
    assert_eq!(took.ids(), [early]);
    // Transactions of other databases of the server count, too.
    while !took.may_wait {
        took = take(&client, &owner, 10, took.barrier).await;
    }
    // A lone message leaves it parked, so that each bell costs one call; a full batch does not.
    assert!(is_parked(&publisher).await);
    let sql = "select array_agg(id) from integration.publish_many('[\
        {\"source_app\": \"shop\", \"target_app\": \"billing\", \"record_type\": \"n\", \"data\": 1}, \
        {\"source_app\": \"shop\", \"target_app\": \"billing\", \"record_type\": \"n\", \"data\": 2}]')";
    let both: Vec<i64> = publisher.query_one(sql, &[]).await.unwrap().get(0);
    let took = take(&client, &owner, 2, took.barrier).await;
    assert_eq!((took.ids(), took.may_wait, took.barrier), (both, false, None));
    assert!(!is_parked(&publisher).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_limit_of_none_take_gives_the_latch_back() {
    let db = Database::new().await;
    let (client, other) = (db.client().await, db.client().await);
    let owner = hello(&client).await;
    let barrier = park(&client, &owner).await;
    assert!(is_parked(&other).await);
    plain_insert(&other, "billing", "1").await;
    let took = take(&client, &owner, 0, Some(barrier)).await;
    assert_eq!((took.ids(), took.barrier), (vec![], None));
    assert!(!is_parked(&other).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn take_says_when_the_next_message_is_due_and_takes_it_then() {
    let db = Database::new().await;
    let client = db.client().await;
    let owner = hello(&client).await;
    let later = "select integration.publish('shop', 'billing', 'n', '1', p_delay => '1 h')";
    client.batch_execute(later).await.unwrap();
    let barrier = park(&client, &owner).await;
    let due = take(&client, &owner, 10, Some(barrier)).await.due_in_ms.unwrap();
    assert!((3_000_000..=3_600_000).contains(&due), "{due}");
    client.batch_execute("update integration.data_staging set available_at = now()").await.unwrap();
    assert_eq!(take(&client, &owner, 10, Some(barrier)).await.ids(), [1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn suspects_are_taken_one_at_a_time_beside_the_others() {
    let db = Database::new().await;
    let client = db.client().await;
    let owner = hello(&client).await;
    for n in ["1", "2", "3"] {
        plain_insert(&client, "billing", n).await;
    }
    let suspicion = "update integration.data_staging set crash_count = 1 where id < 3";
    client.batch_execute(suspicion).await.unwrap();
    let first = take(&client, &owner, 10, None).await;
    assert_eq!(first.ids(), [1, 3]);
    let waiting = park(&client, &owner).await;
    let waiting = take(&client, &owner, 10, Some(waiting)).await;
    assert_eq!((waiting.ids(), waiting.due_in_ms), (vec![], Some(100)), "nobody rings when the suspect is settled");
    settle(&client, &owner, &first.all(&json!({"outcome": "complete"}))).await;
    assert_eq!(take(&client, &owner, 10, waiting.barrier).await.ids(), [2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn settle_many_gives_each_message_its_end_and_names_those_that_were_its_own() {
    let db = Database::new().await;
    let client = db.client().await;
    let owner = hello(&client).await;
    for n in 1..=6 {
        plain_insert(&client, "billing", &n.to_string()).await;
    }
    let took = take(&client, &owner, 10, None).await;
    let mut verdicts = took.all(&json!({"outcome": "complete"}));
    for (at, verdict) in [
        (1, json!({"outcome": "retry", "reason": "card declined", "delay_ms": 60_000})),
        (2, json!({"outcome": "reject", "reason": "no such order"})),
        (3, json!({"outcome": "snooze", "delay_ms": 3_600_000})),
        (4, json!({"outcome": "release"})),
        (5, json!({"outcome": "complete", "attempt": 2})),
    ] {
        verdicts[at].as_object_mut().unwrap().extend(verdict.as_object().unwrap().clone());
    }
    let expected = ["completed", "scheduled", "failed", "scheduled", "pending"];
    let expected: Vec<_> = (1..).zip(expected.map(str::to_owned)).collect();
    assert_eq!(settle(&client, &owner, &verdicts).await, expected);
    assert_eq!(row(&client, 2).await.reason(), "card declined");
    assert_eq!(row(&client, 4).await.scheduled_in.map(f64::round), Some(3600.0));
    // A call whose answer was lost is repeated.
    assert_eq!(settle(&client, &owner, &verdicts).await, []);
    assert_eq!(settle(&client, &owner, &json!([])).await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn settle_many_owes_what_somebody_has_locked_and_the_rest_is_settled() {
    let db = Database::new().await;
    let (client, somebody) = (db.client().await, db.client().await);
    let owner = hello(&client).await;
    for n in ["1", "2"] {
        plain_insert(&client, "billing", n).await;
    }
    let took = take(&client, &owner, 10, None).await;
    somebody.batch_execute("begin; select from integration.data_staging where id = 1 for update").await.unwrap();
    let settled = settle(&client, &owner, &took.all(&json!({"outcome": "complete"}))).await;
    assert_eq!(settled, [(1, "owed".to_owned()), (2, "completed".to_owned())]);
}

#[tokio::test(flavor = "multi_thread")]
async fn settle_many_tells_the_breaker_of_what_failed_and_what_is_down() {
    let db = Database::new().await;
    let client = db.client().await;
    let owner = hello(&client).await;
    let breakers = "select count(*) from integration.breakers where state = $1";
    for (outcome, told) in [("complete", None), ("retry", Some("closed")), ("unavailable", Some("open"))] {
        plain_insert(&client, "billing", "1").await;
        let took = take(&client, &owner, 10, None).await;
        settle(&client, &owner, &took.all(&json!({"outcome": outcome, "reason": "no way to the bank"}))).await;
        assert_eq!(count(&client, "select count(*) from integration.breakers").await, i64::from(told.is_some()));
        if let Some(state) = told {
            assert_eq!(client.query_one(breakers, &[&state]).await.unwrap().get::<_, i64>(0), 1, "{outcome}");
        }
    }
    let (why, ok): (String, i64) = {
        let row = client.query_one("select reason, window_ok from integration.breakers", &[]).await.unwrap();
        (row.get(0), row.get(1))
    };
    assert_eq!((why.as_str(), ok), ("no way to the bank", 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_says_hello_again_is_the_same_process_and_gives_back_what_it_does_not_know() {
    let db = Database::new().await;
    let client = db.client().await;
    let owner = hello(&client).await;
    for n in ["1", "2"] {
        plain_insert(&client, "billing", n).await;
    }
    let known = take(&client, &owner, 1, None).await;
    // The answer is lost with its connection.
    take(&client, &owner, 1, None).await;
    drop(client);
    let client = db.client().await;
    until(
        &client,
        "its session is over",
        "select count(*) = 0 from pg_stat_activity where pid in (select pid from pg_locks \
        where locktype = 'advisory') and datname = current_database() and pid <> pg_backend_pid()",
    )
    .await;
    let sql = "select owner, given_back from integration.hello('billing', $1, p_in_hand => $2, p_backend => pg_backend_pid())";
    let again = client.query_one(sql, &[&owner, &known.messages]).await.unwrap();
    assert_eq!((again.get::<_, String>(0), again.get::<_, i32>(1)), (owner.clone(), 1));
    assert_eq!((row(&client, 1).await.status, row(&client, 2).await.status), ("processing".into(), "pending".into()));
    client.batch_execute("delete from integration.processes").await.unwrap();
    let another: String = client.query_one(sql, &[&owner, &known.messages]).await.unwrap().get(0);
    assert_ne!(another, owner, "it was taken for dead");
}

#[tokio::test(flavor = "multi_thread")]
async fn keep_alive_renews_rescues_folds_and_says_what_was_taken() {
    let db = Database::new().await;
    let (client, second, dead) = (db.client().await, db.client().await, db.client().await);
    client.batch_execute("update integration.settings set rescue_grace = '0 s'").await.unwrap();
    let lost = hello(&dead).await;
    plain_insert(&client, "billing", "1").await;
    assert_eq!(take(&dead, &lost, 1, None).await.ids(), [1]);
    drop(dead);
    let owner = hello(&client).await;
    plain_insert(&client, "billing", "2").await;
    let mine = take(&client, &owner, 1, None).await;
    let sql = "select renewed, lost from integration.keep_alive($1, $2)";
    let beat = async |owner: &str| {
        let row = second.query_one(sql, &[&owner, &mine.messages]).await.unwrap();
        (row.get::<_, bool>(0), row.get::<_, Vec<i64>>(1))
    };
    while row(&client, 1).await.status != "pending" {
        assert_eq!(beat(&owner).await, (true, vec![]));
    }
    assert_eq!(row(&client, 1).await.crash_count, 1);
    client.batch_execute("select integration.cancel('{2}')").await.unwrap();
    assert_eq!(beat(&owner).await, (true, vec![2]));
    assert_eq!(count(&client, "select count(*) from integration.deltas").await, 0);
    assert!(!beat(&lost).await.0, "the dead one may not go on");
    let refused = client.query_one("select integration.take('billing', $1)", &[&lost]).await.unwrap_err();
    assert_eq!(refused.code().unwrap().code(), "MQ001");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_jsonb_publishes_with_all_that_a_message_has() {
    let db = Database::new().await;
    let client = db.client().await;
    let mut ear = Ear::on(&db, &["billing"]).await;
    let message = json!({
        "source_app": "shop", "target_app": "billing", "record_type": "order.placed", "data": {"id": 7}, "priority": 3,
        "headers": {"a": "b"}, "ordering_key": "k", "dedup_key": "d", "max_retries": 5,
    });
    let publish = "select integration.publish($1)";
    let id: i64 = client.query_one(publish, &[&message]).await.unwrap().get(0);
    assert_eq!(client.query_one(publish, &[&message]).await.unwrap().get::<_, i64>(0), id, "a duplicate");
    assert_eq!(ear.heard().await.len(), 1);
    let stored = client.query_one("select to_jsonb(d) from integration.data_staging d", &[]).await.unwrap();
    let stored: Value = stored.get(0);
    for (key, value) in message.as_object().unwrap() {
        assert_eq!(&stored[key], value, "{key}");
    }
    let plain = json!({"source_app": "shop", "target_app": "billing", "record_type": "x", "data": null});
    let mut later = plain.clone();
    later["delay_ms"] = json!(3_600_000);
    let mut keyed = plain.clone();
    keyed["dedup_key"] = json!("d");
    let sql = "select array_agg(p.id order by p.ordinal) from integration.publish_many($1) p";
    let ids: Vec<i64> = client.query_one(sql, &[&json!([plain, later, keyed])]).await.unwrap().get(0);
    assert_eq!(ids[2], id);
    assert_eq!(
        (row(&client, ids[0]).await.status, row(&client, ids[1]).await.status),
        ("pending".into(), "scheduled".into())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_verbs_do_not_understand_they_refuse_and_say_why() {
    let client = Database::new().await.client().await;
    let refusals = [
        ("publish('{\"target\": \"billing\"}')", "a message has no \"target\""),
        ("publish('[]'::jsonb)", "a message is an object, and this is array"),
        ("publish_many('{}'::jsonb)", "messages are given as an array of objects"),
        (
            "publish_many('[{\"source_app\": \"a\"}, {\"source_app\": \"b\"}]'::jsonb)",
            "messages of 2 sources are not published at once",
        ),
        ("settle_many('billing', 'me', '{}')", "messages are given as an array of objects, and this is {}"),
        (
            "settle_many('billing', 'me', '[{\"id\": 1, \"attempt\": 1, \"outcome\": \"complete\"}]')",
            "not a message in hand and what became of it: \
             {\"id\": 1, \"attempt\": 1, \"outcome\": \"complete\", \"created_at\": null}",
        ),
        (
            "keep_alive('me', '[{\"id\": 1}]')",
            "not a message in hand: {\"id\": 1, \"attempt\": null, \"outcome\": null, \"created_at\": null}",
        ),
    ];
    for (call, why) in refusals {
        let error = client.query(&format!("select integration.{call}"), &[]).await.unwrap_err();
        let error = error.as_db_error().unwrap();
        assert_eq!((error.code().code(), error.message()), ("MQ002", why), "{call}");
    }
}
