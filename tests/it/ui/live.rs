//! Numbers that change while somebody watches.

use std::{collections::BTreeMap, net::SocketAddr};

use axum::{
    body::{Body, BodyDataStream},
    http::Request,
};
use doorbell::{Broker, Message};
use doorbell_server::{EphemeralOptions, Server};
use doorbell_testing::browser::Browser;
use doorbell_ui::{Rights, router};
use futures::StreamExt;
use serde_json::Value;
use tokio::{
    net::TcpListener,
    runtime::{self, Runtime},
};
use tokio_postgres::Client;
use tower::ServiceExt;

use super::{Pages, for_anybody, pages::shop};
use crate::support::soon;

/// A viewer, without a browser.
struct Viewer(BodyDataStream, String);

impl Viewer {
    async fn of(pages: &Pages) -> Self {
        Self::at(pages, "/live").await
    }

    async fn at(pages: &Pages, path: &str) -> Self {
        let request = Request::get(path).header("host", "localhost").body(Body::empty()).unwrap();
        let response = pages.0.clone().oneshot(request).await.unwrap();
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self(response.into_body().into_data_stream(), String::new())
    }

    /// The next change.
    async fn next(&mut self) -> Value {
        soon("something changes", async {
            loop {
                if let Some((event, rest)) = self.1.split_once("\n\n") {
                    let data = event.strip_prefix("data: ").map(|data| serde_json::from_str(data).unwrap());
                    self.1 = rest.to_owned();
                    match data {
                        Some(data) => return data,
                        None => continue,
                    }
                }
                let more = self.0.next().await.expect("it goes on").unwrap();
                self.1.push_str(std::str::from_utf8(&more).unwrap());
            }
        })
        .await
    }

    /// The next change that has something of this kind.
    async fn next_with(&mut self, what: &str) -> Value {
        loop {
            let change = self.next().await;
            if !change[what].is_null() {
                return change;
            }
        }
    }
}

const PUBLISH: &str = "select integration.publish('shop', 'billing', 'order.placed', '{}')";

