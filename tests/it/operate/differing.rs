//! Where others' databases differ: what is hidden, revoked, behind or upgraded is said, and never taken for "nothing there".

use crate::support::{Database, connect, count, plain_insert};

#[tokio::test(flavor = "multi_thread")]
async fn a_role_from_which_policies_hide_messages_is_told_so_and_not_that_there_are_none() {
    let db = Database::new().await;
    let client = db.client().await;
    plain_insert(&client, "billing", "1").await;
    plain_insert(&client, "shipping", "1").await;
    let role = format!("watcher_{}", db.name());
    let sql = format!(
        "create role {role} login; select integration.grant_to('{role}', 'look'); \
         alter table integration.data_staging enable row level security; \
         create policy own on integration.data_staging for select to {role} using (target_app = 'billing')"
    );
    client.batch_execute(&sql).await.unwrap();
    let watcher = connect(&db.url.replace("user=postgres", &format!("user={role}"))).await;
    let code = async |id: i64| -> String {
        watcher.query_one("select code from integration.explain($1) limit 1", &[&id]).await.unwrap().get(0)
    };
    assert_eq!((code(1).await, code(2).await), ("no_consumer".to_owned(), "not_visible".to_owned()));
    // Who sees everything knows.
    assert_eq!(count(&client, "select count(*) from integration.explain(99) where code = 'not_found'").await, 1);
}
