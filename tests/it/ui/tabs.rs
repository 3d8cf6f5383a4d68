//! Who is told of changes: whoever looks, and nobody else.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use axum::{body::Body, extract::Request, middleware, middleware::Next, response::Response};
use doorbell_testing::browser::Browser;
use doorbell_ui::{Rights, router};
use futures::StreamExt;
use tokio::task::JoinSet;

use super::{browser::serve, for_anybody, pages::shop};
use crate::support::{Database, soon};

/// Streams that are being sent.
#[derive(Clone, Default)]
struct Streams(Arc<AtomicUsize>);

/// One of them.
struct Stream(Arc<AtomicUsize>);

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Streams {
    /// Counts a stream from its beginning until nobody is there any more who reads it.
    async fn counted(self, request: Request, next: Next) -> Response {
        let is_stream = request.uri().path() == "/live";
        let response = next.run(request).await;
        if !is_stream {
            return response;
        }
        self.0.fetch_add(1, Ordering::SeqCst);
        let stream = Stream(self.0.clone());
        response.map(|body| {
            Body::from_stream(body.into_data_stream().inspect(move |_| {
                let _ = &stream;
            }))
        })
    }

    async fn are(&self, count: usize, when: &str) {
        soon(&format!("{count} streams {when}"), async {
            while self.0.load(Ordering::SeqCst) != count {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}

async fn served(db: &Database, streams: &Streams) -> (JoinSet<()>, String) {
    let streams = streams.clone();
    let counting = middleware::from_fn(move |request, next| streams.clone().counted(request, next));
    serve(router(&db.broker().await, for_anybody(Rights::ALL)).unwrap().layer(counting)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn of_nine_tabs_all_load_and_only_the_one_in_sight_is_told_what_changes() {
    let Some(browser) = Browser::start().await else { return };
    let db = shop().await;
    let streams = Streams::default();
    let (_serving, url) = served(&db, &streams).await;
    let mut tabs = Vec::new();
    for number in 1..=9 {
        tabs.push(browser.new_tab().await);
        browser.open(&url).await;
        browser.until("it is live", "document.getElementById('live').textContent == 'live'").await;
        streams.are(1, &format!("with tab {number}")).await;
    }
    browser.turn_to(&tabs[0]).await;
    let client = db.client().await;
    client.batch_execute("select integration.publish('shop', 'billing', 'order.placed', '{}')").await.unwrap();
    let changed = "document.querySelector('tr[data-row=billing] td').textContent == '4'";
    browser.until("the number changes in the tab that is in sight again", changed).await;
    streams.are(1, "with the first tab").await;
    // A tab with something else.
    browser.new_tab().await;
    streams.are(0, "when nobody looks").await;
}
