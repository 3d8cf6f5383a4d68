//! How the server runs the hot statements about keys: a right statement with a wrong plan costs ten times as much, and
//! nothing else tells.

use serde_json::Value;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio_postgres::{AsyncMessage, Client, NoTls, error::SqlState};

use super::cost::place;
use crate::support::{Database, count};

const MESSAGES: i64 = 20_000;
const BATCH: usize = 100;
/// Claims and completions before the plans are looked at: what they leave dead, nothing may remove.
const ROUNDS: usize = 40;

const EXPLAIN: &str = "set auto_explain.log_min_duration = 0; set auto_explain.log_nested_statements = on; \
    set auto_explain.log_analyze = on; set auto_explain.log_buffers = on; set auto_explain.log_timing = off; \
    set auto_explain.log_format = json; set client_min_messages = log";

/// A statement that is looked at: how it begins, and how many blocks it may read for each key and each message of a batch,
/// half as many more than it does. A probe of an index and its heap reads four.
const STATEMENTS: [(&str, &str, f64); 4] = [
    ("pick_keyed", "with keys as materialized", 20.0),
    ("key_blockers", "select k.target_app, k.key, b.id from unnest(p_targets, p_keys)", 8.0),
    ("step_forward, who is next", "select array_agg(h.id), array_agg(k.target_app)", 8.0),
    ("step_forward, stepping", "update integration.data_staging d set status = 'pending', behind_at = null", 18.0),
];

/// A session that says how its statements were run. `None`: the server has no module for that.
async fn explained(db: &Database) -> Option<(Client, UnboundedReceiver<Value>)> {
    let (client, mut connection) = tokio_postgres::connect(&db.url, NoTls).await.unwrap();
    let (tell, told) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(Ok(message)) = futures::future::poll_fn(|cx| connection.poll_message(cx)).await {
            if let AsyncMessage::Notice(notice) = message
                && let Some((_, plan)) = notice.message().split_once("plan:\n")
            {
                let _ = tell.send(serde_json::from_str(plan).unwrap());
            }
        }
    });
    // Messages with keys are claimed in no other, whatever the database says.
    client.batch_execute("set default_transaction_isolation = 'read committed'").await.unwrap();
    if let Err(error) = client.batch_execute("load 'auto_explain'").await {
        assert_eq!(error.code(), Some(&SqlState::UNDEFINED_FILE), "{error:?}");
        return None;
    }
    Some((client, told))
}

/// Claims a batch for an owner.
async fn claim(client: &Client, owner: &str, place: &str) -> usize {
    let claim = format!(
        "select id from integration.claim('billing', $1, {BATCH}, null, null, 16777216{place}, p_series => 20) \
         where attempt is not null"
    );
    client.query(&claim, &[&owner]).await.unwrap().len()
}

/// Completes all that an owner has.
async fn complete(client: &Client, owner: &str) {
    let complete = "select count(*) from (select array_agg(d.id) as ids, array_agg(d.attempt) as attempts, array_agg(d.created_at) as created \
          from integration.data_staging d where d.owner = $1 and d.status = 'processing') c, \
        integration.complete_many($1, c.ids, c.attempts, c.created)";
    client.query(complete, &[&owner]).await.unwrap();
}

/// Two owners in turns, so that each meets keys which the other one keeps busy, and what stood behind others steps forward.
async fn turn(client: &Client, place: &str) -> usize {
    let claimed = claim(client, "one", place).await + claim(client, "other", place).await;
    complete(client, "one").await;
    complete(client, "other").await;
    claimed
}

/// All nodes of a plan.
fn nodes(plan: &Value) -> Vec<&Value> {
    let below = plan["Plans"].as_array().into_iter().flatten();
    std::iter::once(plan).chain(below.flat_map(nodes)).collect()
}

fn number(node: &Value, name: &str) -> f64 {
    node[name].as_f64().unwrap_or_default()
}

