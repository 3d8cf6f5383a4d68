//! Steps of handlers, whose results survive a retry.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use doorbell::{Error, ErrorKind, HandlerError, Outcome};

use crate::support::{Database, bells_only, connect, count, message, row, seen, until_status};

const STEPS: &str = "select count(*) from integration.steps";

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_ended_well_is_not_done_again_before_its_message_is_redriven_and_goes_with_it() {
    let db = Database::new().await;
    let (client, broker) = (db.client().await, db.broker().await);
    let (tell, mut told) = seen();
    let charges = Arc::new(AtomicI64::new(0));
    let consumer = broker.consumer("billing").config(bells_only()).on_steps("n", move |n: i64, delivery, steps| {
        let (tell, charges) = (tell.clone(), charges.clone());
        async move {
            let key = delivery.effect_key("charge");
            let charge = async || Ok::<_, HandlerError>(n * 100 + charges.fetch_add(1, Ordering::SeqCst));
            let receipt = steps.run("charge", charge).await?;
            let ship = async || match delivery.retry_count {
                0 => Err("the van is late"),
                _ => Ok(()),
            };
            let shipped = steps.run("ship", ship).await;
            let _ = tell.send((key, receipt, shipped.is_ok()));
            let not_yet = Outcome::retry_after(Duration::ZERO, "not yet");
            Ok(if shipped.is_ok() { Outcome::reject("the address is unknown") } else { not_yet })
        }
    });
    let consumer = consumer.start().await.unwrap();
    let id = broker.producer("shop").publish(&message("billing", 7)).await.unwrap();
    let [(first, receipt, shipped), (second, again, finally)] = <[_; 2]>::try_from(told.take(2).await).unwrap();
    assert_eq!((&first, receipt, shipped, again, finally), (&second, 700, false, 700, true));
    until_status(&client, id, "failed").await;
    let same = format!(
        "select integration.effect_key(id, created_at, redrive_count, 'charge') = '{first}' from integration.data_staging"
    );
    assert!(client.query_one(&same, &[]).await.unwrap().get::<_, bool>(0));
    assert_eq!(count(&client, STEPS).await, 2);
    broker.operator().redrive(&[id]).await.unwrap();
    let (key, receipt, shipped) = told.next().await;
    assert!(key != first && receipt == 701 && !shipped, "{key} {receipt}");
    let _ = told.next().await;
    until_status(&client, id, "failed").await;
    consumer.shutdown().await.unwrap();
    client.batch_execute("delete from integration.data_staging").await.unwrap();
    assert_eq!(count(&client, STEPS).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_lost_the_lease_saves_nothing_and_of_two_outputs_the_first_counts() {
    let db = Database::new().await;
    let (client, broker) = (db.client().await, db.broker().await);
    let (tell, mut told) = seen();
    let url = db.url.clone();
    let consumer = broker.consumer("billing").config(bells_only()).on_steps("n", move |_: i64, delivery, steps| {
        let (tell, url) = (tell.clone(), url.clone());
        async move {
            let taken = async || {
                // The handler is cancelled for that, a heartbeat or two later.
                let put_back = "update integration.data_staging set status = 'cancelled' where status = 'processing'";
                connect(&url).await.batch_execute(put_back).await
            };
            let saved = steps.run("taken", taken).await;
            let error = saved.unwrap_err();
            let kind = error.downcast_ref::<Error>().map(Error::kind);
            let _ = tell.send((delivery.attempt, kind));
            Ok(Outcome::Done)
        }
    });
    let consumer = consumer.start().await.unwrap();
    let id = broker.producer("shop").publish(&message("billing", 7)).await.unwrap();
    assert_eq!(told.next().await, (1, Some(ErrorKind::LeaseLost)));
    consumer.shutdown().await.unwrap();
    assert_eq!((row(&client, id).await.status.as_str(), count(&client, STEPS).await), ("cancelled", 0));
    // From any language.
    let id = broker.producer("shop").publish(&message("crm", 7)).await.unwrap();
    client.batch_execute("select integration.claim('crm', 'me', p_lease => '1 h')").await.unwrap();
    let text = async |sql: &str| {
        let sql = sql.replace("$", &format!("{id}, 1, 'me', 'charge'"));
        client.query_one(&sql, &[]).await.unwrap().get::<_, Option<String>>(0)
    };
    assert_eq!(text("select integration.step_output($)::text").await, None);
    assert_eq!(text("select integration.save_step($, '1')::text").await.as_deref(), Some("1"));
    assert_eq!(text("select integration.save_step($, '2')::text").await.as_deref(), Some("1"));
    assert_eq!(text("select integration.step_output($)::text").await.as_deref(), Some("1"));
    let stale = format!("select integration.save_step({id}, 1, 'you', 'charge', '3')");
    let error = client.batch_execute(&stale).await.unwrap_err();
    assert_eq!(error.code().map(|code| code.code()), Some("MQ001"));
}
