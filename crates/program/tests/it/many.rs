//! `doorbell cancel`, `retry` and `redrive` by filter: what they mean, that they ask, and that they go batch by batch.

use crate::program::*;

async fn counts(db: &Database, status: &str) -> i64 {
    let query = format!("select count(*) from integration.data_staging where status = '{status}'");
    count(&db.client().await, &query).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_without_a_terminal_needs_yes_and_says_how_many_it_names() {
    let db = Database::new().await;
    publish(&db, &"1\n".repeat(3)).await;
    let refused = ended(doorbell(&db, &["cancel", "--target", "billing"])).await;
    ends_with(&refused, 2);
    let said = "doorbell: 3 messages would be cancelled; say so with --yes, or look first with --dry-run\n";
    assert_eq!((out(&refused), err(&refused)), (String::new(), said.to_owned()));
    let dry = ended(doorbell(&db, &["cancel", "--target", "billing", "--limit", "2", "--dry-run"])).await;
    assert_eq!(out(&dry), "1\n2\n");
    let dry = ended(doorbell(&db, &["cancel", "--all", "--dry-run", "--json"])).await;
    assert_eq!(json_of(&dry), json!({ "would_be_cancelled": [1, 2, 3] }));
    assert_eq!(counts(&db, "pending").await, 3);
    let done = ended(doorbell(&db, &["cancel", "--target", "billing", "--limit", "2", "--yes"])).await;
    ends_with(&done, 0);
    assert_eq!((out(&done), err(&done)), ("1\n2\n".to_owned(), String::new()));
    assert_eq!(counts(&db, "cancelled").await, 2);
    let none = ended(doorbell(&db, &["cancel", "--target", "nobody", "--yes"])).await;
    ends_with(&none, 3);
    assert_eq!(err(&none), "no message, setting or process names the target nobody\n");
    for mistake in [
        &["cancel"][..],
        &["cancel", "1", "--target", "billing"],
        &["cancel", "1", "--all"],
        &["cancel", "--limit", "5"],
    ] {
        ends_with(&ended(doorbell(&db, mistake)).await, 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_terminal_it_asks_and_only_yes_is_yes() {
    let db = Database::new().await;
    publish(&db, &"1\n".repeat(3)).await;
    let mut refusing = Terminal::start(doorbell(&db, &["cancel", "--target", "billing"]));
    refusing.shows("Cancel 3 messages? [y/N]").await;
    refusing.types("\n");
    refusing.shows("nothing was cancelled").await;
    assert_eq!(refusing.ended().await, 1);
    let mut leaving = Terminal::start(doorbell(&db, &["cancel", "--target", "billing"]));
    leaving.shows("Cancel 3 messages? [y/N]").await;
    leaving.signal(Signal::SIGINT);
    assert_eq!(leaving.ended().await, 130);
    assert_eq!(counts(&db, "pending").await, 3);
    let mut agreeing = Terminal::start(doorbell(&db, &["cancel", "--target", "billing"]));
    agreeing.shows("Cancel 3 messages? [y/N]").await;
    agreeing.types("y\n");
    assert_eq!(agreeing.ended().await, 0);
    assert_eq!(counts(&db, "cancelled").await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_are_changed_in_batches_and_every_id_is_printed_once() {
    let db = Database::new().await;
    publish(&db, &"1\n".repeat(2500)).await;
    let client = db.client().await;
    let before = count(&client, "select integration.next_xid()").await;
    let output = ended(doorbell(&db, &["cancel", "--target", "billing", "--yes", "--reason", "enough"])).await;
    ends_with(&output, 0);
    let ids: Vec<i64> = out(&output).lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(ids, (1..=2500).collect::<Vec<_>>());
    let transactions = "select count(distinct xmin::text) from integration.data_staging where error_message = 'enough'";
    assert_eq!(count(&client, transactions).await, 3, "since transaction {before}");
}

#[tokio::test(flavor = "multi_thread")]
async fn retry_takes_what_waits_and_what_failed_and_leaves_the_retries_of_what_waits() {
    let db = Database::new().await;
    let client = db.client().await;
    client
        .batch_execute(
            "insert into integration.data_staging (source_app, target_app, record_type, data) \
                select 'shop', 'billing', 'n', '1' from generate_series(1, 5); \
             select integration.claim('billing', 'me', 3, p_lease => '1 h'); \
             select integration.fail(1, 1, 'me', 'connection refused', '1 h'); \
             select integration.reject(2, 1, 'me', 'no such card'); \
             select integration.complete(3, 1, 'me'); \
             select integration.cancel('{4}')",
        )
        .await
        .unwrap();
    let dry = ended(doorbell(&db, &["retry", "--all", "--dry-run"])).await;
    assert_eq!(out(&dry), "1\n2\n");
    let one = ended(doorbell(&db, &["retry", "--reason-like", "connection%", "--yes"])).await;
    assert_eq!(out(&one), "1\n");
    let rest = ended(doorbell(&db, &["retry", "1", "2", "3", "4", "5", "99", "--json"])).await;
    assert_eq!(json_of(&rest), json!({ "retried": [2] }));
    assert!(err(&rest).contains("message 4 was not retried: it is "));
    let rows = client
        .query("select status, retry_count, redrive_count, attempt from integration.data_staging order by id", &[]);
    let rows: Vec<(String, i32, i32, i32)> =
        rows.await.unwrap().iter().map(|row| (row.get(0), row.get(1), row.get(2), row.get(3))).collect();
    assert_eq!(rows[0], ("pending".into(), 1, 0, 1), "it keeps its retries");
    assert_eq!(rows[1], ("pending".into(), 0, 1, 2), "it was redriven");
    let wrong = ended(doorbell(&db, &["retry", "--status", "completed", "--yes"])).await;
    ends_with(&wrong, 2);
    assert!(
        err(&wrong).contains("completed messages cannot be retried; these can: scheduled, failed"),
        "{}",
        err(&wrong)
    );
    // redrive begins anew what has ended, in whatever way.
    let wrong = ended(doorbell(&db, &["redrive", "--status", "scheduled", "--yes"])).await;
    ends_with(&wrong, 2);
    assert!(err(&wrong).contains("these can: failed, cancelled, completed"));
    let cancelled = ended(doorbell(&db, &["redrive", "--status", "cancelled", "--yes", "--json"])).await;
    assert_eq!(json_of(&cancelled), json!({ "redriven": [4] }));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_acted_is_the_person_at_the_keyboard() {
    let db = Database::new().await;
    publish(&db, "1\n").await;
    ends_with(&ended(doorbell(&db, &["pause", "billing", "--reason", "moving"])).await, 0);
    let me = whoami().await;
    let who = format!("paused by doorbell ({me}) ");
    let targets = out(&ended(doorbell(&db, &["targets"])).await);
    assert!(targets.contains(&who) && targets.contains(": moving"), "{targets}");
    let json = json_of(&ended(doorbell(&db, &["targets", "--json"])).await);
    assert_eq!(json["targets"][0]["closed_gates"][0]["code"], "paused");
    // stats says so, too, without disturbing what reads it.
    let stats = ended(doorbell(&db, &["stats"])).await;
    assert!(err(&stats).contains(&who), "{}", err(&stats));
    assert_eq!(out(&stats).lines().count(), 2);
    let mut as_anna = doorbell(&db, &["pause", "billing"]);
    as_anna.env("PGAPPNAME", "anna");
    ends_with(&ended(as_anna).await, 0);
    assert!(out(&ended(doorbell(&db, &["targets"])).await).contains("paused by anna "));
}

async fn whoami() -> String {
    let output = Command::new("id").arg("-un").output().await.unwrap();
    out(&output).trim().to_owned()
}
