//! A pool of sessions: a client has its server session until it leaves, so everything works as without a pooler.

use std::time::Duration;

use doorbell::{ConsumerConfig, Outcome, observe::Found};
use futures::FutureExt;

use crate::support::{
    Database, bells_only, echo, message,
    pooler::{Pooler, programs},
    seen, until_a_bell, until_count, until_so,
};

#[tokio::test(flavor = "multi_thread")]
async fn messages_are_published_rung_for_and_handled_in_every_mode_and_nothing_is_left_behind() {
    for program in programs() {
        let db = Database::new().await;
        let client = db.client().await;
        let pooler = Pooler::start(&program, "session", &db).await;
        let broker = pooler.database().broker().await;
        let (leased, mut told) = echo(&broker, "leased").await;
        let (tell, mut effects) = seen();
        let config = ConsumerConfig { hold: Some(Duration::from_secs(1)), ..bells_only() };
        let tx = broker.consumer("tx").config(config).on_tx("n", move |n: i64, _, tx| {
            let tell = tell.clone();
            async move {
                tx.execute("select 1", &[]).await?;
                let _ = tell.send(n);
                Ok(Outcome::Done)
            }
            .boxed()
        });
        let tx = tx.start().await.unwrap();
        until_so("it listens", || broker.is_listening()).await;
        let producer = broker.producer("shop");
        let before = until_a_bell(&producer, "leased", &mut told).await;
        for n in 0..20 {
            let id = producer.publish(&message("leased", n)).await.unwrap();
            let delivery = told.next().await;
            assert_eq!(delivery.id, id);
            // Rung for, or seen by a look that was under way: sweeps are an hour away.
            assert_ne!(delivery.found, Found::Sweep, "{}: {delivery:?}", pooler.version);
            producer.publish(&message("tx", n)).await.unwrap();
            assert_eq!(effects.next().await, n);
        }
        until_count(&client, "completed", 40 + before).await;
        leased.shutdown().await.unwrap();
        tx.shutdown().await.unwrap();
        drop(producer);
        broker.close().await;
        assert_eq!(pooler.left_behind().await, Vec::<String>::new(), "{}: {}", pooler.version, pooler.log());
    }
}
