//! Who waits for a message's reply, and which steps of its handling are done.

use super::{explain, run};
use crate::support::{Database, stop_the_clock as at};

/// The rows with this code.
async fn told(client: &tokio_postgres::Client, id: i64, code: &str) -> Vec<String> {
    explain(client, id).await.into_iter().filter(|(is, ..)| is == code).map(|(_, sentence, _)| sentence).collect()
}

#[tokio::test]
async fn a_request_says_until_when_somebody_waits_and_whether_it_was_replied_to() {
    let db = Database::new().await;
    let client = db.client().await;
    at(&client, 0).await;
    run(
        &client,
        "select integration.request('shop', 'billing', 'ask', '1', '1 min'); \
         select integration.request('shop', 'billing', 'ask', '2', '1 min', p_keep => true); \
         select integration.publish('shop', 'billing', 'n', '3')",
    )
    .await;
    assert!(told(&client, 1, "asked").await.is_empty(), "it says when it expires");
    assert_eq!(told(&client, 2, "asked").await, ["it is a request, and its reply is kept for whoever asked"]);
    run(&client, "select integration.claim('billing', 'me', 3, p_lease => '1 h')").await;
    let waits = "it is a request, and whoever asked waits for its reply until 2026-03-01 12:01:00Z";
    assert_eq!(told(&client, 1, "asked").await, [waits]);
    assert!(told(&client, 3, "asked").await.is_empty());
    at(&client, 90).await;
    let waited =
        "it is a request, and whoever asked waited for its reply until 2026-03-01 12:01:00Z, and may ask for it later";
    assert_eq!(told(&client, 1, "asked").await, [waited]);
    run(
        &client,
        "select integration.reply(1, 1, 'me', '7'), integration.complete(2, 1, 'me'), integration.complete(3, 1, 'me')",
    )
    .await;
    let completed = "it was completed at 2026-03-01 12:01:30Z by attempt 1";
    assert_eq!(told(&client, 1, "completed").await, [format!("{completed}, which replied")]);
    assert_eq!(told(&client, 2, "completed").await, [format!("{completed}, without a reply")]);
    assert_eq!(told(&client, 3, "completed").await, [completed]);
}

#[tokio::test]
async fn a_message_says_which_steps_are_not_done_again() {
    let db = Database::new().await;
    let client = db.client().await;
    at(&client, 0).await;
    run(
        &client,
        "select integration.publish('shop', 'orders', 'n', '1'); select integration.claim('orders', 'me', p_lease => '1 h')",
    )
    .await;
    assert!(told(&client, 1, "steps").await.is_empty());
    run(
        &client,
        "select integration.save_step(1, 1, 'me', 'charge', '1'); select integration.fail(1, 1, 'me', 'no van', '0'); \
         select integration.promote('{orders}'); select integration.claim('orders', 'me', p_lease => '1 h')",
    )
    .await;
    at(&client, 1).await;
    run(&client, "select integration.save_step(1, 2, 'me', 'ship', '1')").await;
    let steps = "steps that are done, and will not be done again: charge (attempt 1), ship (attempt 2)";
    assert_eq!(told(&client, 1, "steps").await, [steps]);
    at(&client, 2).await;
    run(
        &client,
        "select integration.save_step(1, 2, 'me', 'step ' || lpad(n::text, 2, '0'), '1') from generate_series(1, 20) n",
    )
    .await;
    let [all] = <[String; 1]>::try_from(told(&client, 1, "steps").await).unwrap();
    assert!(all.ends_with("step 08 (attempt 2) and 12 more"), "{all}");
    run(&client, "select integration.reject(1, 2, 'me', 'no'); select integration.redrive(1)").await;
    assert!(told(&client, 1, "steps").await.is_empty(), "they are done again");
}
