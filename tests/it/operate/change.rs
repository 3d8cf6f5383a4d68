//! One verb on all that a filter names: what is seen beforehand is what is done.

use doorbell::{
    ErrorKind,
    operate::{Action, Filter, Status},
};

use crate::support::{Database, count};

const MANY: &str = "insert into integration.data_staging (source_app, target_app, record_type, data, status, available_at) \
    select 'shop', 'billing', 'n', '1', s.status, case s.status when 'scheduled' then now() + interval '1 h' end \
      from generate_series(1, 2500) n \
     cross join lateral (select case n % 5 when 0 then 'pending' when 1 then 'scheduled' when 2 then 'completed' else 'failed' end \
        as status) s";

#[tokio::test]
async fn a_change_does_to_those_that_were_there_what_its_preview_says() {
    let db = Database::new().await;
    let client = db.client().await;
    client.batch_execute(MANY).await.unwrap();
    let operator = db.broker().await.operator();
    let billing = Filter { target: Some("billing".into()), ..Filter::default() };
    for (action, status, from, sum) in [
        (Action::Redrive(None), "pending", 1000, 1500),
        (Action::Cancel(Some("why".into())), "cancelled", 2000, 2000),
        (Action::MoveTo("mailer".into()), "cancelled", 0, 2000),
    ] {
        let mut change = operator.change(&billing, action.clone()).await.unwrap();
        let preview = change.preview(10_000).await.unwrap();
        assert_eq!((preview.count, preview.more, preview.sample.len()), (from, false, from.min(5)), "{action:?}");
        let bounded = change.preview(10).await.unwrap();
        assert_eq!((bounded.count, bounded.more), (from.min(10), from > 10));
        // What comes later is not meant.
        client.batch_execute(MANY).await.unwrap();
        let mut changed = 0;
        while let Some(batch) = change.next().await.unwrap() {
            assert!(batch.changed.len() <= 1000 && batch.unchanged == 0);
            changed += batch.changed.len();
        }
        assert_eq!(changed, from, "{action:?}");
        client.batch_execute("delete from integration.data_staging where id > 2500").await.unwrap();
        let now = format!("select count(*) from integration.data_staging where status = '{status}'");
        assert_eq!(count(&client, &now).await, sum, "{action:?}");
    }
    assert_eq!(count(&client, "select count(*) from integration.check_counters()").await, 0);
}

#[tokio::test]
async fn a_change_takes_the_first_so_many_and_none_from_a_status_that_does_not_allow_it() {
    let db = Database::new().await;
    let client = db.client().await;
    client.batch_execute(MANY).await.unwrap();
    let operator = db.broker().await.operator();
    let failed = Filter { status: Some(Status::Failed), ..Filter::default() };
    let mut change = operator.change(&failed, Action::Retry).await.unwrap().limit(Some(1001));
    assert_eq!(change.preview(10_000).await.unwrap().count, 1000, "there are no more");
    let mut few = operator.change(&failed, Action::Retry).await.unwrap().limit(Some(3));
    assert_eq!(few.preview(10_000).await.unwrap().count, 3);
    assert_eq!(few.next().await.unwrap().unwrap().changed, [3, 4, 8]);
    assert_eq!(few.next().await.unwrap(), None);
    let rest = change.next().await.unwrap().unwrap();
    assert_eq!(rest.changed.len(), 997);
    let refused = operator.change(&failed, Action::Cancel(None)).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Invalid);
    assert!(refused.to_string().contains("pending, scheduled, processing"), "{refused}");
}

#[tokio::test]
async fn all_that_wait_or_failed_are_walked_through_once_whatever_their_targets_are_called() {
    let db = Database::new().await;
    let client = db.client().await;
    let many = "insert into integration.data_staging (source_app, target_app, record_type, data, status, priority, available_at) \
        select 'shop', (array['a|b', 'a', '|', 'a|1', 'b%'])[1 + n % 5], 'n', '1', s.status, n % 3, \
               case s.status when 'scheduled' then now() + n % 7 * interval '1 h' end \
          from generate_series(1, 4500) n \
         cross join lateral (select (array['pending', 'scheduled', 'failed'])[1 + n / 5 % 3] as status) s";
    client.batch_execute(many).await.unwrap();
    let operator = db.broker().await.operator();
    for (status, action) in [
        (Status::Pending, Action::Cancel(None)),
        (Status::Scheduled, Action::Cancel(None)),
        (Status::Failed, Action::Redrive(None)),
    ] {
        let filter = Filter { status: Some(status), ..Filter::default() };
        let mut change = operator.change(&filter, action).await.unwrap();
        let preview = change.preview(10_000).await.unwrap();
        assert_eq!((preview.count, preview.more, preview.looked_until), (1500, false, None), "{status}");
        assert!(preview.targets.len() == 5 && preview.targets.values().all(|count| *count == 300), "{preview:?}");
        let mut found = Vec::new();
        while let Some(ids) = change.pass_over().await.unwrap() {
            found.extend(ids);
        }
        found.sort_unstable();
        found.dedup();
        assert_eq!(found.len(), 1500, "{status}");
        // Some of each, where the rows have to be asked as well.
        let some = Filter { last_id: Some(3000), redriven: Some(false), ..filter };
        assert_eq!(operator.find_ids(&some, None).await.unwrap().len(), 1000, "{status}");
        assert!(operator.find_ids(&Filter { redriven: Some(true), ..some }, None).await.unwrap().is_empty());
    }
    let cursor = client.query("select integration.list('failed', p_order => 'target', p_after => '7')", &[]).await;
    assert!(cursor.unwrap_err().as_db_error().unwrap().message().contains("not a cursor"));
    let order = client.query("select integration.list('completed', p_order => 'target')", &[]).await;
    assert!(order.unwrap_err().as_db_error().unwrap().message().contains("no order"));
}

#[tokio::test]
async fn messages_are_put_back_over_a_time_and_those_of_a_key_together() {
    let db = Database::new().await;
    let client = db.client().await;
    crate::support::stop_the_clock(&client, 0).await;
    let failed = "insert into integration.data_staging (source_app, target_app, record_type, data, status, ordering_key) \
        select 'shop', 'billing', 'n', '1', 'failed', case when n <= 100 then 'seven' end from generate_series(1, 1100) n";
    client.batch_execute(failed).await.unwrap();
    let operator = db.broker().await.operator();
    let all: Vec<i64> = (1..=1100).collect();
    let spread = std::time::Duration::from_secs(600);
    assert_eq!(operator.redrive_over(&all, spread).await.unwrap().len(), 1100);
    let due = "select count(*) from integration.data_staging where status = 'scheduled' and redrive_count = 1 \
        and available_at >= integration.clock() and available_at < integration.clock() + interval '10 min'";
    assert_eq!(count(&client, due).await, 1100);
    // Each minute has its share, and a key is one message to that.
    let minutes = "select count(*) from (select count(*) as messages from integration.data_staging where id > 100 \
        group by date_bin('1 min', available_at, integration.clock())) m where m.messages between 50 and 150";
    assert_eq!(count(&client, minutes).await, 10);
    assert_eq!(
        count(&client, "select count(distinct available_at) from integration.data_staging where id <= 100").await,
        1
    );
    assert_eq!(count(&client, "select count(*) from integration.audit_log where action = 'redriven'").await, 1100);
}
