//! The pages in a real browser.

use std::net::SocketAddr;

use axum::Router;
use doorbell_testing::browser::{Browser, missing};
use doorbell_ui::{Access, Options, Rights, router};
use tokio::{net::TcpListener, task::JoinSet};

use super::{anna, for_anybody, pages::shop, routes::fail_next, texts};
use crate::support::{Database, count};

pub(super) const PAGES: [&str; 20] = [
    "",
    "targets",
    "target?name=mail",
    "messages",
    "messages?where=%24.order+%3D%3D+2",
    "message?id=4&payload=shown",
    "dead-letters",
    "change?verb=redrive&target=mail",
    "consumers",
    "keys",
    "keys?target=keyed",
    "topics?topic=orders&type=order.placed",
    "schedules",
    "requests",
    "captures",
    "replay?target=mail",
    "breakers",
    "rights",
    "audit",
    "nothing",
];

/// What the shop has not: blocked keys, topics, schedules, rights.
const EVERYTHING_ELSE: &str = "select integration.publish('shop', 'keyed', 'order', '1', p_ordering_key => 'seven') \
        from generate_series(1, 2); \
    select integration.request('shop', 'billing', 'price', '{}', '1 h'); \
    create table orders (id integer primary key); select integration.capture('orders', 'mail'); \
    select integration.subscribe('orders', 'mail', '{order.*}'); \
    select integration.schedule('nightly', 'billing', 'report', '{}', p_cron => '30 2 * * *'); \
    select integration.schedule('poll', 'billing', 'poll', '{}', p_every => '5 min'); \
    select integration.pause_schedule('poll')";

/// Serves the pages until the set is dropped; returns their address.
pub(super) async fn served(db: &Database, options: Options) -> (JoinSet<()>, String) {
    serve(router(&db.broker().await, options).unwrap()).await
}

