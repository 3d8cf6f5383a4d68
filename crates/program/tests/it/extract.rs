//! `doorbell extract` of another database.

use doorbell_testing::until;

use crate::program::*;

#[tokio::test(flavor = "multi_thread")]
async fn another_database_is_read_on_by_who_comes_after_one_that_was_killed() {
    let (here, there) = (Database::new().await, Database::empty().await);
    let (client, source) = (here.client().await, there.client().await);
    let rows = "insert into erp.items (at) select now() from generate_series(1, 1500)";
    let table = "create schema erp; create table erp.items (id bigint generated always as identity primary key, \
        at timestamptz not null)";
    source.batch_execute(&format!("{table}; {rows}")).await.unwrap();
    let reader = || {
        let mut command = doorbell(&here, &["extract", "add", "items", "warehouse", "--table", "erp.items"]);
        command.args(["--watermark", "at", "--every", "1s", "--grace", "0s"]).env("DOORBELL_SOURCE_URL", &there.url);
        command
    };
    let published = "select count(*) from integration.data_staging";
    for _ in 0..2 {
        let before = count(&client, published).await;
        let mut killed = reader().spawn().unwrap();
        until(&client, "it reads", &format!("select count(*) > {before} from integration.data_staging")).await;
        killed.kill().await.unwrap();
        source.batch_execute(rows).await.unwrap();
    }
    let mut last = reader().spawn().unwrap();
    let all = "select count(distinct data -> 'new' ->> 'id') = 4500 from integration.data_staging";
    until(&client, "all is read", all).await;
    assert_eq!(count(&client, published).await, 4500);
    let told = ended(doorbell(&here, &["extracts", "--json"])).await;
    let row = json_of(&told)["extracts"][0].clone();
    assert_eq!((&row["table"], &row["foreign"], &row["last_error"]), (&json!("erp.items"), &json!(true), &Value::Null));
    assert!(out(&ended(doorbell(&here, &["extracts"])).await).contains("erp.items, elsewhere"));
    ended(doorbell(&here, &["extract", "remove", "items"])).await;
    // It is gone, and so is its reader.
    let gone = soon("it ends", last.wait()).await.unwrap();
    assert_eq!(gone.code(), Some(3));

    let mut once = doorbell(&here, &["extract", "run", "once", "reports", "--key", "id", "--query"]);
    once.arg("select id from erp.items where id <= 7").env("DOORBELL_SOURCE_URL", &there.url);
    let once = ended(once).await;
    assert_eq!(err(&once), "7 messages published\n");
    let nowhere = "host=/nowhere user=reader password=hush";
    let refused =
        ended(doorbell(&here, &["extract", "run", "x", "y", "--table", "t.t", "--source-url", nowhere])).await;
    assert_eq!(refused.status.code(), Some(69));
    assert!(
        err(&refused).contains("the database that is read") && !err(&refused).contains("hush"),
        "{}",
        err(&refused)
    );
}
