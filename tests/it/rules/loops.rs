//! The reference loops of other languages, with a nemesis that kills them: nobody else rescues, promotes or maintains.

use std::process::Stdio;

use tokio::process::Command;
use tokio_postgres::Client;

use super::examples::python_with_psycopg2;
use crate::support::{Database, count, soon, until};

const LOOP: &str = include_str!("../../../examples/sql/consumer.sql");
/// 60 good ones, 10 that are due in a moment, 5 that fail once, and one that can never be handled.
const MESSAGES: &str = "update integration.settings set backoff_base_ms = 1, max_crashes = 100; \
    insert into integration.data_staging (source_app, target_app, record_type, data, status, available_at) \
    select 'shop', 'billing', 'order', jsonb_build_object('cents', n), case when n > 60 then 'scheduled' else 'pending' end, \
        case when n > 60 then integration.clock() + interval '100 ms' end from generate_series(1, 70) n; \
    select integration.publish('shop', 'billing', 'order', '{\"cents\": \"none\"}', p_max_retries => 1)";
const LEFT: &str =
    "select count(*) from integration.data_staging where status in ('pending', 'scheduled', 'processing')";
const DONE: &str = "select count(*) from integration.data_staging where status = 'completed'";

async fn is_right(client: &Client) {
    assert_eq!(count(client, DONE).await, 70);
    assert_eq!(count(client, "select count(*) from integration.data_staging where status = 'failed'").await, 1);
    assert_eq!(count(client, "select count(*) from ledger").await, 70, "each counts once");
    assert_eq!(count(client, "select count(distinct message) from ledger").await, 70);
    let deaths = "select count(*) from integration.totals t where t.action = 'rescued'";
    client.batch_execute("select integration.fold()").await.unwrap();
    assert!(count(client, deaths).await > 0, "the nemesis has killed somebody who had a message");
}

/// Holds up the work of whoever has a message.
const HOLD_UP: &str = "begin; lock table ledger in exclusive mode";
const AT_WORK: &str = "select exists (select from pg_locks where relation = 'ledger'::regclass and not granted)";

#[tokio::test(flavor = "multi_thread")]
async fn the_loop_in_sql_comes_to_the_end_of_everything_whoever_is_killed() {
    let db = Database::new().await;
    let (client, locker) = (db.client().await, db.client().await);
    client.batch_execute(LOOP).await.unwrap();
    client.batch_execute(MESSAGES).await.unwrap();
    let mut loops = tokio::task::JoinSet::new();
    let begin = async |loops: &mut tokio::task::JoinSet<()>, n: i32| {
        let session = db.client().await;
        loops.spawn(async move {
            let call = format!("call consume('billing', 'script-{n}', '500 ms')");
            // Killed, or at its end.
            let _ = session.batch_execute(&call).await;
        });
    };
    for n in 0..3 {
        locker.batch_execute(HOLD_UP).await.unwrap();
        begin(&mut loops, n).await;
        until(&client, "it is at work", AT_WORK).await;
        let kill = "select pg_terminate_backend(pid) from pg_locks where relation = 'ledger'::regclass and not granted";
        client.batch_execute(kill).await.unwrap();
        loops.join_next().await;
        locker.batch_execute("rollback").await.unwrap();
    }
    let mut n = 3;
    soon("nothing is left", async {
        while count(&client, LEFT).await > 0 {
            begin(&mut loops, n).await;
            n += 1;
            loops.join_next().await;
        }
    })
    .await;
    is_right(&client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_loop_in_python_comes_to_the_end_of_everything_whoever_is_killed() {
    let Some(python) = python_with_psycopg2().await else {
        println!("skipped: no python3 with psycopg2 (name one in DOORBELL_TEST_PYTHON; .ci/run makes one)");
        return;
    };
    let db = Database::new().await;
    let (client, locker) = (db.client().await, db.client().await);
    client.batch_execute(LOOP).await.unwrap();
    client.batch_execute(MESSAGES).await.unwrap();
    let begin = || {
        let mut command = Command::new(&python);
        command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/python/consumer.py")).args(["billing", "500 ms"]);
        command.env("DATABASE_URL", &db.url).env("PYTHONIOENCODING", "utf-8");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
        command.spawn().unwrap()
    };
    for _ in 0..3 {
        locker.batch_execute(HOLD_UP).await.unwrap();
        let mut process = begin();
        until(&client, "it is at work", AT_WORK).await;
        process.kill().await.unwrap();
        locker.batch_execute("rollback").await.unwrap();
    }
    soon("nothing is left", async {
        while count(&client, LEFT).await > 0 {
            begin().wait().await.unwrap();
        }
    })
    .await;
    is_right(&client).await;
}
