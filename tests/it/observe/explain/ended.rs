//! What is no longer there, has ended, or is not due yet.

use super::{EIGHT, codes, explain, is, register, run};
use crate::support::{Database, plain_insert, stop_the_clock as at};

#[tokio::test]
async fn a_message_that_is_not_there_is_told_apart_from_one_that_was() {
    let db = Database::new().await;
    let client = db.client().await;
    is(&explain(&client, 1).await, "not_found", "there is no such message; the last id given out is 0", None);
    run(&client, "set application_name = 'anna'").await;
    at(&client, 0).await;
    let deleted = plain_insert(&client, "billing", "1").await;
    let archived = plain_insert(&client, "billing", "1").await;
    is(&explain(&client, 9).await, "not_found", "there is no such message; the last id given out is 2", None);
    run(&client, &format!("delete from integration.data_staging where id = {deleted}")).await;
    let sentence =
        "it is no longer there; the last that is known: deleted by anna at 2026-03-01 12:00:00Z (it was pending)";
    is(&explain(&client, deleted).await, "gone", sentence, Some("doorbell audit 1"));
    run(
        &client,
        "select integration.claim('billing', 'me', p_lease => '1 h'); select integration.complete(2, 1, 'me')",
    )
    .await;
    run(
        &client,
        "with old as (delete from integration.data_staging where status = 'completed' returning *) \
         insert into integration.data_staging_archive select * from old",
    )
    .await;
    let sentence = "it was completed at 2026-03-01 12:00:00Z by attempt 1, and is in the archive";
    is(&explain(&client, archived).await, "archived", sentence, None);
    // An id was drawn, but nothing is known of it.
    run(&client, "begin; insert into integration.data_staging (source_app, target_app, record_type, data) values ('a', 'b', 'c', '1'); rollback")
        .await;
    let sentence =
        "there is no such message: its transaction was rolled back or has not committed yet, or it was deleted";
    is(&explain(&client, 3).await, "not_found", sentence, None);
}

#[tokio::test]
async fn what_has_ended_says_how_and_how_to_put_it_back() {
    let db = Database::new().await;
    let client = db.client().await;
    at(&client, 0).await;
    run(&client, "set application_name = 'anna'").await;
    for _ in 0..3 {
        plain_insert(&client, "billing", "1").await;
    }
    run(
        &client,
        "select integration.claim('billing', 'me', 2, p_lease => '1 h'); select integration.complete(1, 1, 'me'); \
         select integration.reject(2, 1, 'me', 'no such card'); select integration.cancel('{3}', 'withdrawn')",
    )
    .await;
    is(&explain(&client, 1).await, "completed", "it was completed at 2026-03-01 12:00:00Z by attempt 1", None);
    let sentence = "it failed for good at 2026-03-01 12:00:00Z, by attempt 1: no such card";
    is(&explain(&client, 2).await, "failed", sentence, Some("doorbell redrive 2"));
    let sentence = "it was cancelled at 2026-03-01 12:00:00Z by anna: withdrawn";
    is(&explain(&client, 3).await, "cancelled", sentence, Some("doorbell redrive 3"));
}

#[tokio::test]
async fn what_its_contract_failed_names_that_and_whether_it_would_keep_it_by_now() {
    let db = Database::new().await;
    let client = db.client().await;
    at(&client, 0).await;
    let contract = "select integration.set_contract('billing', 'n', 'strict $ > RULE', 'fail', VERSION)";
    let set = |rule: &str, version: &str| contract.replace("RULE", rule).replace("VERSION", version);
    run(&client, &set("1", "3")).await;
    plain_insert(&client, "billing", "1").await;
    let sentence = "it failed when it was published, at 2026-03-01 12:00:00Z, because version 3 of the contract of n for billing \
        is not true of it: strict ($ > 1)";
    let fix = "mend whoever publishes it, or what the contract says (doorbell contracts); to have it handled all the same: \
        doorbell redrive 1";
    is(&explain(&client, 1).await, "contract_broken", sentence, Some(fix));
    run(&client, &set("0", "4")).await;
    let by_now = format!("{sentence}; what the contract says by now is true of it");
    is(&explain(&client, 1).await, "contract_broken", &by_now, Some(fix));
    run(&client, "select integration.forget_contract('billing', 'n')").await;
    let by_now = format!("{sentence}; there is no contract any more");
    is(&explain(&client, 1).await, "contract_broken", &by_now, Some(fix));
    // What fails later fails for another reason, whatever that says.
    run(
        &client,
        "select integration.redrive(1); select integration.claim('billing', 'me', 1, p_lease => '1 h'); \
         select integration.reject(1, 3, 'me', 'breaks its contract, version ((: it does')",
    )
    .await;
    assert_eq!(explain(&client, 1).await[0].0, "failed");
}

#[tokio::test]
async fn a_scheduled_message_says_until_when_and_whether_it_was_delayed_snoozed_or_failed() {
    let db = Database::new().await;
    let client = db.client().await;
    at(&client, 0).await;
    register(&client, "one", EIGHT).await;
    run(&client, "select integration.publish('shop', 'billing', 'n', '1', p_delay => '5 min')").await;
    plain_insert(&client, "billing", "1").await;
    plain_insert(&client, "billing", "1").await;
    run(
        &client,
        "select integration.claim('billing', 'one', 2); select integration.snooze(2, 1, 'one', '1 h'); \
         select integration.fail(3, 1, 'one', 'connection refused', '42 s')",
    )
    .await;
    let sentence = "it waits until 2026-03-01 12:05:00Z (5 min): it was published with a delay";
    is(&explain(&client, 1).await, "scheduled", sentence, Some("doorbell retry 1"));
    let sentence = "it waits until 2026-03-01 13:00:00Z (60 min): its handler snoozed it";
    is(&explain(&client, 2).await, "scheduled", sentence, Some("doorbell retry 2"));
    let sentence =
        "it waits until 2026-03-01 12:00:42Z (42 s): retry 1 of 3, because attempt 1 failed: connection refused";
    is(&explain(&client, 3).await, "scheduled", sentence, Some("doorbell retry 3"));
    assert_eq!(codes(&client, 3).await, ["scheduled"]);
    // Snoozed after a failure: the audit log knows the last word.
    run(
        &client,
        "select integration.retry('{3}'); select integration.claim('billing', 'one'); \
         select integration.snooze(3, 2, 'one', '1 min')",
    )
    .await;
    let sentence = "it waits until 2026-03-01 12:01:00Z (60 s): its handler snoozed it";
    is(&explain(&client, 3).await, "scheduled", sentence, Some("doorbell retry 3"));
    // Its time has come, nobody promotes it, and the consumer is dead by then.
    at(&client, 62).await;
    let due = explain(&client, 3).await;
    let sentence = "it was due 2.0 s ago and is about to be made pending, by a consumer of billing or by maintenance: \
                    its handler snoozed it";
    is(&due, "due", sentence, Some("doorbell retry 3"));
    assert_eq!(due[1].0, "no_consumer");
}
