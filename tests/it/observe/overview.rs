//! How everything stands, what happened lately, and the audit log page by page.

use std::time::Duration;

use doorbell::operate::AuditFilter;
use tokio_postgres::Client;

use crate::support::{Database, count};

/// 40 targets that nobody consumes, one that is paused, one with dead letters of which one failed again, one that is well.
const TROUBLE: &str = "
    insert into integration.data_staging (source_app, target_app, record_type, data)
    select 'shop', 'lonely' || n, 'n', '1' from generate_series(1, 40) n, generate_series(1, 1 + n / 40) g;
    insert into integration.data_staging (source_app, target_app, record_type, data, status, redrive_count, error_message)
    select 'shop', 'failing', 'n', '1', 'failed', n / 3, 'order ' || n || ' is gone' from generate_series(1, 3) n;
    select integration.publish('shop', 'paused', 'n', '1'), integration.publish('shop', 'well', 'n', '1');
    select integration.pause('paused', 'why');
    select integration.register('p', 'host', 1, 'app', '0.1', '{\"paused\": {\"capacity\": 2}, \"well\": {\"capacity\": 3}}', 60000)";

#[tokio::test]
async fn an_overview_folds_trouble_by_kind_and_has_the_worst_first() {
    let db = Database::new().await;
    let client = db.client().await;
    client.batch_execute(TROUBLE).await.unwrap();
    let overview = db.broker().await.operator().overview(42).await.unwrap();
    let troubles: Vec<_> = overview
        .troubles
        .iter()
        .map(|trouble| (trouble.code.as_str(), trouble.stops, trouble.targets.len(), trouble.messages))
        .collect();
    assert_eq!(troubles, [("no_consumer", true, 40, 41), ("paused", true, 1, 1), ("failed", false, 1, 3)]);
    assert_eq!(overview.troubles[0].targets[0], "lonely40", "the worst of them");
    assert!(overview.troubles[0].oldest_age.is_some() && overview.troubles[2].oldest_age.is_none());
    assert_eq!((overview.known, overview.targets.len()), (43, 42));
    assert_eq!(overview.messages, [43, 0, 0, 0, 3, 0]);
    let (stopped, rest) = overview.targets.split_at(41);
    assert!(stopped.iter().all(|target| target.is_abandoned() || !target.closed_gates.is_empty()));
    assert_eq!(rest[0].stats.target, "failing");
    let groups = db.broker().await.operator().errors(None, 10).await.unwrap();
    let groups: Vec<_> = groups
        .iter()
        .map(|group| (group.reason_like.as_deref().unwrap(), group.failed, group.failed_again, group.all_seen))
        .collect();
    assert_eq!(groups, [("order % is gone", 3, 1, true)]);
    let bounded = "select sum(failed)::bigint from integration.errors(null, 10, 2) where not all_seen";
    assert_eq!(count(&client, bounded).await, 2);
}

#[tokio::test]
async fn traffic_is_told_by_the_minute_and_by_ten_folded_or_not() {
    let db = Database::new().await;
    let client = db.client().await;
    client.batch_execute(TROUBLE).await.unwrap();
    let operator = db.broker().await.operator();
    for folded in [false, true] {
        for (span, step) in [(3600, 60), (86400, 600)] {
            for (target, published) in [(None, 43), (Some("lonely40"), 2), (Some("nobody"), 0)] {
                let traffic = operator.traffic(target, Duration::from_secs(span)).await.unwrap();
                let sum: i64 = traffic.actions.values().filter_map(|actions| actions.get("published")).sum();
                // The dead letters were published, too.
                let all = published + if target.is_none() { 3 } else { 0 };
                assert_eq!((traffic.step.as_secs(), sum), (step, all), "{target:?}, folded: {folded}");
            }
        }
        client.batch_execute("select integration.fold()").await.unwrap();
    }
    let settings = operator.settings().await.unwrap();
    assert!(settings.contains("\"max_retries\"") && !settings.contains("only_row"), "{settings}");
}

async fn audited(client: &Client, look_at: i64, limit: i64, filter: &str) -> (Vec<(Option<i64>, String)>, usize) {
    let (mut events, mut after, mut early) = (Vec::new(), None::<String>, 0);
    loop {
        let sql = format!(
            "select action, staging_id, cursor from integration.audit_list({filter}p_limit => {limit}, \
             p_look_at => {look_at}, p_after => $1)"
        );
        let rows = client.query(&sql, &[&after]).await.unwrap();
        let found: Vec<_> =
            rows.iter().filter_map(|row| Some((row.get(1), row.get::<_, Option<String>>(0)?))).collect();
        let ended_early = found.len() < rows.len();
        let full = found.len() as i64 == limit;
        early += usize::from(ended_early);
        events.extend(found);
        if !ended_early && !full {
            return (events, early);
        }
        after = rows.last().unwrap().get(2);
    }
}

#[tokio::test]
async fn the_audit_log_is_listed_backwards_page_by_page_and_a_look_that_ends_early_says_so() {
    let db = Database::new().await;
    let client = db.client().await;
    // Now, an hour ago, some days ago, and many at the same time.
    let history = "insert into integration.audit_log (staging_id, app_name, action, target_app, created_at) \
        select n, 'somebody', case n % 3 when 0 then 'failed' else 'completed' end, 'target' || n % 2, \
               now() - case when n <= 20 then n * interval '1 s' when n <= 40 then interval '1 h' \
                   else n * interval '1 h' end \
          from generate_series(1, 100) n";
    client.batch_execute(history).await.unwrap();
    for (filter, condition) in [
        ("", "true"),
        ("p_action => 'failed', ", "action = 'failed'"),
        ("p_target => 'target1', ", "target_app = 'target1'"),
        ("p_since => now() - interval '2 h', ", "created_at >= now() - interval '2 h'"),
        ("p_until => now() - interval '2 h', ", "created_at < now() - interval '2 h'"),
        ("p_id => 50, ", "staging_id = 50"),
    ] {
        let sql = format!(
            "select staging_id, action from integration.audit_log where {condition} order by created_at desc, id desc"
        );
        let rows = client.query(&sql, &[]).await.unwrap();
        let expected: Vec<(Option<i64>, String)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        for (look_at, limit) in [(100_000, 1000), (100_000, 7), (25, 7), (25, 1000)] {
            let (events, early) = audited(&client, look_at, limit, filter).await;
            assert_eq!(events, expected, "{filter}, look at {look_at}, limit {limit}");
            assert_eq!(early > 0, look_at == 25 && limit == 1000 && expected.len() > 25, "{filter}: {early}");
        }
    }
    let operator = db.broker().await.operator();
    let failed = AuditFilter { action: Some("failed".into()), ..AuditFilter::default() };
    let page = operator.audit_list(&failed, 30, None).await.unwrap();
    assert_eq!((page.events.len(), page.looked_until), (30, None));
    let rest = operator.audit_list(&failed, 30, page.next.as_deref()).await.unwrap();
    assert_eq!((rest.events.len(), rest.next), (3, None));
    let refused = operator.audit_list(&failed, 30, Some("7")).await.unwrap_err();
    assert_eq!(refused.kind(), doorbell::ErrorKind::Invalid);
}
