//! The picture with which the README begins. `DOORBELL_ACCEPT=1` takes it again.
//!
//! What is compared is what it says, not its pixels: these are another machine's fonts.

use std::path::Path;

use doorbell_testing::browser::Browser;
use doorbell_ui::Rights;

use super::{browser::served, for_anybody};
use crate::support::{Database, stop_the_clock};

const FOLDER: &str = "docs/pictures";
const WIDTH: u32 = 1180;

/// A shop with some trouble: nobody consumes billing any more, mail is paused, messages of shipping have failed.
const SHOP: [&str; 7] = [
    "insert into integration.traffic (minute, target_app, action, messages) \
        select integration.minute_of(integration.clock()) - m * interval '1 min', t.target, a.action, \
               case a.action when 'errored' then (m * 7 + t.n) % 13 / 11 * t.n * t.mean / 9 \
                             else greatest(t.mean + ((m * 13 + t.n * 5) % 17 - 8) * t.mean / 12, 0) end \
          from generate_series(1, 59) m, \
               (values ('billing', 2460, 3), ('mail', 700, 1), ('shipping', 1260, 2), ('crm', 90, 0), ('audit', 4100, 0)) \
                   t (target, mean, n), \
               unnest('{published, completed, errored}'::text[]) a (action) \
         where not (t.target = 'billing' and m < 12 and a.action <> 'published') \
           and not (t.target = 'mail' and m < 25 and a.action <> 'published')",
    "insert into integration.data_staging (source_app, target_app, record_type, data, created_at) \
        select 'shop', t.target, 'order.placed', '{}', integration.clock() - t.age * interval '1 s' * (n - 0.5) / t.count \
          from (values ('billing', 1204, 721), ('mail', 88, 1440), ('shipping', 3, 1)) t (target, count, age), \
               lateral generate_series(1, t.count) n",
    "insert into integration.data_staging (source_app, target_app, record_type, data, status, error_message) \
        select 'shop', 'shipping', 'parcel.sent', '{}', 'failed', 'connection refused: tcp 10.0.0.' || n || ':443' \
          from generate_series(1, 17) n",
    "select integration.register('db1-4242', 'db1', 4242, 'shipping', '0.1.0', \
        '{\"shipping\": {\"capacity\": 100}, \"crm\": {\"capacity\": 8}, \"audit\": {\"capacity\": 16}}', 3600000)",
    "select integration.register('db2-77', 'db2', 77, 'mail', '0.1.0', '{\"mail\": {\"capacity\": 20}}', 3600000)",
    "insert into integration.data_staging (source_app, target_app, record_type, data, status) \
        select 'shop', (array['audit', 'crm', 'shipping', 'billing'])[1 + n % 4], 'order.placed', '{}', 'completed' \
          from generate_series(1, 9640) n",
    "select integration.fold()",
];

#[tokio::test(flavor = "multi_thread")]
async fn the_picture_in_the_readme_is_of_what_the_overview_says() {
    let Some(browser) = Browser::start().await else { return };
    let db = Database::new().await;
    let client = db.client().await;
    stop_the_clock(&client, 0).await;
    client.batch_execute("select integration.pause('mail', 'the provider is down until ten')").await.unwrap();
    stop_the_clock(&client, 1500).await;
    for statement in SHOP {
        client.batch_execute(statement).await.unwrap_or_else(|error| panic!("{statement}: {error:?}"));
    }
    let (_serving, url) = served(&db, for_anybody(Rights::ALL)).await;
    let accept = std::env::var_os("DOORBELL_ACCEPT").is_some();
    browser.appear(WIDTH, "light").await;
    browser.open(&url).await;
    browser.until("it is live", "document.getElementById('live').textContent == 'live'").await;
    let seen = browser.run("return document.querySelector('main').textContent.split(/\\s+/).join(' ').trim()").await;
    let seen = seen.as_str().unwrap().replace(['\u{202f}', '\u{a0}'], " ");
    let path = Path::new(FOLDER).join("overview.txt");
    if accept {
        std::fs::write(&path, format!("{seen}\n")).unwrap();
    }
    let shown = std::fs::read_to_string(&path).unwrap();
    assert_eq!(shown.trim(), seen, "the picture is old: DOORBELL_ACCEPT=1 cargo test --test it -- ui::picture");
    for theme in ["light", "dark"] {
        browser.appear(WIDTH, theme).await;
        // The name of the database, and the durations of this run.
        let general = "document.querySelector('.place bdi').textContent = 'db1/shop'; \
            document.querySelector('footer')?.remove(); return Math.ceil(document.body.getBoundingClientRect().height)";
        let height = browser.run(general).await;
        let picture = browser.picture(WIDTH, height.as_u64().unwrap() as u32).await;
        let path = Path::new(FOLDER).join(format!("overview-{theme}.png"));
        if accept {
            std::fs::write(&path, &picture).unwrap();
        }
        assert!(picture.starts_with(b"\x89PNG") && std::fs::read(&path).unwrap().starts_with(b"\x89PNG"), "{path:?}");
    }
}
