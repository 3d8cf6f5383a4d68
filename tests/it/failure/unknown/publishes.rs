//! Publishes whose answer was lost.

use std::time::Duration;

use doorbell::{BrokerConfig, ErrorKind, Message};

use super::{Lab, message};
use crate::{proxy::Cut, support::soon};

#[tokio::test]
async fn a_publish_with_a_dedup_key_answers_with_its_one_message_wherever_it_is_cut() {
    let lab = Lab::new().await;
    let producer = lab.broker.producer("shop");
    for (n, cut) in
        [Cut::unanswered("integration.publish("), Cut::unsent("integration.publish(")].into_iter().enumerate()
    {
        lab.proxy.cut(cut);
        let id = producer.publish(&message(n).dedup_key(format!("key {n}"))).await.unwrap();
        lab.proxy.was_cut().await;
        assert_eq!(lab.count("integration.data_staging").await, n as i64 + 1);
        assert_eq!(lab.count(&format!("integration.data_staging where id = {id} and dedup_key = 'key {n}'")).await, 1);
    }
    for (n, cut) in
        [Cut::unanswered("integration.publish_many("), Cut::unsent("integration.publish_many(")].into_iter().enumerate()
    {
        lab.proxy.cut(cut);
        let messages: Vec<Message> = (0..100).map(|m| message(m).dedup_key(format!("{n}/{m}"))).collect();
        let ids = producer.publish_many(&messages).await.unwrap();
        lab.proxy.was_cut().await;
        for (m, id) in ids.into_iter().enumerate() {
            assert_eq!(
                lab.count(&format!("integration.data_staging where dedup_key = '{n}/{m}' and id = {id}")).await,
                1
            );
        }
        assert_eq!(lab.count(&format!("integration.data_staging where dedup_key like '{n}/%'")).await, 100);
    }
    assert_eq!(lab.proxy.cancels(), 0);
}

#[tokio::test]
async fn a_publish_without_a_dedup_key_says_that_its_outcome_is_unknown() {
    let lab = Lab::new().await;
    let producer = lab.broker.producer("shop");
    let copied: Vec<Message> = (0..100).map(message).collect();
    // (what is cut, what is published, whether it happened)
    let copy_done = || Cut::Unanswered(Box::new(|said| said.tag == b'c'));
    let copy_unsent = || Cut::Unsent(Box::new(|said| said.tag == b'c'));
    for (cut, messages, happened) in [
        (Cut::unanswered("insert into integration.data_staging"), &copied[..1], true),
        (Cut::unsent("insert into integration.data_staging"), &copied[..1], false),
        (Cut::unanswered("integration.publish_many("), &copied[..2], true),
        (Cut::unsent("integration.publish_many("), &copied[..2], false),
        (copy_done(), &copied[..], true),
        (copy_unsent(), &copied[..], false),
    ] {
        lab.client.batch_execute("delete from integration.data_staging").await.unwrap();
        lab.proxy.cut(cut);
        let error = match messages {
            [one] => producer.publish(one).await.unwrap_err(),
            many => producer.publish_many(many).await.unwrap_err(),
        };
        lab.proxy.was_cut().await;
        assert_eq!(error.kind(), ErrorKind::OutcomeUnknown, "{error:?}");
        let expected = if happened { messages.len() as i64 } else { 0 };
        assert_eq!(lab.count("integration.data_staging").await, expected);
    }
    assert_eq!(lab.proxy.cancels(), 0);
}

#[tokio::test]
async fn a_publish_that_was_certainly_not_sent_is_repeated_with_a_key_and_without_unless_that_is_switched_off() {
    for within in [Duration::ZERO, Duration::from_secs(60)] {
        let lab = Lab::with(BrokerConfig { publish_within: within, ..BrokerConfig::default() }).await;
        let producer = lab.broker.producer("shop");
        lab.proxy.refuse(usize::MAX);
        lab.proxy.reset();
        // Until the connections of before are seen to be gone.
        soon("no server is reached", async {
            while !lab.broker.ping().await.is_err_and(|error| error.kind() == ErrorKind::Connect) {}
        })
        .await;
        if within.is_zero() {
            let error = producer.publish(&message(1)).await.unwrap_err();
            assert!(error.is_refused(), "{error:?}");
            assert_eq!(lab.count("integration.data_staging").await, 0);
            continue;
        }
        lab.proxy.refuse(2);
        producer.publish(&message(1)).await.unwrap();
        producer.publish_many(&(0..100).map(message).collect::<Vec<_>>()).await.unwrap();
        assert_eq!(lab.count("integration.data_staging").await, 101);
    }
}
