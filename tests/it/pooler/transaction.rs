//! A pool of transactions: each statement may meet another session, so bells do not arrive and nothing may be left behind.

use std::{sync::Arc, time::Duration};

use doorbell::{
    Broker, BrokerConfig, ConsumerConfig, ErrorKind, Outcome, Settings,
    observe::{Event, Observer},
};
use futures::FutureExt;

use crate::support::{
    Database, message,
    pooler::{Pooler, programs},
    seen, soon, until_count,
};

/// Tells when the listener believes that it hears, and nothing else.
#[derive(Debug)]
struct Believer(tokio::sync::mpsc::UnboundedSender<()>);

impl Observer for Believer {
    fn observe(&self, event: &Event<'_>) {
        if let Event::Listening { up: true, .. } = event {
            let _ = self.0.send(());
        }
    }
}

/// A probe that comes soon and does not take long.
fn config(observer: Option<Arc<dyn Observer>>) -> BrokerConfig {
    let (ping, ping_within) = (Duration::from_millis(300), Duration::from_millis(300));
    BrokerConfig { ping, ping_within, observer, ..BrokerConfig::default() }
}

fn unprepared(url: &str) -> Settings {
    Settings::parse(url).unwrap().with_prepared_statements(false)
}

#[tokio::test(flavor = "multi_thread")]
async fn without_prepared_statements_all_is_handled_by_sweeps_and_nothing_is_left_in_the_sessions_of_others() {
    for program in programs() {
        let db = Database::new().await;
        let client = db.client().await;
        let pooler = Pooler::start(&program, "transaction", &db).await;
        let (believes, mut believed) = tokio::sync::mpsc::unbounded_channel();
        let settings = unprepared(&pooler.url);
        let broker = Broker::with_config(settings, config(Some(Arc::new(Believer(believes))))).await.unwrap();
        broker.migrate().await.unwrap();
        let (tell, mut told) = seen();
        let sweep = Some(Duration::from_millis(200));
        let leased = broker.consumer("leased").config(ConsumerConfig { sweep, ..Default::default() }).fallback(
            move |delivery| {
                let _ = tell.send(delivery.id);
                async { Ok(Outcome::Done) }
            },
        );
        let leased = leased.start().await.unwrap();
        let (tell, mut effects) = seen();
        let held = ConsumerConfig { sweep, hold: Some(Duration::from_secs(1)), ..Default::default() };
        let tx = broker.consumer("tx").config(held).on_tx("n", move |n: i64, _, _| {
            let tell = tell.clone();
            async move {
                let _ = tell.send(n);
                Ok(Outcome::Done)
            }
            .boxed()
        });
        let tx = tx.start().await.unwrap();
        let producer = broker.producer("shop");
        for n in 0..20 {
            let id = producer.publish(&message("leased", n)).await.unwrap();
            assert_eq!(told.next().await, id, "{}", pooler.version);
            producer.publish(&message("tx", n)).await.unwrap();
            assert_eq!(effects.next().await, n);
        }
        let many: Vec<_> = (0..100).map(|n| message("leased", n)).collect();
        assert_eq!(producer.publish_many(&many).await.unwrap().len(), 100);
        told.take(100).await;
        until_count(&client, "completed", 140).await;
        assert!(!broker.is_listening());
        assert!(believed.try_recv().is_err(), "{}: it never hears, not even by luck", pooler.version);
        leased.shutdown().await.unwrap();
        tx.shutdown().await.unwrap();
        drop(producer);
        broker.close().await;
        assert_eq!(pooler.left_behind().await, Vec::<String>::new(), "{}: {}", pooler.version, pooler.log());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_whose_clients_share_the_names_of_statements_is_refused_and_others_are_not() {
    for program in programs() {
        let db = Database::new().await;
        let pooler = Pooler::start(&program, "transaction", &db).await;
        let opened = Broker::with_config(Settings::parse(&pooler.url).unwrap(), config(None)).await;
        let shares = pooler.version.contains(" 1.1") || pooler.version.contains(" 1.20");
        match opened {
            Ok(broker) => {
                assert!(!shares, "{}", pooler.version);
                let producer = broker.producer("shop");
                soon("it is published", producer.publish(&message("billing", 1))).await.unwrap();
            }
            Err(error) => {
                assert!(shares, "{}: {error:?}", pooler.version);
                assert_eq!(error.kind(), ErrorKind::Config);
                assert!(error.to_string().contains("DOORBELL_PREPARED_STATEMENTS=off"), "{error}");
            }
        }
    }
}