/// What is wrong with a plan of a statement about so many keys.
fn faults(plan: &Value, keys: f64, blocks_max: f64) -> Vec<String> {
    let mut faults = Vec::new();
    let blocks = number(plan, "Shared Hit Blocks") + number(plan, "Shared Read Blocks");
    if blocks > (keys + BATCH as f64) * blocks_max {
        faults.push(format!("{blocks} blocks"));
    }
    for node in nodes(plan) {
        let (kind, loops) = (node["Node Type"].as_str().unwrap(), number(node, "Actual Loops"));
        let of_messages = node["Relation Name"] == "data_staging";
        if of_messages && !matches!(kind, "Index Scan" | "Index Only Scan" | "ModifyTable" | "LockRows") {
            faults.push(format!("{kind} of data_staging"));
        }
        // Once for each row of the other side: the square of what a batch has.
        if matches!(kind, "CTE Scan" | "Function Scan" | "Subquery Scan") && !node["CTE Name"].is_null() && loops > 1.0
        {
            faults.push(format!("{kind} of {} {loops} times", node["CTE Name"]));
        }
        let removed = (number(node, "Rows Removed by Filter") + number(node, "Rows Removed by Join Filter")) * loops;
        if of_messages && removed > 4.0 * (keys + BATCH as f64) {
            faults.push(format!("{kind} throws {removed} rows away"));
        }
    }
    faults
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hot_statements_about_keys_probe_indexes_once_for_each_key_when_the_horizon_is_pinned() {
    for keys in [1, 100, MESSAGES] {
        let db = Database::new().await;
        let Some((client, mut plans)) = explained(&db).await else {
            return println!("not looked at: this server has no auto_explain");
        };
        let fill = format!(
            "insert into integration.data_staging (source_app, target_app, record_type, data, ordering_key) \
             select 'shop', 'billing', 'n', to_jsonb(n), 'k' || n % {keys} from generate_series(1, {MESSAGES}) n; \
             insert into integration.processes (owner, host, pid, application, version, targets, lease_until) \
             select o, 'host', 1, 'app', '0', '{{}}', '2999-01-01' from unnest('{{one, other}}'::text[]) o"
        );
        client.batch_execute(&fill).await.unwrap();
        client.batch_execute("vacuum analyze integration.data_staging").await.unwrap();
        let (pin, other) = (db.client().await, db.client().await);
        let snapshot = "begin isolation level repeatable read; select count(*) from integration.data_staging";
        pin.batch_execute(snapshot).await.unwrap();
        let mut done = turn(&client, "").await;
        for _ in 0..ROUNDS {
            done += turn(&client, &place(&other).await).await;
        }
        println!("{keys} keys: {done} are done");
        client.batch_execute(EXPLAIN).await.unwrap();
        turn(&client, &place(&other).await).await;
        client.batch_execute("set client_min_messages = warning").await.unwrap();
        let behind = "select count(*) from integration.data_staging where behind_at is not null";
        println!("{keys} keys: {} stand behind others", count(&client, behind).await);
        let mut seen = vec![0; STATEMENTS.len()];
        while let Ok(plan) = plans.try_recv() {
            let text = plan["Query Text"].as_str().unwrap().split_whitespace().collect::<Vec<_>>().join(" ");
            let Some(at) = STATEMENTS.iter().position(|(_, begins, _)| text.starts_with(begins)) else { continue };
            seen[at] += 1;
            let (name, _, blocks_max) = STATEMENTS[at];
            let of = keys.min(BATCH as i64) as f64;
            let faults = faults(&plan["Plan"], of, blocks_max);
            let blocks = number(&plan["Plan"], "Shared Hit Blocks");
            println!("{keys} keys: {name}: {blocks} blocks");
            assert!(faults.is_empty(), "{keys} keys: {name}: {faults:?}\n{plan:#}");
        }
        // Of so many keys that none comes twice, nothing stands behind anything.
        let never = seen.iter().filter(|seen| **seen == 0).count();
        assert_eq!(never, if keys == MESSAGES { 2 } else { 0 }, "{keys} keys: {seen:?}");
    }
}
