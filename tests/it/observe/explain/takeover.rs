//! What is said of a message whose process is declared dead while it runs, and goes on all the same.

use std::time::Duration;

use doorbell::{Broker, BrokerConfig, Consumer, ConsumerConfig, Outcome};
use tokio::sync::watch;

use super::{codes, explain, run};
use crate::support::{Database, Seen, bells_only, plain_insert, seen, soon, until_status};

/// A process that handles one message at a time, until it may go on, and does not learn for minutes that it is taken
/// for dead; and the attempts that it begins.
async fn process(db: &Database, go: &watch::Sender<bool>) -> (Broker, Consumer, Seen<i32>) {
    let config =
        BrokerConfig { lease: Duration::from_secs(1000), beat: Duration::from_secs(300), ..BrokerConfig::default() };
    let broker = db.broker_with(config).await;
    let (tell, told) = seen();
    let going = go.subscribe();
    let config = ConsumerConfig { concurrency: 1, prefetch: Some(0), ..bells_only() };
    let consumer = broker.consumer("billing").config(config).fallback(move |delivery| {
        let _ = tell.send(delivery.attempt);
        let mut going = going.clone();
        async move { Ok(going.wait_for(|&go| go).await.map(|_| Outcome::Done)?) }
    });
    let consumer = consumer.start().await.unwrap();
    (broker, consumer, told)
}

#[tokio::test(flavor = "multi_thread")]
async fn during_a_takeover_a_message_says_who_has_it_and_not_who_believes_so() {
    let db = Database::new().await;
    let client = db.client().await;
    let id = plain_insert(&client, "billing", "1").await;
    let (first_goes, second_goes) = (watch::Sender::new(false), watch::Sender::new(false));
    let owner = async |broker: &Broker| broker.operator().processes().await.unwrap().remove(0).owner;
    // With what helps.
    let cause = async || {
        let (code, sentence, fix) = explain(&client, id).await.remove(0);
        (code, sentence, fix.unwrap_or_default())
    };

    let (broker, first, mut begun) = process(&db, &first_goes).await;
    assert_eq!(begun.next().await, 1);
    let one = owner(&broker).await;
    let (code, sentence, _) = cause().await;
    assert!(code == "processing" && sentence.starts_with(&one) && sentence.contains("attempt 1"), "{code}: {sentence}");

    run(&client, "delete from integration.processes").await;
    let (code, sentence, fix) = cause().await;
    assert!(
        code == "owner_dead" && sentence.contains(&one) && sentence.contains("not registered"),
        "{code}: {sentence}"
    );
    run(&client, &fix).await;
    // Its handler runs, and has lost the message.
    assert_eq!(codes(&client, id).await, ["no_consumer", "suspect"]);

    let (other, second, mut taken) = process(&db, &second_goes).await;
    assert_eq!(taken.next().await, 2);
    let two = owner(&other).await;
    assert_ne!(one, two);
    let by_the_second = |(code, sentence, _): &(String, String, String)| {
        code == "processing" && sentence.starts_with(&two) && sentence.contains("attempt 2")
    };
    let now = cause().await;
    assert!(by_the_second(&now), "{now:?}");
    // What the first says comes too late.
    first_goes.send_replace(true);
    soon("the first ends", first.shutdown()).await.unwrap();
    let now = cause().await;
    assert!(by_the_second(&now), "{now:?}");

    second_goes.send_replace(true);
    until_status(&client, id, "completed").await;
    let (code, sentence, _) = cause().await;
    assert!(code == "completed" && sentence.ends_with("by attempt 2"), "{code}: {sentence}");
    soon("the second ends", second.shutdown()).await.unwrap();
}
