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
        (Action::Redrive, "pending", 1000, 1500),
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
