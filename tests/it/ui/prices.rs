//! What each page costs where there is much: 1.2 million messages, 2,000 targets. It fills that many only if it is asked to:
//! `DOORBELL_TEST_PRICES=1 cargo test --release --test it -- ui::prices --nocapture`.

use std::time::Instant;

use doorbell_ui::Rights;
use tokio_postgres::Client;

use super::{Pages, for_anybody};
use crate::support::{Database, count, until};

const FILL: [&str; 6] = [
    "insert into integration.data_staging (source_app, target_app, record_type, data, status, created_at, processed_at) \
        select 'shop' || n % 7, 'target' || n % 2000, 'order.' || n % 11, jsonb_build_object('order', n), 'completed', \
               now() - (1172000 - n) * interval '70 ms', now() \
          from generate_series(1, 1172000) n",
    "insert into integration.data_staging (source_app, target_app, record_type, data, status, error_message) \
        select 'shop' || n % 7, 'target' || n % 40, 'order.' || n % 11, '{}', 'failed', \
               'connection refused: tcp 10.0.0.' || n % 250 || ':443' \
          from generate_series(1, 3000) n",
    "insert into integration.data_staging (source_app, target_app, record_type, data, status, available_at) \
        select 'shop', 'target' || n % 300, 'order.1', '{}', 'scheduled', now() + n * interval '1 min' \
          from generate_series(1, 5000) n",
    "insert into integration.data_staging (source_app, target_app, record_type, data) \
        select 'shop', 'target' || n % 200, 'order.1', '{}' from generate_series(1, 20000) n",
    "insert into integration.audit_log (staging_id, app_name, action, target_app) \
        select n, 'consumer', 'completed', 'target' || n % 2000 from generate_series(1, 1200000) n",
    "select integration.pause('target' || n, 'spring cleaning') from generate_series(1, 20) n",
];

const PAGES: [&str; 23] = [
    "/",
    "/targets",
    "/target?name=target5",
    "/messages",
    "/messages?status=failed",
    "/messages?target=target5",
    "/messages?type=none",
    "/messages?where=%24.order+%3D%3D+7",
    "/message?id=1175500",
    "/dead-letters",
    "/change?verb=redrive&status=failed",
    "/change?verb=cancel&source=shop",
    "/change?verb=redrive&status=completed&type=none",
    "/keys",
    "/topics",
    "/replay?target=target5",
    "/schedules",
    "/requests",
    "/captures",
    "/consumers",
    "/audit",
    "/audit?action=paused",
    "/audit?target=target5",
];

/// How often each is asked for.
const TIMES: u32 = 10;

/// Statements that the sessions of pages made, and blocks that they looked at.
async fn spent(client: &Client) -> (i64, i64) {
    // Sessions say what they did when they end at the latest.
    let over = "select count(*) = 1 from pg_stat_activity where datname = current_database() and backend_type = 'client backend'";
    until(client, "the sessions of the pages have ended", over).await;
    client.batch_execute("select pg_stat_clear_snapshot()").await.unwrap();
    let of = async |what: &str| {
        count(client, &format!("select {what} from pg_stat_database where datname = current_database()")).await
    };
    (of("xact_commit + xact_rollback").await, of("blks_hit + blks_read").await)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_page_has_a_price() {
    if std::env::var_os("DOORBELL_TEST_PRICES").is_none() {
        println!("skipped: it fills 1.2 million messages (DOORBELL_TEST_PRICES=1 asks for that)");
        return;
    }
    let db = Database::new().await;
    let client = db.client().await;
    for statement in FILL {
        client.batch_execute(statement).await.unwrap();
    }
    while count(&client, "select integration.fold(100000)").await > 0 {}
    client.batch_execute("vacuum analyze").await.unwrap();
    println!("{:>9} {:>10} {:>9} {:>11} {:>9}  page", "first ms", "median ms", "bytes", "statements", "blocks");
    for page in PAGES {
        let before = spent(&client).await;
        let pages = Pages::of(&db, for_anybody(Rights::ALL)).await;
        let mut took = Vec::new();
        let mut bytes = 0;
        for _ in 0..TIMES {
            let begun = Instant::now();
            bytes = pages.page(page).await.len();
            took.push(begun.elapsed().as_secs_f64() * 1000.0);
        }
        drop(pages);
        let after = spent(&client).await;
        let first = took[0];
        took.sort_by(f64::total_cmp);
        // Connecting, and looking at what was spent, is among it: a few of each.
        let (statements, blocks) = (after.0 - before.0, after.1 - before.1);
        let each = |all: i64| all as f64 / f64::from(TIMES);
        let median = took[took.len() / 2];
        println!("{first:>9.1} {median:>10.1} {bytes:>9} {:>11.1} {:>9.0}  {page}", each(statements), each(blocks));
    }
}
