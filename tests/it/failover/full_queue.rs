//! The notification queue of the server is full, because somebody listens and does not read: who notifies is refused. Our
//! listener notices by its own notifications, nobody is parked then, publishers do not ring, and sweeps find what they publish.

use std::time::Duration;

use doorbell::{
    Broker, BrokerConfig, ConsumerConfig, Outcome, Settings,
    doctor::{Level, Options},
    observe::Found,
};
use doorbell_server::{EphemeralOptions, Server};

use super::pace;
use crate::support::{connect, message, newer, plain_insert, seen, until, until_a_bell, until_so};

const FULL: &str = "54000";
/// Whether somebody holds an idle latch: then publishers ring.
const NOBODY_IS_PARKED: &str = "select not exists (select from pg_locks \
    where locktype = 'advisory' and classid = (integration.lock_class() + 2)::oid)";

#[tokio::test(flavor = "multi_thread")]
async fn while_the_notification_queue_is_full_publishes_succeed_and_are_found_by_sweeps() {
    let Some(bin_directory) = newer::postgres_17().await else { return };
    let settings = vec![("max_notify_queue_pages".to_owned(), "64".to_owned())];
    let options = EphemeralOptions { settings, bin_directory: Some(bin_directory), ..Default::default() };
    let server = Server::ephemeral(options).await.unwrap();
    let url = server.connection_string("postgres");
    let config = BrokerConfig { ping: Duration::from_millis(500), ..Default::default() };
    let broker = Broker::with_config(Settings::parse(&url).unwrap(), config).await.unwrap();
    broker.migrate().await.unwrap();
    let (tell, mut told) = seen();
    let config = ConsumerConfig { sweep: Some(pace::SWEEP), ..Default::default() };
    let consumer = broker.consumer("billing").config(config).fallback(move |delivery| {
        let _ = tell.send(delivery);
        async { Ok(Outcome::Done) }
    });
    let consumer = consumer.start().await.unwrap();
    let producer = broker.producer("shop");
    until_a_bell(&producer, "billing", &mut told).await;

    let deaf = connect(&url).await;
    deaf.batch_execute("listen deaf").await.unwrap();
    deaf.batch_execute("begin").await.unwrap();
    let client = connect(&url).await;
    let refused = loop {
        if let Err(error) = client.batch_execute("select pg_notify('deaf', repeat('x', 7900))").await {
            break error;
        }
    };
    assert_eq!(refused.code().map(|code| code.code()), Some(FULL));
    until_so("the listener notices", || !broker.is_listening()).await;
    until(&client, "nobody is parked", NOBODY_IS_PARKED).await;

    for _ in 0..3 {
        let ours = producer.publish(&message("billing", 1)).await.unwrap();
        let theirs = plain_insert(&client, "billing", "1").await;
        let mut handled = told.take(2).await;
        handled.sort_unstable_by_key(|delivery| delivery.id);
        assert_eq!([handled[0].id, handled[1].id], [ours, theirs]);
        assert!(handled.iter().all(|delivery| delivery.found != Found::Bell && delivery.attempt == 1), "{handled:?}");
    }
    assert!(!broker.is_listening());

    let options = Options { bell_within: pace::SWEEP, ..Options::default() };
    let report = broker.operator().doctor(&options).await.unwrap();
    let named = report.findings.iter().find(|finding| finding.check == "notify_queue").unwrap();
    assert_eq!(named.level, Level::Problem, "{named:?}");
    let (_, command) = named.fix.as_deref().unwrap().split_once(" is undone by ").unwrap();
    client.batch_execute(command).await.unwrap();
    assert!(deaf.batch_execute("select 1").await.is_err(), "{command} ended another session: {named:?}");
    until_so("it listens again", || broker.is_listening()).await;
    until_a_bell(&producer, "billing", &mut told).await;
    consumer.shutdown().await.unwrap();
    server.stop().await.unwrap();
}
