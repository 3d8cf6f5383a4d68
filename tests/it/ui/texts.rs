//! Texts that would be code, everywhere where text of others is shown.

use axum::http::StatusCode;
use doorbell_ui::Rights;

use super::{Pages, for_anybody, routes::fail_next};
use crate::support::Database;

pub(super) const TEXTS: [&str; 7] = [
    "<img src=x onerror=alert(1)>",
    "</script><script>alert(1)</script>",
    "\" onfocus=\"alert(1)\" autofocus=\"",
    "' onfocus='alert(1)",
    "a/b%2F?c#d&e=f",
    "\u{202e}gnp.exe\u{202c} 🔔",
    "{{7*7}}<!--",
];

/// Whether the text stands there only as text: no tag of it was opened, no attribute left.
fn is_text(page: &str) -> bool {
    !["<img", "<script>alert", "\" onfocus", "' onfocus", "<!--"].iter().any(|code| page.contains(code))
}

/// Messages that are all these texts, some failed, their targets paused.
pub(super) async fn hostile() -> Database {
    let db = Database::new().await;
    let client = db.client().await;
    for (at, text) in TEXTS.into_iter().enumerate() {
        let publish = "select integration.publish($1, $1, $1, to_jsonb($1::text), p_headers => jsonb_build_object($1::text, $1::text), \
            p_dedup_key => $1, p_ordering_key => $1)";
        client.execute(publish, &[&text]).await.unwrap();
        if at % 2 == 1 {
            fail_next(&client, text, text).await;
        }
        client.execute("select integration.pause($1, $1)", &[&text]).await.unwrap();
        // In types * and # are patterns.
        let subscribe =
            "select integration.subscribe('topic ' || $1, $1, case when $1 !~ '[*#]' then array[$1] end, array[$1])";
        client.execute(subscribe, &[&text]).await.unwrap();
        let schedule = "select integration.schedule($1, $1, $1, '{}', p_every => '1 day')";
        client.execute(schedule, &[&text]).await.unwrap();
        client.execute("select integration.pause_schedule($1)", &[&text]).await.unwrap();
        let request = "select integration.request($1, $1, $1, '{}', '1 h')";
        client.execute(request, &[&text]).await.unwrap();
        let table = format!("\"{}\"", text.replace('"', "\"\""));
        client.batch_execute(&format!("create table {table} (id integer primary key)")).await.unwrap();
        client.execute("select integration.capture($1::text::regclass, $2)", &[&table, &text]).await.unwrap();
    }
    // Keys are blocked where something waits behind what failed.
    let behind = "insert into integration.data_staging (source_app, target_app, record_type, data, ordering_key) \
        select source_app, target_app, record_type, data, ordering_key from integration.data_staging where status = 'failed'";
    client.batch_execute(behind).await.unwrap();
    db
}

#[tokio::test(flavor = "multi_thread")]
async fn what_publishers_write_is_text_on_every_page() {
    let db = hostile().await;
    let pages = Pages::of(&db, for_anybody(Rights::ALL)).await;
    for page in [
        "/",
        "/targets",
        "/messages",
        "/messages?status=failed",
        "/dead-letters",
        "/audit",
        "/breakers",
        "/keys",
        "/topics",
        "/schedules",
        "/requests",
        "/captures",
        "/change?verb=redrive&status=failed",
        "/doctor?examine=now",
    ] {
        assert!(is_text(&pages.page(page).await), "{page}");
    }
    for id in 1..=TEXTS.len() {
        let page = pages.page(&format!("/message?id={id}&payload=shown")).await;
        assert!(is_text(&page), "{page}");
    }
    // Every target can be reached by its link.
    let overview = pages.page("/").await;
    let links: Vec<&str> =
        overview.split("href=\"target?name=").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
    assert!(links.len() >= TEXTS.len(), "{links:?}");
    for link in links {
        let page = pages.page(&format!("/target?name={link}")).await;
        assert!(is_text(&page), "{link}");
        assert!(page.contains("was paused by") || link.starts_with("topic%20"), "{link}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_address_says_is_text_too() {
    let db = Database::new().await;
    let pages = Pages::of(&db, for_anybody(Rights::ALL)).await;
    for text in TEXTS {
        let text: String = text.bytes().map(|byte| format!("%{byte:02X}")).collect();
        for path in [
            "target?name",
            "targets?named",
            "messages?type",
            "messages?since",
            "messages?after",
            "message?id",
            "keys?target",
            "topics?type=x&topic",
            "replay?target",
            "change?verb=redrive&group",
            "x?y",
        ] {
            let answer = pages.get(&format!("/{path}={text}")).await;
            assert_ne!(answer.status, StatusCode::INTERNAL_SERVER_ERROR, "{path}");
            assert!(is_text(&answer.body), "{path}: {}", answer.body);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payload_of_a_megabyte_is_shown_and_a_larger_one_is_cut() {
    let db = Database::new().await;
    let client = db.client().await;
    for megabytes in [1, 3] {
        let sql = format!("select integration.publish('s', 't', 'r', to_jsonb(repeat('x', {megabytes} * 1000000)))");
        client.batch_execute(&sql).await.unwrap();
    }
    let pages = Pages::of(&db, for_anybody(Rights::ALL)).await;
    assert!(!pages.page("/message?id=1&payload=shown").await.contains("--data"));
    let cut = pages.page("/message?id=2&payload=shown").await;
    assert!(cut.contains("doorbell show 2 --data") && cut.len() < 2 << 20, "{}", cut.len());
}
