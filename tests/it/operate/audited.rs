//! What people do to messages is in the audit log at its default level, by who did it and not by what it was.

use crate::support::{Database, plain_insert};

#[tokio::test(flavor = "multi_thread")]
async fn what_hands_and_operators_do_is_told_at_the_default_level_and_what_machines_do_all_the_time_is_not() {
    let db = Database::new().await;
    let client = db.client().await;
    let run = async |sql: &str| client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    for _ in 0..6 {
        plain_insert(&client, "billing", "1").await;
    }
    let story = async |id: i64| -> Vec<String> {
        let sql = "select action from integration.audit_log where staging_id = $1 order by id";
        client.query(sql, &[&id]).await.unwrap().iter().map(|row| row.get(0)).collect()
    };
    // Machines: claimed, given back, snoozed for no time, due.
    run("select integration.claim('billing', 'me', 1, p_lease => '1 h'); select integration.release(1, 1, 'me')").await;
    run("select integration.publish('shop', 'billing', 'n', '1', p_delay => '1 us'); select integration.promote(null, 10)")
        .await;
    assert_eq!((story(1).await, story(7).await), (Vec::<String>::new(), Vec::new()));
    // Hands: taken from its owner, or from nobody that is named; put off; put forward; what it says, and for whom.
    run("select integration.claim('billing', 'me', 1, p_lease => '1 h'); \
         update integration.data_staging set status = 'pending' where status = 'processing'")
    .await;
    assert_eq!(story(1).await, ["released"]);
    run("update integration.data_staging set status = 'processing' where id = 2").await;
    run("update integration.data_staging set status = 'pending' where id = 2").await;
    assert_eq!(story(2).await, ["released"]);
    run("update integration.data_staging set status = 'scheduled', available_at = now() + interval '1 h' where id in (3, 4)")
        .await;
    run("select integration.retry('{3}'); update integration.data_staging set status = 'pending' where id = 4").await;
    assert_eq!((story(3).await, story(4).await), (vec!["scheduled".into(), "promoted".into()], story(3).await));
    run("update integration.data_staging set data = '{}' where id = 5; select integration.move('{5}', 'shipping')")
        .await;
    assert_eq!(story(5).await, ["rewritten", "rewritten"]);
    run("select integration.cancel('{6}'); select integration.redrive_many(array[6])").await;
    assert_eq!(story(6).await, ["cancelled", "redriven"]);
    let by = "select bool_and(app_name is not null and role_name = 'postgres') from integration.audit_log";
    assert!(client.query_one(by, &[]).await.unwrap().get::<_, bool>(0));
}
