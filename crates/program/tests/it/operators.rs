//! The operator's commands: audit, redrive by filter, maintain.

use std::process::{Output, Stdio};

use tokio::process::Command;

use doorbell_testing::{Database, count, plain_insert, soon, until_status};

async fn doorbell(db: &Database, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_doorbell"));
    command.env("DOORBELL_DATABASE_URL", &db.url).args(arguments).stdin(Stdio::null());
    soon("the program ends", command.output()).await.unwrap()
}

fn out(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_redriven_by_filter_and_say_so_when_they_fail_again() {
    let db = Database::new().await;
    let client = db.client().await;
    let mut ids = Vec::new();
    for (target, reason) in [("billing", "timeout"), ("billing", "no such card"), ("shipping", "timeout")] {
        let id = plain_insert(&client, target, "1").await;
        let fail = "update integration.data_staging set status = 'failed', error_message = $2 where id = $1";
        client.execute(fail, &[&id, &reason]).await.unwrap();
        ids.push(id);
    }
    let filter = ["redrive", "--target", "billing", "--reason-like", "time%"];
    let dry = doorbell(&db, &[&filter[..], &["--dry-run"]].concat()).await;
    assert_eq!(out(&dry), format!("{}\n", ids[0]));
    assert_eq!(count(&client, "select count(*) from integration.dead_letters").await, 3);
    let redriven = doorbell(&db, &[&filter[..], &["--yes"]].concat()).await;
    assert_eq!((out(&redriven), redriven.status.code()), (format!("{}\n", ids[0]).as_str(), Some(0)));
    until_status(&client, ids[0], "pending").await;
    client.execute("update integration.data_staging set status = 'failed' where id = $1", &[&ids[0]]).await.unwrap();
    assert_eq!(count(&client, "select count(*) from integration.dead_letters where failed_again").await, 1);
    // Neither ids nor a filter is a mistake, not "everything".
    assert_eq!(doorbell(&db, &["redrive"]).await.status.code(), Some(2));
    assert_eq!(out(&doorbell(&db, &["redrive", "--all", "--yes"]).await).lines().count(), 3);
    assert_eq!(doorbell(&db, &["redrive", "--target", "nobody"]).await.status.code(), Some(3));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_tells_the_life_of_a_message_even_after_it_is_gone() {
    let db = Database::new().await;
    let client = db.client().await;
    client.batch_execute("select integration.set_audit_level('all'); set application_name = 'a person'").await.unwrap();
    let id = plain_insert(&client, "billing", "1").await;
    client.batch_execute("select integration.claim('billing', 'me', 1, p_lease => '1 h')").await.unwrap();
    client.batch_execute(&format!("select integration.complete({id}::bigint, 1, 'me')")).await.unwrap();
    let archive = "with gone as (delete from integration.data_staging where status = 'completed' returning *) \
                   insert into integration.data_staging_archive select * from gone";
    client.batch_execute(archive).await.unwrap();
    let told = doorbell(&db, &["audit", &id.to_string(), "--json"]).await;
    let story: serde_json::Value = serde_json::from_str(out(&told)).unwrap();
    let actions: Vec<_> = story["events"].as_array().unwrap().iter().map(|event| &event["action"]).collect();
    assert_eq!(actions, ["published", "claimed", "completed", "deleted"]);
    assert_eq!(story["events"][2]["by"], "a person");
    assert_eq!(story["events"][2]["owner"], "me");
    assert_eq!(doorbell(&db, &["audit", "999999"]).await.status.code(), Some(3));
}

#[tokio::test(flavor = "multi_thread")]
async fn maintain_rescues_and_promotes_where_no_consumer_runs() {
    let db = Database::new().await;
    let client = db.client().await;
    let id = plain_insert(&client, "billing", "1").await;
    client.batch_execute("select integration.claim('billing', 'dead', 1, p_lease => '-1 s')").await.unwrap();
    client.batch_execute("select integration.publish('shop', 'billing', 'n', '2', p_delay => '1 us')").await.unwrap();
    let due = doorbell(&db, &["maintain", "--dry-run"]).await;
    assert_eq!(out(&due), "TASK\tOF\tCOUNT\nrescue\tbilling\t1\npromote\tbilling\t1\nfold\tdeltas\t3\n");
    let maintained = doorbell(&db, &["maintain", "--once"]).await;
    assert_eq!(out(&maintained), "rescued 1, promoted 1, archived 0, purged 0\n");
    let rescued = until_status(&client, id, "pending").await;
    assert_eq!((rescued.crash_count, rescued.retry_count), (1, 0));
    doorbell(&db, &["maintain", "--once"]).await;
    let nothing = doorbell(&db, &["maintain", "--dry-run", "--json"]).await;
    assert_eq!(out(&nothing), "{\"due\":[]}\n");
    assert_eq!(out(&doorbell(&db, &["maintain", "--dry-run"]).await), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_breaker_is_opened_and_closed_from_the_command_line() {
    let db = Database::new().await;
    let client = db.client().await;
    plain_insert(&client, "billing", "1").await;
    let claimable = "select count(*) from integration.claim('billing', 'probe', 1, p_lease => '1 s')";
    let opened = doorbell(&db, &["breaker", "open", "billing", "--reason", "maintenance", "--for", "10m"]).await;
    assert_eq!(opened.status.code(), Some(0));
    assert_eq!(count(&client, claimable).await, 0);
    assert_eq!(doorbell(&db, &["breaker", "close", "billing"]).await.status.code(), Some(0));
    assert_eq!(doorbell(&db, &["breaker", "close", "billing"]).await.status.code(), Some(3));
    assert_eq!(count(&client, claimable).await, 1);
}
