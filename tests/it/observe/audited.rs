//! What people do is in the audit log, by who did it: at the default level.

use tokio_postgres::Client;

use crate::support::Database;

/// What was written since the last time, as `action old new columns`.
async fn written(client: &Client) -> Vec<String> {
    let sql = "with told as (delete from integration.audit_log returning *) \
        select concat_ws(' ', t.action, t.old_status, t.new_status, t.details ->> 'columns') from told t \
        where t.role_name = session_user order by t.id";
    client.query(sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_people_do_is_written_at_the_default_level_and_what_the_machine_does_is_not() {
    let client = Database::new().await.client().await;
    let machine = [
        "select integration.publish('shop', 'billing', 'n', '1'), integration.publish('shop', 'billing', 'n', '2')",
        "select * from integration.claim('billing', 'me', 2, p_lease => '1 h')",
        "select integration.extend(1, 1, 'me', '2 h')",
        "select integration.snooze(1, 1, 'me', '0'), integration.release(2, 1, 'me')",
        "select integration.promote('{billing}')",
        "select integration.maintain()",
    ];
    for statement in machine {
        client.batch_execute(statement).await.unwrap();
    }
    assert_eq!(written(&client).await, ["snoozed processing scheduled"]);
    let message = "update integration.data_staging set";
    let people = [
        (format!("{message} priority = 9 where id = 1"), "edited pending pending [\"priority\"]"),
        (format!("{message} data = '3' where id = 1"), "rewritten pending pending [\"data\"]"),
        (format!("{message} target_app = 'mailer' where id = 2"), "rewritten pending pending [\"target_app\"]"),
        (format!("{message} status = 'scheduled', available_at = now() + interval '1 h' where id = 1"), "scheduled pending scheduled"),
        (format!("{message} available_at = now() + interval '2 h' where id = 1"), "edited scheduled scheduled [\"available_at\"]"),
        ("select integration.retry('{1}')".into(), "promoted scheduled pending"),
        ("select integration.cancel('{1}', 'no')".into(), "cancelled pending cancelled"),
        ("select integration.redrive('1')".into(), "redriven cancelled pending"),
        (format!("{message} status = 'completed' where id = 1"), "completed pending completed"),
        ("set integration.verb = 'purged'; delete from integration.data_staging where id = 1; reset integration.verb".into(), "deleted completed"),
        ("select integration.pause('billing')".into(), "paused"),
        ("select integration.resume('billing')".into(), "resumed"),
        ("update integration.settings set max_retries = 7".into(), "set [\"max_retries\"]"),
        ("update integration.targets set max_in_flight = 2".into(), "set [\"max_in_flight\"]"),
        ("insert into integration.retry_policies values ('billing', 'n', 1)".into(), "set [\"max_retries\"]"),
        ("delete from integration.retry_policies".into(), "unset [\"max_retries\"]"),
        ("select integration.set_audit_level('all'); select integration.set_audit_level('outcomes')".into(), "audit_level"),
    ];
    for (statement, expected) in people {
        client.batch_execute(&statement).await.unwrap();
        let mut told = written(&client).await;
        told.dedup();
        assert_eq!(told, [expected], "{statement}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_taken_from_its_handler_by_hand_says_by_whom_and_a_payload_is_told_by_its_hash_alone() {
    let client = Database::new().await.client().await;
    let steps = "select integration.publish('shop', 'billing', 'n', '\"sesame\"'); \
        select * from integration.claim('billing', 'me', p_lease => '1 h'); \
        update integration.data_staging set status = 'pending'; update integration.data_staging set data = '\"open\"'";
    client.batch_execute(steps).await.unwrap();
    let sql = "select action, role_name, coalesce(details::text, '') from integration.audit_log order by id";
    let told: Vec<(String, String, String)> =
        client.query(sql, &[]).await.unwrap().iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect();
    assert_eq!((told[0].0.as_str(), told[1].0.as_str()), ("released", "rewritten"));
    assert!(told.iter().all(|(_, role, _)| !role.is_empty()), "{told:?}");
    assert!(
        told[1].2.contains("data_sha256") && !told[1].2.contains("sesame") && !told[1].2.contains("open"),
        "{told:?}"
    );
}
