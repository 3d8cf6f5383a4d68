//! What a process of one application does for the messages of another, and what it cannot.

use super::{answer, apps::app};
use crate::support::{Database, count, plain_insert, row};

/// Its own processes may be gone for ever, and what is owed is not theirs alone to write.
#[tokio::test(flavor = "multi_thread")]
async fn an_outcome_that_is_owed_is_written_by_whoever_rescues_and_no_other_outcome_is() {
    let db = Database::new().await;
    let owner = db.client().await;
    let billing = app(&db, "billing", "p_consume => true").await;
    let mailer = app(&db, "mailer", "p_consume => true").await;
    let id = plain_insert(&owner, "mailer", "1").await;
    let claim = "select integration.register('m-1', 'h', 1, 'a', 'v', '{\"mailer\": {}}', 60000); \
        select integration.claim('mailer', 'm-1')";
    mailer.batch_execute(claim).await.unwrap();
    // Somebody has the row, so what became of it is owed.
    let somebody = db.client().await;
    somebody.batch_execute("begin; select from integration.data_staging for update").await.unwrap();
    let mine = format!("array[{id}]::bigint[], '{{1}}', array[(select created_at from integration.set_aside)]");
    let created = owner.query_one("select created_at::text from integration.data_staging", &[]).await.unwrap();
    let created: String = created.get(0);
    let settle = format!(
        "select integration.settle_or_owe('m-1', '{{{id}}}', '{{1}}', array['{created}'::timestamptz], '{{reject}}', \
            '{{no such address}}', '{{0}}')"
    );
    mailer.batch_execute(&settle).await.unwrap();
    somebody.batch_execute("commit").await.unwrap();
    owner.batch_execute("select integration.look_again()").await.unwrap();
    let outcome = mine.replace("(select created_at from integration.set_aside)", &format!("'{created}'::timestamptz"));
    let others = [
        format!("select integration.complete_many('m-1', {outcome})"),
        format!("select integration.settle('m-1', {outcome}, '{{release}}', '{{x}}', '{{0}}')"),
        format!("select integration.settle_or_owe('m-1', {outcome}, '{{complete}}', '{{x}}', '{{0}}')"),
        "select integration.settle_owed()".to_owned(),
    ];
    for other in &others {
        assert_eq!(answer(&billing, other).await, "42501", "{other}");
    }
    assert_eq!(row(&owner, id).await.status, "processing");
    billing.batch_execute("select integration.rescue()").await.unwrap();
    let settled = row(&owner, id).await;
    assert_eq!((settled.status.as_str(), settled.error.as_deref()), ("failed", Some("no such address")));
    assert_eq!(count(&owner, "select count(*) from integration.set_aside").await, 0);
    for other in &others {
        assert_eq!(answer(&billing, other).await, "42501", "{other}");
    }
}
