//! What the pages say.

use axum::http::StatusCode;
use doorbell_ui::{Options, Rights};

use super::{Pages, for_anybody};
use crate::support::{Database, stop_the_clock};

/// Something of everything: nobody consumes billing, mail is paused, one message of mail has failed.
pub(super) async fn shop() -> Database {
    let db = Database::new().await;
    let client = db.client().await;
    stop_the_clock(&client, 0).await;
    let sql = "select integration.publish('shop', 'billing', 'order.placed', jsonb_build_object('order', n)) \
            from generate_series(1, 3) n; \
        select integration.publish('shop', 'mail', 'welcome', '{}'); \
        select integration.claim('mail', 'tester', p_lease => '1 h'); \
        select integration.settle('tester', '{4}', '{1}', array(select created_at from integration.data_staging \
            where id = 4), '{reject}', '{no such address: anna@example.com}', '{null}'); \
        select integration.publish('shop', 'mail', 'welcome', '{}'); \
        select integration.pause('mail', 'spring cleaning')";
    for statement in sql.split("; ") {
        client.batch_execute(statement).await.unwrap_or_else(|error| panic!("{statement}: {error:?}"));
    }
    stop_the_clock(&client, 90).await;
    db
}

#[tokio::test(flavor = "multi_thread")]
async fn the_overview_begins_with_what_is_wrong_and_what_to_type() {
    let pages = Pages::of(&shop().await, for_anybody(Rights::ALL)).await;
    let page = pages.page("/").await;
    let at = |text: &str| page.find(text).unwrap_or_else(|| panic!("{text}: {page}"));
    assert!(at("nobody consumes") < at("failed for good"));
    assert!(at("failed for good") < at("<table"));
    for text in [
        "start the service that handles the messages of ",
        "doorbell resume mail",
        "spring cleaning",
        "doorbell errors --target mail",
    ] {
        at(text);
    }
    at("<a href=\"messages?status=failed&amp;target=mail\">1</a>");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_without_messages_says_what_to_do_first() {
    let pages = Pages::of(&Database::new().await, for_anybody(Rights::ALL)).await;
    let page = pages.page("/").await;
    assert!(page.contains("All is well") && page.contains("doorbell publish billing"), "{page}");
    assert!(pages.page("/targets").await.contains("No target has such a name"));
    assert!(pages.page("/messages").await.contains("No such message"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_says_what_keeps_it_and_what_is_next() {
    let pages = Pages::of(&shop().await, for_anybody(Rights::ALL)).await;
    let mail = pages.page("/target?name=mail").await;
    for text in ["was paused by", "spring cleaning", "max_retries", "No live process consumes it", "50.0 %"] {
        assert!(mail.contains(text), "{text}: {mail}");
    }
    let billing = pages.page("/target?name=billing&span=24h").await;
    let ids: Vec<usize> =
        (1..=3).map(|id| billing.find(&format!("message?id={id}\"")).unwrap_or_else(|| panic!("{billing}"))).collect();
    assert!(ids.is_sorted(), "in the order they are taken: {ids:?}");
    let absent = pages.get("/target?name=bilIing").await;
    assert!(absent.status == StatusCode::NOT_FOUND && absent.body.contains("bilIing"), "{}", absent.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_are_found_by_what_the_address_says_page_by_page() {
    let db = shop().await;
    let client = db.client().await;
    let many = "select integration.publish('shop', 'many', 'tick', to_jsonb(n)) from generate_series(1, 60) n";
    client.batch_execute(many).await.unwrap();
    let pages = Pages::of(&db, for_anybody(Rights::ALL)).await;
    let failed = pages.page("/messages?status=failed").await;
    assert!(failed.contains("no such address: anna@example.com") && failed.contains("message?id=4\""), "{failed}");
    assert!(failed.contains("doorbell list --status failed"), "{failed}");
    let one = pages.page("/messages?where=%24.order+%3D%3D+2").await;
    assert!(one.contains("message?id=2\"") && !one.contains("message?id=1\""), "{one}");

    let ids = |page: &str| page.matches("<th scope=\"row\"").count();
    let first = pages.page("/messages?target=many&status=pending").await;
    assert_eq!(ids(&first), 50);
    let next = |page: &str| {
        let link = page.split("rel=\"next\" href=\"").nth(1)?.split('"').next()?;
        Some(format!("/{}", link.replace("&#38;", "&")))
    };
    let second = pages.page(&next(&first).expect("a next page")).await;
    assert_eq!(ids(&second), 10);
    assert_eq!(next(&second), None);

    for (wrong, says) in [("since=soon", "since:"), ("status=dead", "status:"), ("where=%24.", "jsonpath")] {
        let answer = pages.get(&format!("/messages?{wrong}")).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{wrong}: {}", answer.body);
        assert!(answer.body.contains(says), "{wrong}: {}", answer.body);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_is_downloaded_with_a_line_for_each_message() {
    let db = shop().await;
    let many = "select integration.publish('shop', 'many', 'tick', to_jsonb(n)) from generate_series(1, 1100) n";
    db.client().await.batch_execute(many).await.unwrap();
    let pages = Pages::of(&db, for_anybody(Rights::LOOK)).await;
    let file = pages.get("/messages.ndjson?target=many&status=pending").await;
    assert_eq!(file.header("content-type"), "application/x-ndjson");
    assert!(file.header("content-disposition").starts_with("attachment"));
    let ids: Vec<i64> = file
        .body
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .inspect(|message| assert!(message["type"] == "tick" && message["data"].is_null(), "{message}"))
        .map(|message| message["id"].as_i64().unwrap())
        .collect();
    assert!(ids.len() == 1100 && ids.is_sorted(), "{}", ids.len());
    let wrong = pages.get("/messages.ndjson?status=dead").await;
    assert_eq!(wrong.status, StatusCode::BAD_REQUEST);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_leads_to_its_trace_and_says_until_when_it_is_wanted() {
    let db = shop().await;
    let traced = "select integration.publish('shop', 'mail', 'welcome', '{}', p_expires_after => '1 h', \
        p_headers => '{\"traceparent\": \"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\"}')";
    let client = db.client().await;
    client.batch_execute(traced).await.unwrap();
    let id = client.query_one("select max(id) from integration.data_staging", &[]).await.unwrap().get::<_, i64>(0);
    let shown = async |options: Options| Pages::of(&db, options).await.page(&format!("/message?id={id}")).await;
    let at = |url: &str| Options { trace_url: Some(url.to_owned()), ..for_anybody(Rights::ALL) };
    let page = shown(at("https://jaeger/trace/{trace_id}?x=1&y")).await;
    for text in ["https://jaeger/trace/4bf92f3577b34da6a3ce929d0e0e4736?x=1", "not wanted after"] {
        assert!(page.contains(text), "{text}: {page}");
    }
    let hidden = Options { hide_payload: true, ..at("https://jaeger/{trace_id}") };
    assert!(!shown(hidden).await.contains("jaeger"));
    for wrong in ["javascript:{trace_id}", "https://jaeger/"] {
        assert!(doorbell_ui::router(&db.broker().await, at(wrong)).is_err(), "{wrong}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_says_why_what_happened_and_what_to_type() {
    let pages = Pages::of(&shop().await, for_anybody(Rights::ALL)).await;
    let failed = pages.page("/message?id=4").await;
    for text in ["doorbell redrive 4", "no such address", "<th scope=\"row\">failed</th>", "2026-03-01 12:00:00"] {
        assert!(failed.contains(text), "{text}: {failed}");
    }
    let waits = pages.page("/message?id=1").await;
    assert!(waits.contains("no live consumer"), "{waits}");
    let absent = pages.get("/message?id=99").await;
    assert!(absent.status == StatusCode::NOT_FOUND && absent.body.contains("no such message"), "{}", absent.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_is_asked_once_and_tells_everybody() {
    let pages = Pages::of(&shop().await, for_anybody(Rights::ALL)).await;
    assert!(pages.page("/doctor").await.contains("Nobody has asked it"));
    let asked = pages.page("/doctor?examine=now").await;
    assert!(asked.contains("checks are well") && asked.contains("nobody consumes them"), "{asked}");
    assert!(pages.page("/doctor").await.contains("checks are well"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_field_in_the_head_leads_to_what_was_written() {
    let pages = Pages::of(&shop().await, for_anybody(Rights::ALL)).await;
    let found = pages.get("/find?q=4").await;
    assert_eq!((found.status, found.header("location")), (StatusCode::SEE_OTHER, "message?id=4"));
    let found = pages.get("/find?q=BILL").await;
    assert_eq!(found.header("location"), "targets?named=BILL");
    let targets = pages.page("/targets?named=BILL").await;
    assert!(targets.contains("name=billing") && !targets.contains("name=mail"), "{targets}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_database_the_page_says_so() {
    let db = Database::new().await;
    let pages = Pages::of(&db, for_anybody(Rights::ALL)).await;
    let client = db.client().await;
    client.batch_execute("alter schema integration rename to elsewhere").await.unwrap();
    let away = pages.get("/").await;
    assert_eq!(away.status, StatusCode::SERVICE_UNAVAILABLE, "{}", away.body);
    assert!(away.body.contains("id=\"away\""), "{}", away.body);
    client.batch_execute("alter schema elsewhere rename to integration").await.unwrap();
    assert!(pages.page("/").await.contains("All is well"));
}