pub(super) async fn serve(router: Router) -> (JoinSet<()>, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        axum::serve(listener, router.into_make_service_with_connect_info::<SocketAddr>()).await.unwrap();
    });
    (serving, url)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_page_can_be_used_by_everybody_in_both_themes_on_desks_and_telephones() {
    let Some(axe) = std::env::var_os("DOORBELL_TEST_AXE") else {
        missing("no axe-core (DOORBELL_TEST_AXE names its axe.min.js; .ci/run fetches it)");
        return;
    };
    let Some(browser) = Browser::start().await else { return };
    let db = shop().await;
    let client = db.client().await;
    client.batch_execute(EVERYTHING_ELSE).await.unwrap();
    fail_next(&client, "keyed", "no such order").await;
    let (_serving, url) = served(&db, for_anybody(Rights::ALL)).await;
    let axe = std::fs::read_to_string(axe).unwrap();
    let script = format!(
        "const tell = arguments[arguments.length - 1]; {axe};
         axe.run().then(found => tell(found.violations.map(v => v.id + ': ' + v.nodes.map(n => n.html).join(' '))))"
    );
    let mut wrong = Vec::new();
    for page in PAGES {
        browser.open(&format!("{url}{page}")).await;
        for (width, theme) in [(1280, "light"), (1280, "dark"), (390, "light"), (390, "dark")] {
            browser.appear(width, theme).await;
            let violations = browser.run_until_told(&script).await;
            // What is too wide scrolls by itself.
            let wide = browser.run("return document.documentElement.scrollWidth > window.innerWidth").await;
            if violations != serde_json::json!([]) || wide != false {
                wrong.push(format!("{page:?} {width} {theme}: too wide: {wide}; {violations}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let complaints: Vec<String> =
        browser.complaints().await.into_iter().filter(|complaint| !complaint.contains("404 (Not Found)")).collect();
    assert!(complaints.is_empty(), "{complaints:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_is_put_back_with_three_presses() {
    let Some(browser) = Browser::start().await else { return };
    let db = shop().await;
    let (_serving, url) = served(&db, for_anybody(Rights::ALL)).await;
    browser.open(&url).await;
    browser.click("a[href^='dead-letters?target=mail']").await;
    browser.until("the groups are there", "document.title.startsWith('Dead letters')").await;
    browser.click("a[href^='change?verb=redrive']").await;
    browser.until("the preview is there", "document.title.startsWith('Redrive 1 message?')").await;
    browser.click("button.act").await;
    browser.until("it was done", "document.querySelector('h1').innerText == '1 message was redriven'").await;
    let pending = "select count(*) from integration.data_staging where id = 4 and status = 'pending'";
    assert_eq!(count(&db.client().await, pending).await, 1);
    let complaints = browser.complaints().await;
    assert!(complaints.is_empty(), "{complaints:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_text_of_a_message_becomes_a_part_of_a_page() {
    let Some(browser) = Browser::start().await else { return };
    let db = texts::hostile().await;
    let (_serving, url) = served(&db, for_anybody(Rights::ALL)).await;
    for page in [
        "",
        "targets",
        "messages",
        "dead-letters",
        "audit",
        "breakers",
        "keys",
        "topics",
        "schedules",
        "requests",
        "captures",
        "change?verb=redrive&status=failed",
        "message?id=1&payload=shown",
        "message?id=2",
    ] {
        browser.open(&format!("{url}{page}")).await;
        let foreign = "return document.querySelectorAll('img, [onfocus], [onerror], script:not([src])').length";
        assert_eq!(browser.run(foreign).await, 0, "{page}");
    }
    let complaints = browser.complaints().await;
    assert!(complaints.is_empty(), "{complaints:?}");
    // Links lead to the targets they name, whatever these are called.
    browser.open(&url).await;
    let links =
        browser.run("return [...document.querySelectorAll('#targets th a')].map(a => [a.href, a.innerText])").await;
    assert!(links.as_array().unwrap().len() >= texts::TEXTS.len(), "{links}");
    for link in links.as_array().unwrap() {
        browser.open(link[0].as_str().unwrap()).await;
        let name = browser.run("return document.querySelector('h1 bdi').textContent").await;
        assert!(texts::TEXTS.contains(&name.as_str().unwrap().trim_start_matches("topic ")), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_address_with_the_token_lets_in_and_the_keyboard_leads_on() {
    let Some(browser) = Browser::start().await else { return };
    let db = shop().await;
    let token = "0123456789abcdef0123456789abcdef";
    let (_serving, url) = served(&db, Options::new(Access::token(token, anna(Rights::ALL)).unwrap())).await;
    browser.open(&url).await;
    browser.until("it asks", "document.querySelector('input[type=password]')").await;
    browser.open(&format!("{url}?token={token}")).await;
    browser.until("it lets in", "document.querySelector('#trouble li')").await;
    let seen = browser.run("return document.cookie + location.href").await;
    assert!(!seen.as_str().unwrap().contains(token), "{seen}");
    // Tab, Enter: past the head of the page.
    browser.keys("\u{e004}").await;
    assert_eq!(browser.run("return document.activeElement.className").await, "skip");
    browser.keys("\u{e007}").await;
    browser.until("the focus is in the content", "location.hash == '#main'").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_are_ticked_and_cancelled_where_scripts_are_off() {
    let Some(browser) = Browser::start().await else { return };
    let db = shop().await;
    let (_serving, url) = served(&db, for_anybody(Rights::ALL)).await;
    browser.allow_scripts(false).await;
    browser.open(&url).await;
    // What scripts add is not there.
    assert_eq!(browser.run("return document.getElementById('live').textContent").await, "");
    browser.click("a[href='messages?status=pending']").await;
    browser.click("input[type=checkbox][value='1']").await;
    browser.click("input[type=checkbox][value='3']").await;
    browser.click("button[value=cancel]").await;
    browser.until("the preview is there", "document.title.startsWith('Cancel 2 messages?')").await;
    browser.click("button.act").await;
    browser.until("it was done", "document.querySelector('h1').innerText == '2 messages were cancelled'").await;
    let cancelled = "select count(*) from integration.data_staging where status = 'cancelled' and id in (1, 3)";
    assert_eq!(count(&db.client().await, cancelled).await, 2);
}
