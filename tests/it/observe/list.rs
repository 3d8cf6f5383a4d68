//! Looking through the messages: every message once, in order, page by page.

use doorbell::{
    ErrorKind, MessageId,
    operate::{Filter, ListOrder, Moment, Status},
};
use tokio_postgres::Client;

use crate::support::{Database, count, plain_insert};

/// Three targets, every status, equal and different priorities and times.
const MANY: &str = "insert into integration.data_staging \
    (source_app, target_app, record_type, data, status, priority, created_at, processed_at, available_at, error_message) \
    select (array['shop', 'web'])[1 + n % 2], (array['billing', 'shipping', 'it''s'])[1 + n % 3], \
           (array['a', 'b'])[1 + n / 2 % 2], '1', s.status, n / 10 % 3 - 1, now() - n / 5 * interval '1 min', \
           case when s.status = 'completed' then now() end, \
           case when s.status = 'scheduled' then now() + (n * 7919 % 50) / 2 * interval '1 min' end, \
           case when s.status = 'failed' then 'reason ' || n % 4 end \
      from generate_series(1, 600) n \
     cross join lateral (select (array['pending', 'scheduled', 'processing', 'completed', 'failed', 'cancelled'])[1 + n / 3 % 6] as status) s";

async fn ids(client: &Client, condition: &str, order: &str) -> Vec<MessageId> {
    let sql = format!("select id from integration.data_staging where {condition} order by {order}");
    client.query(&sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
async fn pages_together_have_every_message_once_and_in_order() {
    let db = Database::new().await;
    let (client, broker) = (db.client().await, db.broker().await);
    client.batch_execute(MANY).await.unwrap();
    let natural = |status| match status {
        Some(Status::Pending) => "priority desc, created_at, id",
        Some(Status::Scheduled) => "available_at, id",
        _ => "id desc",
    };
    for status in Status::ALL.map(Some).into_iter().chain([None]) {
        for target in [None, Some("billing"), Some("it's")] {
            for (order, sql) in
                [(None, natural(status)), (Some(ListOrder::Oldest), "id"), (Some(ListOrder::Newest), "id desc")]
            {
                let filter = Filter { status, target: target.map(str::to_owned), ..Filter::default() };
                let quoted = |column: &str, value: &str| format!(" and {column} = '{}'", value.replace('\'', "''"));
                let condition = "true".to_owned()
                    + &status.map_or_else(String::new, |status| quoted("status", status.as_str()))
                    + &target.map_or_else(String::new, |target| quoted("target_app", target));
                let expected = ids(&client, &condition, sql).await;
                assert!(expected.len() > 20);
                let (mut listed, mut after) = (Vec::new(), None);
                loop {
                    let page = broker.operator().list(&filter, order, 7, after.as_deref()).await.unwrap();
                    listed.extend(page.messages.iter().map(|message| message.id));
                    after = page.next;
                    if after.is_none() {
                        break;
                    }
                }
                assert_eq!(listed, expected, "{filter:?} {order:?}");
            }
        }
    }
}

#[tokio::test]
async fn every_filter_leaves_out_what_it_does_not_name() {
    let db = Database::new().await;
    let (client, broker) = (db.client().await, db.broker().await);
    client.batch_execute(MANY).await.unwrap();
    let failed = || Filter { status: Some(Status::Failed), ..Filter::default() };
    let hour = Some(std::time::Duration::from_secs(3600));
    for (filter, condition) in [
        (Filter { record_type: Some("a".into()), ..failed() }, "record_type = 'a'"),
        (Filter { source: Some("web".into()), ..failed() }, "source_app = 'web'"),
        (Filter { reason: Some("%3".into()), ..failed() }, "error_message = 'reason 3'"),
        (Filter { reason: Some("%' or true --".into()), ..failed() }, "false"),
        (Filter { older_than: hour, ..failed() }, "created_at < now() - interval '1 hour'"),
    ] {
        let expected = ids(&client, &format!("status = 'failed' and {condition}"), "id").await;
        assert!(condition == "false" || (5..95).contains(&expected.len()), "{condition}: {}", expected.len());
        let mut found = broker.operator().find_ids(&filter, None).await.unwrap();
        found.sort_unstable();
        assert_eq!(found, expected, "{condition}");
        assert_eq!(broker.operator().find_ids(&filter, Some(3)).await.unwrap(), expected[..expected.len().min(3)]);
    }
}

#[tokio::test]
async fn an_order_that_the_status_does_not_have_and_a_foreign_cursor_are_refused() {
    let db = Database::new().await;
    let broker = db.broker().await;
    plain_insert(&db.client().await, "billing", "1").await;
    let pending = Filter { status: Some(Status::Pending), ..Filter::default() };
    let due = broker.operator().list(&pending, Some(ListOrder::Due), 1, None).await.unwrap_err();
    assert_eq!(due.kind(), ErrorKind::Invalid);
    assert!(due.to_string().contains("no order \"due\" of pending messages (use oldest"), "{due}");
    for cursor in ["", "7", "0|then|1", "0|2026-01-01 00:00:00", "1|2|3|4; drop table x"] {
        let refused = broker.operator().list(&pending, None, 1, Some(cursor)).await;
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::Invalid, "{cursor:?}");
    }
    assert!("done".parse::<Status>().unwrap_err().to_string().contains("pending, scheduled"));
}

#[tokio::test]
async fn a_look_that_ends_early_says_so_and_where_it_ended_the_next_one_goes_on() {
    let db = Database::new().await;
    let client = db.client().await;
    client.batch_execute(MANY).await.unwrap();
    for (arguments, condition, order) in [
        ("p_type => 'a', p_target => 'billing'", "record_type = 'a' and target_app = 'billing'", "id desc"),
        ("p_payload => '$ == 2'", "false", "id desc"),
        ("p_target => 'billing', p_order => 'oldest'", "target_app = 'billing'", "id"),
        ("'completed', p_source => 'web'", "status = 'completed' and source_app = 'web'", "id desc"),
        ("'pending', p_type => 'a'", "status = 'pending' and record_type = 'a'", "priority desc, created_at, id"),
        (
            "'pending', 'billing', p_source => 'web'",
            "status = 'pending' and target_app = 'billing' and source_app = 'web'",
            "priority desc, created_at, id",
        ),
        ("'scheduled', p_source => 'shop'", "status = 'scheduled' and source_app = 'shop'", "available_at, id"),
        (
            "'pending', p_source => 'web', p_order => 'target'",
            "status = 'pending' and source_app = 'web'",
            "target_app, priority desc, created_at, id",
        ),
        (
            "'failed', p_reason => '%3', p_order => 'target'",
            "status = 'failed' and error_message like '%3'",
            "target_app, id",
        ),
        ("'failed', p_reason => '%3'", "status = 'failed' and error_message like '%3'", "id desc"),
        ("'processing', 'billing', 'zz'", "false", "id desc"),
    ] {
        let expected = ids(&client, condition, order).await;
        let (mut found, mut after, mut early) = (Vec::new(), None::<String>, 0);
        loop {
            let sql = format!(
                "select id, cursor from integration.list({arguments}, p_limit => 5, p_look_at => 12, p_after => $1)"
            );
            let rows = client.query(&sql, &[&after]).await.unwrap();
            let page: Vec<MessageId> = rows.iter().filter_map(|row| row.get(0)).collect();
            let ended_early = page.len() < rows.len();
            assert!(page.len() <= 5);
            assert!(ended_early || page.len() == 5 || rows.len() == page.len());
            early += usize::from(ended_early);
            let full = page.len() == 5;
            found.extend(page);
            if !ended_early && !full {
                break;
            }
            after = rows.last().unwrap().get(1);
        }
        assert_eq!(found, expected, "{arguments}");
        assert!(early > 0, "{arguments} never ended early");
    }
}

/// Rows of the messages that a statement read.
async fn read(client: &Client, statement: &str) -> i64 {
    let sql = "select coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0) from pg_stat_xact_user_tables \
        where relid = 'integration.data_staging'::regclass";
    client.batch_execute("begin").await.unwrap();
    let before = count(client, sql).await;
    client.batch_execute(statement).await.unwrap();
    let after = count(client, sql).await;
    client.batch_execute("rollback").await.unwrap();
    after - before
}

#[tokio::test]
async fn a_look_reads_as_many_messages_as_it_says_and_none_where_the_counters_know_that_there_are_none() {
    let db = Database::new().await;
    let client = db.client().await;
    let many = "insert into integration.data_staging (source_app, target_app, record_type, data, status, headers, ordering_key) \
        select 'shop', 'billing', 'n', '{\"n\": 1}', case when n % 100 = 0 then 'pending' else 'completed' end, '{\"a\": \"b\"}', 'k' \
          from generate_series(1, 20000) n";
    client.batch_execute(many).await.unwrap();
    for analyzed in [false, true] {
        for filter in [
            "p_type => 'x'",
            "p_source => 'x'",
            "p_status => 'completed', p_type => 'x'",
            "p_payload => '$.n == 2'",
            "p_headers => '{\"a\": \"c\"}'",
            "p_ordering_key => 'x'",
            "p_dedup_key => 'x'",
            "p_published_until => '2020-01-01 UTC'",
            "p_changed_until => '2020-01-01 UTC', p_order => 'oldest'",
            "p_older_than => '1 day'",
            "p_completed_by => 'nobody'",
        ] {
            // Once to look, once to see where it ended.
            let read = read(&client, &format!("select integration.list({filter}, p_look_at => 500)")).await;
            assert!((500..=2100).contains(&read), "{filter}: {read} (analyzed: {analyzed})");
        }
        for none in ["p_target => 'biling'", "'cancelled'", "p_target => 'biling', p_payload => '$.n == 2'", "'failed'"]
        {
            let read = read(&client, &format!("select integration.list({none})")).await;
            assert_eq!(read, 0, "{none} (analyzed: {analyzed})");
        }
        let read = read(&client, "select integration.list(p_first_id => 7000, p_last_id => 7009)").await;
        assert_eq!(read, 10, "(analyzed: {analyzed})");
        client.batch_execute("analyze integration.data_staging").await.unwrap();
    }
}

#[tokio::test]
async fn no_limit_is_all_of_them_and_a_negative_one_none() {
    let db = Database::new().await;
    let client = db.client().await;
    client.batch_execute(MANY).await.unwrap();
    for (arguments, all) in [("", 600), ("'pending', ", 101), ("'failed', ", 99), ("p_type => 'a', ", 300)] {
        for (limit, expected) in [("null", all), ("-1", 0), ("0", 0), ("7", 7)] {
            let sql = format!("select count(id) from integration.list({arguments}p_limit => {limit})");
            assert_eq!(count(&client, &sql).await, expected, "{sql}");
        }
    }
}

#[tokio::test]
async fn a_filter_names_ids_and_times_of_publishing() {
    let db = Database::new().await;
    let (client, broker) = (db.client().await, db.broker().await);
    client.batch_execute(MANY).await.unwrap();
    let ago = |minutes: u64| Some(Moment::Ago(std::time::Duration::from_secs(minutes * 60)));
    for status in [None, Some(Status::Pending), Some(Status::Scheduled), Some(Status::Failed)] {
        let some = || Filter { status, ..Filter::default() };
        let of = status.map_or("true".to_owned(), |status| format!("status = '{status}'"));
        for (filter, condition) in [
            (Filter { first_id: Some(100), last_id: Some(300), ..some() }, "id between 100 and 300"),
            (Filter { published_since: ago(50), ..some() }, "created_at >= now() - interval '50 min'"),
            (Filter { published_until: ago(50), ..some() }, "created_at < now() - interval '50 min'"),
        ] {
            let expected = ids(&client, &format!("{of} and {condition}"), "id").await;
            assert!(expected.len() > 10);
            let mut found = broker.operator().find_ids(&filter, None).await.unwrap();
            found.sort_unstable();
            assert_eq!(found, expected, "{filter:?}");
        }
    }
}
