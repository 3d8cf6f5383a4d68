//! What pages change, and whom the audit log has for it.

use axum::http::StatusCode;
use doorbell_ui::{Options, Rights};
use tokio_postgres::Client;

use super::{Pages, for_anybody};
use crate::support::{Database, count};

const BY_ANNA: &str = "select count(*) from integration.audit_log where app_name = 'doorbell ui (anna)' and action = ";

/// So many failed messages of billing, and one of mail.
async fn failed(many: usize) -> (Database, Client, Pages) {
    let db = Database::new().await;
    let client = db.client().await;
    let sql = format!(
        "select integration.publish('shop', 'billing', 'order', to_jsonb(n)) from generate_series(1, {many}) n; \
         select integration.publish('shop', 'mail', 'welcome', '{{}}'); \
         update integration.data_staging set status = 'failed', error_message = 'refused by ' || target_app"
    );
    client.batch_execute(&sql).await.unwrap();
    let pages = Pages::of(&db, for_anybody(Rights::ALL)).await;
    (db, client, pages)
}

/// What the form of a preview would send.
pub(super) fn form(page: &str) -> String {
    let hidden = page.split("<input type=\"hidden\" name=\"").skip(1).map(|rest| {
        let (name, rest) = rest.split_once("\" value=\"").expect("a value");
        let value: String = rest.split('"').next().unwrap().bytes().map(|byte| format!("%{byte:02X}")).collect();
        format!("{name}={value}")
    });
    hidden.collect::<Vec<_>>().join("&")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redrive_is_shown_first_and_then_changes_what_was_shown_and_no_more() {
    let (_db, client, pages) = failed(3).await;
    let groups = pages.page("/dead-letters").await;
    assert!(groups.contains("doorbell redrive --target billing --reason-like"), "{groups}");
    let link = groups.split("href=\"change?").skip(1).find(|link| link.contains("target=billing")).expect("a link");
    let address = link.split('"').next().unwrap().replace("&amp;", "&").replace("&#38;", "&");
    let preview = pages.page(&format!("/change?{address}")).await;
    for text in ["Redrive 3 messages?", "with all their retries", "Who takes them", "consumers: 0"] {
        assert!(preview.contains(text), "{text}: {preview}");
    }
    assert_eq!(count(&client, "select count(*) from integration.data_staging where status = 'failed'").await, 4);
    // Somebody fails in the same way meanwhile: nobody was shown that.
    let late = "select integration.publish('shop', 'billing', 'order', '4'); \
        update integration.data_staging set status = 'failed', error_message = 'refused by billing' where status = 'pending'";
    client.batch_execute(late).await.unwrap();
    let done = pages.post("/change", &form(&preview)).await;
    assert!(done.status == StatusCode::OK && done.body.contains("3 messages were redriven"), "{}", done.body);
    assert_eq!(count(&client, "select count(*) from integration.data_staging where status = 'pending'").await, 3);
    assert_eq!(count(&client, &format!("{BY_ANNA} 'redriven'")).await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_messages_are_changed_only_once_their_number_was_typed() {
    let (_db, client, pages) = failed(120).await;
    let preview = pages.page("/change?verb=redrive&target=billing").await;
    assert!(preview.contains("Type 120 to go on"), "{preview}");
    let form = form(&preview);
    for typed in ["", "&typed=", "&typed=12"] {
        let refused = pages.post("/change", &format!("{form}{typed}")).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{}", refused.body);
    }
    assert_eq!(count(&client, "select count(*) from integration.data_staging where status = 'pending'").await, 0);
    let done = pages.post("/change", &format!("{form}&typed=120")).await;
    assert!(done.body.contains("120 messages were redriven"), "{}", done.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_message_is_cancelled_and_moved_with_what_more_was_said() {
    let (_db, client, pages) = failed(1).await;
    let message = pages.page("/message?id=1").await;
    for verb in ["redrive", "retry", "move"] {
        assert!(message.contains(&format!("change?verb={verb}&amp;status=failed&amp;first-id=1")), "{verb}: {message}");
    }
    assert!(!message.contains("verb=cancel"));
    let preview = pages.page("/change?verb=move&status=failed&first-id=1&last-id=1").await;
    assert_eq!(pages.post("/change", &form(&preview)).await.status, StatusCode::BAD_REQUEST);
    let moved = pages.post("/change", &format!("{}&more=mail", form(&preview))).await;
    assert!(moved.body.contains("1 message was moved") && moved.body.contains("--to mail"), "{}", moved.body);
    let redrive = pages.page("/change?verb=redrive&first-id=1&last-id=1").await;
    pages.post("/change", &form(&redrive)).await;
    let cancel = pages.page("/change?verb=cancel&first-id=1&last-id=1").await;
    let cancelled = pages.post("/change", &format!("{}&more=no+need", form(&cancel))).await;
    assert!(cancelled.body.contains("1 message was cancelled"), "{}", cancelled.body);
    let stored = "select count(*) from integration.data_staging where id = 1 and target_app = 'mail' \
        and status = 'cancelled' and error_message like '%no need%'";
    assert_eq!(count(&client, stored).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn those_that_were_ticked_are_changed_and_no_others() {
    let (_db, client, pages) = failed(3).await;
    let messages = pages.page("/messages?status=failed").await;
    assert_eq!(messages.matches("type=\"checkbox\" name=\"id\"").count(), 4, "{messages}");
    client.batch_execute("select integration.redrive(2)").await.unwrap();
    let preview = pages.page("/change?id=1&id=2&id=3&id=99&verb=redrive").await;
    for text in ["Redrive 2 messages?", "ticked 2 cannot be redriven", "doorbell redrive 1 2 3 99", "Who takes them"] {
        assert!(preview.contains(text), "{text}: {preview}");
    }
    let done = pages.post("/change", &form(&preview)).await;
    assert!(done.body.contains("2 messages were redriven") && done.body.contains("2 had changed"), "{}", done.body);
    assert_eq!(count(&client, "select count(*) from integration.data_staging where status = 'pending'").await, 3);
    assert_eq!(count(&client, &format!("{BY_ANNA} 'redriven'")).await, 2);
    for wrong in ["id=x&verb=redrive", "verb=redrive", "id=1&verb=forget"] {
        assert_eq!(pages.get(&format!("/change?{wrong}")).await.status, StatusCode::BAD_REQUEST, "{wrong}");
    }
    // What is changed at the same time as it is chosen by a filter is not: what was ticked is what counts.
    let both = pages.page("/change?id=4&verb=move&target=billing&more=elsewhere").await;
    assert!(both.contains("Move 1 message?") && both.contains("doorbell move 4 --to elsewhere"), "{both}");
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_of_dead_letters_are_put_back_together_without_what_failed_again_and_spread_over_a_time() {
    let (_db, client, pages) = failed(3).await;
    let again = "select integration.redrive(1); \
        update integration.data_staging set status = 'failed', error_message = 'refused by billing' where id = 1";
    for statement in again.split("; ") {
        client.batch_execute(statement).await.unwrap();
    }
    let groups = pages.page("/dead-letters").await;
    let ticked: Vec<String> = groups
        .split("name=\"group\" value=\"")
        .skip(1)
        .map(|rest| rest.split('"').next().unwrap().replace("&#38;", "&"))
        .map(|group| group.bytes().map(|byte| format!("%{byte:02X}")).collect())
        .collect();
    assert_eq!(ticked.len(), 2, "{groups}");
    let preview = pages.page(&format!("/change?verb=redrive&group={}&group={}", ticked[0], ticked[1])).await;
    for text in ["Redrive 4 messages?", "1 of them were redriven before", "3 of <a", "1 of <a", "Leave those out"] {
        assert!(preview.contains(text), "{text}: {preview}");
    }
    assert_eq!(preview.matches("doorbell redrive --status failed --target ").count(), 2, "{preview}");
    let without = preview.split("href=\"change?").find(|link| link.contains("redriven=false")).expect("a link");
    let address = without.split('"').next().unwrap().replace("&#38;", "&");
    let preview = pages.page(&format!("/change?{address}")).await;
    assert!(preview.contains("Redrive 3 messages?") && !preview.contains("redriven before"), "{preview}");
    let wrong = pages.post("/change", &format!("{}&more=soon", form(&preview))).await;
    assert_eq!(wrong.status, StatusCode::BAD_REQUEST, "{}", wrong.body);
    let done = pages.post("/change", &format!("{}&more=10m", form(&preview))).await;
    assert!(done.body.contains("3 messages were redriven") && done.body.contains("--spread 10m"), "{}", done.body);
    let due = "select count(*) from integration.data_staging where id <> 1 and status = 'scheduled' \
        and available_at between updated_at and updated_at + interval '10 min'";
    assert_eq!(count(&client, due).await, 3);
    for wrong in ["group=", "group=x%3Dy"] {
        let refused = pages.get(&format!("/change?verb=redrive&{wrong}")).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{wrong}: {}", refused.body);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_said_is_not_everything() {
    let (_db, client, pages) = failed(1).await;
    for (path, form) in
        [("/change?verb=redrive", None), ("/change?verb=forget&target=mail", None), ("/change", Some("verb=redrive"))]
    {
        let answer = match form {
            None => pages.get(path).await,
            Some(form) => pages.post(path, form).await,
        };
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{path}: {}", answer.body);
    }
    let wrong = pages.get("/change?verb=cancel&status=failed").await;
    assert!(wrong.status == StatusCode::BAD_REQUEST && wrong.body.contains("these can"), "{}", wrong.body);
    assert_eq!(count(&client, "select count(*) from integration.data_staging where status = 'failed'").await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_is_paused_resumed_and_set_from_its_page() {
    let (_db, client, pages) = failed(1).await;
    let paused = pages.post("/pause", "target=mail&reason=spring+cleaning&for=1h").await;
    assert_eq!((paused.status, paused.header("location")), (StatusCode::SEE_OTHER, "target?name=mail"));
    let page = pages.page("/target?name=mail").await;
    for text in ["was paused by doorbell ui (anna)", "spring cleaning", "it goes on in", "action=\"resume\""] {
        assert!(page.contains(text), "{text}: {page}");
    }
    assert_eq!(pages.post("/resume", "target=mail").await.status, StatusCode::SEE_OTHER);
    assert!(pages.page("/target?name=mail").await.contains("action=\"pause\""));
    let wrong = pages.post("/pause", "target=mail&for=soon").await;
    assert_eq!(wrong.status, StatusCode::BAD_REQUEST, "{}", wrong.body);

    for (setting, value, query) in [
        ("max_in_flight", "20", "max_in_flight = 20"),
        ("completed_retention", "3+days", "completed_retention = '3 days'"),
        ("max_in_flight", "", "max_in_flight is null"),
    ] {
        let set = pages.post("/setting", &format!("target=mail&setting={setting}&value={value}")).await;
        assert_eq!(set.status, StatusCode::SEE_OTHER, "{setting}={value}: {}", set.body);
        let stored = format!("select count(*) from integration.targets where target_app = 'mail' and {query}");
        assert_eq!(count(&client, &stored).await, 1, "{query}");
    }
    for form in ["target=mail&setting=max_in_flight&value=many", "target=mail&setting=paused_at&value=now"] {
        let wrong = pages.post("/setting", form).await;
        assert_eq!(wrong.status, StatusCode::BAD_REQUEST, "{form}: {}", wrong.body);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_breaker_is_opened_and_closed_and_the_audit_page_says_by_whom() {
    let (_db, _client, pages) = failed(1).await;
    let opened = pages.post("/breaker", "key=mail&state=open&reason=maintenance&for=").await;
    assert_eq!((opened.status, opened.header("location")), (StatusCode::SEE_OTHER, "breakers"));
    let page = pages.page("/breakers").await;
    assert!(page.contains("open</span>") && page.contains("value=\"closed\""), "{page}");
    assert_eq!(pages.post("/breaker", "key=mail&state=closed").await.status, StatusCode::SEE_OTHER);
    assert!(!pages.page("/breakers").await.contains("value=\"closed\""));
    let target = pages.page("/target?name=mail").await;
    assert!(target.contains("name=\"key\" value=\"mail\""), "{target}");
    let audit = pages.page("/audit?by=doorbell+ui+%28anna%29").await;
    assert!(
        audit.contains("maintenance") && audit.contains("doorbell audit --by &#39;doorbell ui (anna)&#39;"),
        "{audit}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_may_only_look_is_shown_no_way_to_act_and_has_none() {
    let (db, client, _) = failed(1).await;
    for options in [for_anybody(Rights::LOOK), Options { read_only: true, ..for_anybody(Rights::ALL) }] {
        let pages = Pages::of(&db, options).await;
        for path in [
            "/target?name=mail",
            "/breakers",
            "/change?verb=redrive&target=mail",
            "/message?id=1",
            "/keys",
            "/topics",
            "/schedules",
            "/consumers",
            "/rights",
            "/captures",
            "/dead-letters",
            "/replay?target=mail",
        ] {
            let page = pages.page(path).await;
            assert!(!page.contains("method=\"post\"") && !page.contains("change?verb="), "{path}: {page}");
        }
        for (path, form) in [
            ("/change", "verb=redrive&target=mail"),
            ("/pause", "target=mail"),
            ("/resume", "target=mail"),
            ("/setting", "target=mail&setting=max_in_flight&value=1"),
            ("/breaker", "key=mail&state=open"),
            ("/unblock", "target=mail&key=seven&how=cancel"),
            ("/subscribe", "topic=orders&target=mail"),
            ("/unsubscribe", "topic=orders&target=mail"),
            ("/schedule", "name=nightly&verb=fire"),
            ("/add-schedule", "name=nightly&target=mail&type=report&every=1h"),
            ("/replay", "target=mail"),
            ("/uncapture", "table=orders"),
            ("/evict", "owner=hung"),
            ("/grant", "role=postgres&verb=look"),
            ("/revoke", "role=postgres&verb=look"),
        ] {
            assert_eq!(pages.post(path, form).await.status, StatusCode::FORBIDDEN, "{path}");
        }
    }
    assert_eq!(count(&client, "select count(*) from integration.data_staging where status = 'failed'").await, 2);
    assert_eq!(count(&client, "select count(*) from integration.targets").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_consumes_and_who_may_what_has_a_page() {
    let (db, client, pages) = failed(1).await;
    assert!(pages.page("/consumers").await.contains("No process is registered"));
    assert!(pages.page("/rights").await.contains("Nobody else may anything"));
    let consumer =
        db.broker().await.consumer("mail").fallback(|_| async { Ok(doorbell::Outcome::Done) }).start().await.unwrap();
    crate::support::until(&client, "it is registered", "select exists (select from integration.processes)").await;
    let page = pages.page("/consumers").await;
    assert!(page.contains("alive") && page.contains("target?name=mail"), "{page}");
    consumer.shutdown().await.unwrap();
}
