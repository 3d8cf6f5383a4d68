//! Processes that hold messages and are killed, or kill themselves.

use std::process::Stdio;

use doorbell::{Broker, ConsumerConfig, Outcome};
use futures::FutureExt;
use tokio::process;

use super::{SWEEP, consumer, ledger};
use crate::support::{Database, count, plain_insert, row, until, until_it_holds};

/// Set in the processes that a test starts from its own program: the database to consume from.
const CHILD: &str = "DOORBELL_TEST_HOLDER";

fn holder_process(db: &Database) -> process::Child {
    let mut command = process::Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "claim::in_order::killed::child"]).env(CHILD, &db.url);
    command.stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true).spawn().unwrap()
}

/// Not a test of its own: what the processes started by the tests below do.
#[tokio::test(flavor = "multi_thread")]
async fn child() {
    let Ok(url) = std::env::var(CHILD) else { return };
    let broker = Broker::connect(&url).await.unwrap();
    let config = ConsumerConfig { hold: Some(std::time::Duration::from_secs(30)), sweep: SWEEP, ..Default::default() };
    let consumer = consumer(&broker, config).on_tx("n", |word: String, delivery, tx| {
        async move {
            tx.execute("insert into ledger values ($1)", &[&delivery.id]).await?;
            match word.as_str() {
                "abort" => std::process::abort(),
                "hang" => std::future::pending().await,
                _ => Ok(Outcome::Done),
            }
        }
        .boxed()
    });
    consumer.run_until(std::future::pending()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_process_held_is_free_at_once_and_has_cost_nothing() {
    let db = Database::new().await;
    let client = ledger(&db).await;
    let mut holder = holder_process(&db);
    until_it_holds(&client).await;
    let id = plain_insert(&client, "billing", "\"hang\"").await;
    let held =
        format!("select not exists (select from integration.data_staging where id = {id} for update skip locked)");
    until(&client, "a transaction holds the message", &held).await;
    holder.kill().await.unwrap();
    let free = format!("select exists (select from integration.data_staging where id = {id} for update skip locked)");
    until(&client, "the message is free", &free).await;
    let released = row(&client, id).await;
    assert_eq!((released.status.as_str(), released.attempt, released.crash_count), ("pending", 0, 0));
    assert_eq!(count(&client, "select count(*) from ledger").await, 0);
    // From now on, for a while, leases: whoever kills its consumers there is found.
    until(
        &client,
        "the death is noted",
        "select integration.rescue() >= 0 and exists (select from integration.targets where leases_until is not null)",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_message_that_kills_its_consumers_ends_as_failed_and_the_others_are_done() {
    let db = Database::new().await;
    let client = ledger(&db).await;
    for n in 0..20 {
        plain_insert(&client, "billing", if n == 7 { "\"abort\"" } else { "\"well\"" }).await;
    }
    let ended = "select count(*) = 20 from integration.data_staging where status in ('completed', 'failed')";
    // A supervisor that starts a consumer again whenever one has died.
    let supervisor = async {
        loop {
            holder_process(&db).wait().await.unwrap();
        }
    };
    tokio::select! {
        () = supervisor => {}
        () = until(&client, "everything has ended", ended) => {}
    }
    let failed = "select id from integration.data_staging where status = 'failed' and error_message like '%consumers died%' and data = '\"abort\"'";
    assert_eq!(client.query(failed, &[]).await.unwrap().len(), 1);
    assert_eq!(count(&client, "select count(*) from ledger").await, 19);
}
