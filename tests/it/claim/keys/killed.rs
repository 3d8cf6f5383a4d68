//! A consumer process that is killed in the midst of a series: others go on where it was.

use std::process::Stdio;

use doorbell::{Broker, ConsumerBuilder, Outcome};
use tokio::process::Command;

use super::keyed;
use crate::support::{Database, bells_only, connect, until, until_count};

/// Set in the process that the test starts from its own program: the database to consume from.
const CHILD: &str = "DOORBELL_TEST_KEYS_KILLED";

/// What each handler has begun and ended, in that order whichever process it ran in.
const RUNS: &str =
    "create table runs (at bigint generated always as identity, what text, key text, n bigint, crashes integer)";
const NOTE: &str = "insert into runs (what, key, n, crashes) \
    select $1, d.ordering_key, (d.data #>> '{}')::bigint, d.crash_count from integration.data_staging d where d.id = $2";

/// Notes what it does, and does not come to the end of the third message of a key if it `hangs`.
async fn consumer(broker: &Broker, url: &str, hangs: bool) -> ConsumerBuilder {
    let client = std::sync::Arc::new(connect(url).await);
    broker.consumer("billing").config(bells_only()).on("n", move |n: i64, delivery| {
        let client = client.clone();
        async move {
            client.execute(NOTE, &[&"begun", &delivery.id]).await?;
            if hangs && n == 3 {
                std::future::pending::<()>().await;
            }
            client.execute(NOTE, &[&"ended", &delivery.id]).await?;
            Ok(Outcome::Done)
        }
    })
}

/// Not a test of its own: what the process does that is killed.
#[tokio::test(flavor = "multi_thread")]
async fn child() {
    let Ok(url) = std::env::var(CHILD) else { return };
    let broker = Broker::connect(&url).await.unwrap();
    consumer(&broker, &url, true).await.run_until(std::future::pending()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_is_killed_in_the_midst_of_a_series_leaves_it_to_others_who_begin_with_what_killed_it() {
    let db = Database::new().await;
    let client = db.client().await;
    client.batch_execute(RUNS).await.unwrap();
    let broker = db.broker().await;
    let producer = broker.producer("shop");
    let messages: Vec<_> = (1..=8).map(|n| keyed("a", n)).collect();
    producer.publish_many(&messages).await.unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "claim::keys::killed::child"]).env(CHILD, &db.url);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true).spawn().unwrap();
    until(&client, "the third hangs", "select exists (select from runs where n = 3)").await;
    let series = "select count(*) > 1 from integration.data_staging where status = 'processing' and ordering_key = 'a'";
    until(&client, "it has more than one in its hands", series).await;

    let survivor = consumer(&broker, &db.url, false).await.start().await.unwrap();
    producer.publish(&keyed("b", 1)).await.unwrap();
    until_count(&client, "completed", 3).await;
    child.kill().await.unwrap();
    until_count(&client, "completed", 9).await;
    survivor.shutdown().await.unwrap();

    let runs = "select format('%s %s%s', what, n, repeat('!', crashes)) from runs where key = 'a' order by at";
    let runs: Vec<String> = client.query(runs, &[]).await.unwrap().iter().map(|row| row.get(0)).collect();
    let (before, after) = runs.split_at(5);
    assert_eq!(before, ["begun 1", "ended 1", "begun 2", "ended 2", "begun 3"]);
    assert_eq!(
        after[..4],
        ["begun 3!", "ended 3!", "begun 4!", "ended 4!"],
        "the dead one had them: suspects, in order"
    );
    let order = |run: &String| run.trim_end_matches('!').to_owned();
    let rest: Vec<String> = (5..=8).flat_map(|n| [format!("begun {n}"), format!("ended {n}")]).collect();
    assert_eq!(after[4..].iter().map(order).collect::<Vec<_>>(), rest);
}
