//! Rows edited by hand, in statements of one row and of many: what no message may have is refused, whichever way it comes.

use crate::support::{Database, count, plain_insert};

/// What is set, of all messages or of one, and what the server says: the SQLSTATE, and the rule or a part of the text.
const REFUSED: [(&str, &str, &str); 9] = [
    ("status = 'done'", "23514", "status"),
    ("retry_count = -1", "23514", "retry_count"),
    // As a claim in plain SQL does it, but for the count.
    ("status = 'processing', updated_at = now(), retry_count = -1", "23514", "retry_count"),
    ("status = 'scheduled'", "23514", "available_at"),
    ("headers = '[1]'", "23514", "headers"),
    ("headers = jsonb_build_object('a', repeat('x', 70000))", "23514", "headers"),
    ("data = (select jsonb_agg('1e131000'::jsonb) from generate_series(1, 200))", "23514", "data"),
    ("id = id + 1000", "MQ003", "cannot be changed"),
    (
        "status = 'completed', processed_at = now(), attempt = case id % 2 when 0 then attempt - 1 else attempt + 7 end",
        "MQ003",
        "attempt cannot go down",
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn what_no_message_may_have_is_refused_when_one_or_many_are_edited_and_nothing_changes() {
    let db = Database::new().await;
    let client = db.client().await;
    for n in 0..4 {
        plain_insert(&client, "billing", &n.to_string()).await;
    }
    let all = "select md5(string_agg(d::text, ' ' order by d.id)) from integration.data_staging d";
    let before: String = client.query_one(all, &[]).await.unwrap().get(0);
    for (set, sqlstate, rule) in REFUSED {
        for whose in ["true", "id = (select max(id) - max(id) % 2 from integration.data_staging)"] {
            let update = format!("update integration.data_staging set {set} where {whose}");
            let refused = client.batch_execute(&update).await.expect_err(&update);
            let refused = refused.as_db_error().unwrap();
            assert_eq!(refused.code().code(), sqlstate, "{update}: {refused:?}");
            let said = refused.constraint().unwrap_or(refused.message());
            assert!(said.contains(rule), "{update}: {refused:?}");
        }
    }
    let after: String = client.query_one(all, &[]).await.unwrap().get(0);
    assert_eq!(before, after);
}

#[tokio::test(flavor = "multi_thread")]
async fn edits_of_many_messages_of_different_attempts_are_completed_each_by_itself() {
    let db = Database::new().await;
    let client = db.client().await;
    for n in 0..4 {
        plain_insert(&client, "billing", &n.to_string()).await;
    }
    // Half of them have been claimed and put back before.
    client
        .batch_execute(
            "select integration.claim('billing', 'somebody', 2, p_lease => '1 min');
             update integration.data_staging set status = 'pending' where owner = 'somebody';
             update integration.data_staging set status = 'processing';
             update integration.data_staging set status = 'completed', owner = 'left behind'",
        )
        .await
        .unwrap();
    let complete = "select count(*) from integration.data_staging
        where status = 'completed' and processed_at is not null and owner is null and lease_until is null";
    assert_eq!(count(&client, complete).await, 4);
    assert_eq!(count(&client, "select count(distinct attempt) from integration.data_staging").await, 2);
    let counted = "select messages from integration.current_counters where status = 'completed'";
    assert_eq!(count(&client, counted).await, 4);
}