#[tokio::test(flavor = "multi_thread")]
async fn a_viewer_gets_everything_and_then_what_changed_and_no_more() {
    let db = shop().await;
    let client = db.client().await;
    let pages = Pages::of(&db, for_anybody(Rights::LOOK)).await;
    let mut viewer = Viewer::of(&pages).await;
    let first = viewer.next().await;
    assert!(first["parts"]["trouble"].as_str().unwrap().contains("nobody consumes"), "{first}");
    let names = |change: &Value| -> BTreeMap<String, bool> {
        let rows = change["rows"].as_array().unwrap().iter();
        rows.map(|row| (row[0].as_str().unwrap().to_owned(), !row[1].is_null())).collect()
    };
    let of = |billing, mail| BTreeMap::from([("billing".to_owned(), billing), ("mail".to_owned(), mail)]);
    assert_eq!(names(&first), of(true, true));
    client.batch_execute(PUBLISH).await.unwrap();
    let second = viewer.next_with("rows").await;
    assert_eq!(names(&second), of(true, false), "{second}");
    assert!(second["parts"]["heading"].is_null(), "{second}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_viewer_of_a_target_is_told_of_it_alone() {
    let db = shop().await;
    let client = db.client().await;
    let pages = Pages::of(&db, for_anybody(Rights::LOOK)).await;
    let mut viewer = Viewer::at(&pages, "/live?target=billing").await;
    let first = viewer.next().await;
    assert!(first["rows"].is_null() && first["parts"]["trouble"].is_null(), "{first}");
    assert!(first["parts"]["standing"].as_str().unwrap().contains("nobody consumes"), "{first}");
    assert!(first["parts"]["counts"].as_str().unwrap().contains("<dd>3</dd>"), "{first}");
    client.batch_execute("select integration.publish('shop', 'mail', 'welcome', '{}')").await.unwrap();
    client.batch_execute(PUBLISH).await.unwrap();
    let mut second = viewer.next().await;
    while !second["parts"]["counts"].as_str().is_some_and(|counts| counts.contains("<dd>4</dd>")) {
        second = viewer.next().await;
    }
    assert!(second["parts"]["standing"].is_null(), "{second}");
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_of_targets_keys_and_consumers_change_line_by_line() {
    let db = shop().await;
    let client = db.client().await;
    let pages = Pages::of(&db, for_anybody(Rights::LOOK)).await;
    let names = |change: &Value| -> Vec<String> {
        let rows = change["rows"].as_array().unwrap().iter();
        rows.map(|row| row[0].as_str().unwrap().to_owned()).collect()
    };
    let mut targets = Viewer::at(&pages, "/live?view=targets&named=BILL").await;
    assert_eq!(names(&targets.next_with("rows").await), ["billing"]);
    client.batch_execute(PUBLISH).await.unwrap();
    let changed = targets.next_with("rows").await;
    assert!(changed["rows"][0][1].as_str().unwrap().contains(">4</td>"), "{changed}");

    let mut keys = Viewer::at(&pages, "/live?view=keys&target=&after=").await;
    assert!(names(&keys.next_with("rows").await).is_empty());
    let keyed = "select integration.publish('shop', 'keyed', 'order', '1', p_ordering_key => 'seven') \
        from generate_series(1, 2)";
    client.batch_execute(keyed).await.unwrap();
    super::routes::fail_next(&client, "keyed", "no such order").await;
    let blocked = keys.next_with("rows").await;
    assert_eq!(names(&blocked), ["keyed seven"]);
    // Who may not act is shown no way to.
    assert!(!blocked.to_string().contains("unblock"), "{blocked}");

    let mut consumers = Viewer::at(&pages, "/live?view=consumers").await;
    assert!(names(&consumers.next_with("rows").await).is_empty());
    let registered =
        "select integration.register('db1-7', 'db1', 7, 'shop', '0.1.0', '{\"mail\": {\"capacity\": 8}}', 3600000)";
    client.batch_execute(registered).await.unwrap();
    assert_eq!(names(&consumers.next_with("rows").await), ["db1-7"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_viewers_are_told_of_the_same_looks() {
    let db = shop().await;
    let client = db.client().await;
    let pages = Pages::of(&db, for_anybody(Rights::LOOK)).await;
    let mut viewers = Vec::new();
    for _ in 0..10 {
        let mut viewer = Viewer::of(&pages).await;
        viewer.next().await;
        viewers.push(viewer);
    }
    client.batch_execute(PUBLISH).await.unwrap();
    let mut looks = Vec::new();
    for viewer in &mut viewers {
        looks.push(viewer.next_with("rows").await["look"].as_u64().unwrap());
    }
    assert!(looks.iter().all(|look| *look == looks[0]), "{looks:?}");
    // Nobody watches, and whoever comes then gets what is new.
    drop(viewers);
    client.batch_execute(PUBLISH).await.unwrap();
    let mut viewer = Viewer::of(&pages).await;
    let mut last = viewer.next_with("rows").await;
    while !last["parts"]["totals"].as_str().is_some_and(|totals| totals.contains(">6<")) {
        last = viewer.next().await;
    }
}

/// Serves in a runtime of its own, with which every connection ends, as with a process.
async fn serve(broker: &Broker, address: &str) -> (Runtime, SocketAddr) {
    let listener = soon("the address is free", async {
        loop {
            match std::net::TcpListener::bind(address) {
                Ok(listener) => return listener,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    })
    .await;
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let router = router(broker, for_anybody(Rights::ALL)).unwrap();
    let server = runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    server.spawn(async move {
        let listener = TcpListener::from_std(listener).unwrap();
        axum::serve(listener, router.into_make_service_with_connect_info::<SocketAddr>()).await.unwrap();
    });
    (server, address)
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_change_on_the_screen_and_outages_are_said_there() {
    let Some(browser) = Browser::start().await else { return };
    let db = shop().await;
    let client = db.client().await;
    let broker = db.broker().await;
    let (server, address) = serve(&broker, "127.0.0.1:0").await;
    browser.open(&format!("http://{address}/")).await;
    let says = |text: &str| format!("document.getElementById('live').textContent.startsWith('{text}')");
    let pending = |count: u32| format!("document.querySelector('tr[data-row=billing] td').textContent == '{count}'");
    browser.until("it is live", &says("live")).await;
    browser.run("document.querySelector('tr[data-row=billing] a').focus()").await;
    client.batch_execute(PUBLISH).await.unwrap();
    browser.until("the number changes", &pending(4)).await;
    // Whoever was at a line with the keyboard still is.
    assert_eq!(browser.run("return document.activeElement.closest('tr').dataset.row").await, "billing");
    what_is_open_stays_open(&browser, &client, &format!("http://{address}/consumers")).await;
    browser.open(&format!("http://{address}/")).await;
    browser.until("it is live", &says("live")).await;

    client.batch_execute("alter schema integration rename to elsewhere").await.unwrap();
    browser.until("it says that the database is away", &says("The database does not answer")).await;
    client.batch_execute("alter schema elsewhere rename to integration").await.unwrap();
    browser.until("it is live again", &says("live")).await;

    server.shutdown_background();
    browser.until("it says that the program is away", &says("Doorbell does not answer")).await;
    client.batch_execute(PUBLISH).await.unwrap();
    let (server, _) = serve(&broker, &address.to_string()).await;
    browser.until("it comes back by itself", &pending(5)).await;
    server.shutdown_background();
    // What the browser itself says about the outage is no complaint of a page's.
    let complaints: Vec<String> =
        browser.complaints().await.into_iter().filter(|complaint| !complaint.contains("net::ERR_")).collect();
    assert!(complaints.is_empty(), "{complaints:?}");
}

/// Of a line that changes the cells that do not are left alone.
async fn what_is_open_stays_open(browser: &Browser, client: &Client, consumers: &str) {
    let register =
        "select integration.register('db1-7', 'db1', 7, 'shop', '0.1.0', '{\"mail\": {\"capacity\": 8}}', 3600000)";
    client.batch_execute(register).await.unwrap();
    browser.open(consumers).await;
    browser.click("tr[data-row='db1-7'] summary").await;
    let hand = "update integration.data_staging set status = 'processing', owner = 'db1-7', attempt = 1 where id = 1";
    client.batch_execute(hand).await.unwrap();
    let in_hand = "document.querySelector('tr[data-row=\"db1-7\"] .n').textContent == '1'";
    browser.until("it has one in hand", in_hand).await;
    assert_eq!(browser.run("return document.querySelector('details').open").await, true);
    let back = "update integration.data_staging set status = 'pending' where id = 1; delete from integration.processes";
    for statement in back.split("; ") {
        client.batch_execute(statement).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_lead_through_the_pages_and_a_theme_is_kept() {
    let Some(browser) = Browser::start().await else { return };
    let db = shop().await;
    let (_serving, url) = super::browser::served(&db, for_anybody(Rights::ALL)).await;
    browser.open(&url).await;
    browser.keys("j").await;
    browser.until("the first line has the focus", "document.activeElement.closest('li, tr')").await;
    browser.keys("t").await;
    let theme = browser.run("return document.documentElement.dataset.theme").await;
    browser.keys("gd").await;
    browser.until("the dead letters are there", "document.title.startsWith('Dead letters')").await;
    browser.until("the theme is kept", &format!("document.documentElement.dataset.theme == {theme}")).await;
    browser.keys("/mail\u{e007}").await;
    browser
        .until("the field leads on", "document.title.startsWith('Targets') && location.search == '?named=mail'")
        .await;
    commands_are_copied_and_a_wrong_clock_is_seen(&browser, &url).await;
}

async fn commands_are_copied_and_a_wrong_clock_is_seen(browser: &Browser, url: &str) {
    let origin = url.trim_end_matches('/');
    let allowed =
        serde_json::json!({ "origin": origin, "permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"] });
    browser.devtools("Browser.grantPermissions", allowed).await;
    browser.open(&format!("{url}message?id=4")).await;
    browser.click(".causes .copy").await;
    browser.until("it was copied", "document.querySelector('.causes .copy').textContent == 'Copied'").await;
    let copied = browser.run_until_told("navigator.clipboard.readText().then(arguments[arguments.length - 1])").await;
    assert_eq!(copied, "doorbell redrive 4");
    let ages =
        browser.run("return [...document.querySelectorAll('time')].every(t => / ago$/.test(t.dataset.ago))").await;
    assert_eq!((ages, browser.run("return document.getElementById('apart')").await), (true.into(), Value::Null));
    let late = serde_json::json!({ "source": "const now = Date.now; Date.now = () => now() - 7205000;" });
    browser.devtools("Page.addScriptToEvaluateOnNewDocument", late).await;
    browser.open(&format!("{url}message?id=4")).await;
    let warning = browser.run("return document.getElementById('apart').textContent").await;
    assert!(warning.as_str().unwrap().contains("2 h behind the server's"), "{warning}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_outlives_the_server_and_says_of_when_its_numbers_are() {
    let Some(browser) = Browser::start().await else { return };
    let options = EphemeralOptions { durable: true, ..EphemeralOptions::default() };
    let mut server = Server::ephemeral(options).await.unwrap();
    let broker = Broker::connect(&server.connection_string("postgres")).await.unwrap();
    broker.migrate().await.unwrap();
    let order = Message::new("billing", "order.placed", &1).unwrap();
    broker.producer("shop").publish(&order).await.unwrap();
    let (pages, address) = serve(&broker, "127.0.0.1:0").await;
    browser.open(&format!("http://{address}/target?name=billing")).await;
    let pending = |count: u32| format!("document.querySelector('#counts dd').textContent == '{count}'");
    let says = |text: &str| format!("document.getElementById('live').textContent.startsWith('{text}')");
    browser.until("it is live", &says("live")).await;
    server.kill().await.unwrap();
    browser.until("it says so", &says("The database does not answer. These numbers are from ")).await;
    let kept = format!("return /\\d:\\d\\d/.test(document.getElementById('live').textContent) && {}", pending(1));
    assert_eq!(browser.run(&kept).await, true);
    assert_eq!(browser.run("return document.documentElement.classList.contains('old')").await, true);
    let asked = "const tell = arguments[arguments.length - 1]; fetch('targets').then(answer => tell(answer.status))";
    assert_eq!(browser.run_until_told(asked).await, 503);
    server.start_again().await.unwrap();
    browser.until("it is live again", &says("live")).await;
    soon("it takes messages again", async { while broker.producer("shop").publish(&order).await.is_err() {} }).await;
    browser.until("the number changes", &format!("!({})", pending(1))).await;
    pages.shutdown_background();
    server.stop().await.unwrap();
}
