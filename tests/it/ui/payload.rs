//! Who sees payloads.

use axum::http::StatusCode;
use doorbell_ui::{Options, Rights};

use super::{Pages, for_anybody};
use crate::support::Database;

async fn card() -> Database {
    let db = Database::new().await;
    let sql = "select integration.publish('shop', 'billing', 'order', \
        '{\"card\": {\"number\": \"4111\", \"cents\": 12345678901234567890.10}}', p_headers => '{\"tenant\": \"acme\"}')";
    db.client().await.batch_execute(sql).await.unwrap();
    db
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payload_is_closed_until_somebody_opens_it() {
    let pages = Pages::of(&card().await, for_anybody(Rights::ALL)).await;
    let closed = pages.page("/message?id=1").await;
    assert!(!closed.contains("4111") && !closed.contains("acme") && closed.contains("payload=shown"), "{closed}");
    let open = pages.page("/message?id=1&payload=shown").await;
    for text in ["4111", "acme", "12345678901234567890.10"] {
        assert!(open.contains(text), "{text}: {open}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_may_not_see_payloads_cannot_look_for_them_either() {
    let db = card().await;
    let hidden = Options { hide_payload: true, ..for_anybody(Rights::ALL) };
    for options in [for_anybody(Rights { payload: false, act: true }), hidden] {
        let pages = Pages::of(&db, options).await;
        let page = pages.page("/message?id=1&payload=shown").await;
        assert!(!page.contains("4111") && !page.contains("acme") && page.contains("hidden from you"), "{page}");
        for filter in ["where=%24.card.number+%3D%3D+%224111%22", "header=tenant%3Dacme"] {
            let guessed = pages.get(&format!("/messages?{filter}")).await;
            assert_eq!(guessed.status, StatusCode::FORBIDDEN, "{}", guessed.body);
        }
        assert!(!pages.page("/messages").await.contains("name=\"where\""));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_redacted_is_neither_shown_nor_guessed() {
    let options = Options { redact: vec!["card.number".to_owned()], ..for_anybody(Rights::ALL) };
    let pages = Pages::of(&card().await, options).await;
    let page = pages.page("/message?id=1&payload=shown").await;
    assert!(!page.contains("4111") && page.contains("(redacted)"), "{page}");
    assert!(page.contains("12345678901234567890.10"), "{page}");
    assert_eq!(pages.get("/messages?where=%24.card.number+%3D%3D+1").await.status, StatusCode::FORBIDDEN);
}
