//! Looking through the messages: every message once, in order, page by page.

use doorbell::{
    ErrorKind, MessageId,
    operate::{Filter, ListOrder, Status},
};
use tokio_postgres::Client;

use crate::support::{Database, plain_insert};

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
        assert_eq!(broker.operator().find_ids(&filter, None).await.unwrap(), expected, "{condition}");
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
