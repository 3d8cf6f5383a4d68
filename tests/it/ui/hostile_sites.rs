//! What pages of others try, in a real browser.

use std::net::SocketAddr;

use axum::{Router, response::Html, routing::get};
use doorbell_testing::browser::Browser;
use doorbell_ui::{Options, Rights};
use tokio::{net::TcpListener, task::JoinSet};

use super::{browser::served, for_anybody, pages::shop};
use crate::support::count;

/// A name that somebody else owns, whom the browser believes that it is this machine's.
const REBOUND: &str = "--host-resolver-rules=MAP evil.example 127.0.0.1";

/// A page of somebody else.
async fn foreign(page: String) -> (JoinSet<()>, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().route("/", get(async move || Html(page)));
    let mut serving = JoinSet::new();
    serving.spawn(async move { axum::serve(listener, router).await.unwrap() });
    (serving, address)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_name_that_is_given_our_address_reads_nothing() {
    let Some(browser) = Browser::start_with(&[REBOUND]).await else { return };
    let db = shop().await;
    let (_serving, url) = served(&db, for_anybody(Rights::ALL)).await;
    browser.open(&url).await;
    browser.until("it is ours", "document.querySelector('#targets')").await;
    browser.open(&url.replace("127.0.0.1", "evil.example")).await;
    let seen = browser.run("return document.body.innerText").await;
    assert!(seen.as_str().unwrap().contains("does not go by the name"), "{seen}");
    assert!(!seen.as_str().unwrap().contains("billing"), "{seen}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_on_a_page_of_somebody_else_changes_nothing_here() {
    let Some(browser) = Browser::start_with(&[REBOUND]).await else { return };
    let db = shop().await;
    let (_serving, url) = served(&db, for_anybody(Rights::ALL)).await;
    let form = format!(
        "<form method=post action='{url}pause'><input name=target value=billing><button>A prize!</button></form>"
    );
    let (_foreign, address) = foreign(form).await;
    browser.open(&format!("http://evil.example:{}/", address.port())).await;
    browser.click("button").await;
    browser.until("the answer is there", "!document.querySelector('button')").await;
    let paused = "select count(*) from integration.targets where target_app = 'billing' and paused_at is not null";
    assert_eq!(count(&db.client().await, paused).await, 0);
    // From a page of ours it does.
    browser.open(&format!("{url}target?name=billing")).await;
    browser.click("summary").await;
    browser.click("form[action=pause] button").await;
    browser.until("it was paused", "document.querySelector('form[action=resume]')").await;
    assert_eq!(count(&db.client().await, paused).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn on_read_only_pages_there_is_nothing_to_press_and_what_is_sent_from_them_is_refused() {
    let Some(browser) = Browser::start().await else { return };
    let db = shop().await;
    let (_serving, url) = served(&db, Options { read_only: true, ..for_anybody(Rights::ALL) }).await;
    for page in super::browser::PAGES {
        browser.open(&format!("{url}{page}")).await;
        let ways =
            "return document.querySelectorAll('form[method=post], input[type=checkbox], a[href^=\"change?\"]').length";
        assert_eq!(browser.run(ways).await, 0, "{page}");
    }
    browser.open(&url).await;
    let sent = "const tell = arguments[arguments.length - 1]; \
        fetch('pause', { method: 'POST', body: new URLSearchParams({ target: 'billing' }) }).then(answer => tell(answer.status))";
    assert_eq!(browser.run_until_told(sent).await, 403);
    assert_eq!(
        count(&db.client().await, "select count(*) from integration.targets where target_app = 'billing'").await,
        0
    );
}
