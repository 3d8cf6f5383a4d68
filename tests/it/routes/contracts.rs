//! What messages have to say, asked when they are published, and of nobody who is not bound.

use doorbell::operate::{Breach, Contract, Operator, Subscription};

use super::said;
use crate::{
    doors::{answer, role},
    support::{Database, count, message, plain_insert},
};

const FAILED: &str =
    "select concat(target_app, ':', status, ':', data::text) from integration.data_staging order by target_app, id";

fn about(target: &str, rule: &str, policy: Breach) -> Contract {
    Contract { target: target.into(), record_type: "n".into(), rule: rule.into(), policy, version: 1 }
}

async fn bound(db: &Database, policy: Breach) -> Operator {
    let operator = db.broker().await.operator();
    assert!(operator.contract(&about("billing", "strict $ > 0", policy)).await.unwrap());
    operator
}

#[tokio::test(flavor = "multi_thread")]
async fn what_breaks_its_contract_is_rejected_stored_as_failed_or_counted_and_others_are_not_asked() {
    let db = Database::new().await;
    let client = db.client().await;
    let operator = bound(&db, Breach::Reject).await;
    let producer = db.broker().await.producer("shop");
    let refused = producer.publish(&message("billing", -1)).await.unwrap_err();
    assert_eq!(refused.sqlstate(), Some("23514"));
    let told = refused.to_string();
    assert!(told.contains("billing") && told.contains("$ > 0"), "{told}");
    assert_eq!(refused.contract_of().as_deref(), Some("billing"));
    client.batch_execute("alter table integration.data_staging add check (priority < 9)").await.unwrap();
    let another = producer.publish(&message("billing", 1).priority(9)).await.unwrap_err();
    assert_eq!((another.sqlstate(), another.contract_of()), (Some("23514"), None));
    for one in [-1, 1] {
        let many = [message("billing", 1), message("billing", one)];
        assert_eq!(producer.publish_many(&many).await.is_ok(), one == 1);
    }
    producer.publish(&message("other", -1)).await.unwrap();
    assert!(!operator.contract(&about("billing", "strict $ > 0", Breach::Fail)).await.unwrap());
    plain_insert(&client, "billing", "-2").await;
    plain_insert(&client, "billing", "\"text\"").await;
    operator.contract(&about("billing", "strict $ > 0", Breach::Warn)).await.unwrap();
    plain_insert(&client, "billing", "-3").await;
    assert_eq!(
        said(&client, FAILED).await,
        "billing:pending:1 billing:pending:1 billing:failed:-2 billing:failed:\"text\" billing:pending:-3 other:pending:-1"
    );
    let reasons = "select distinct error_message from integration.data_staging where status = 'failed'";
    assert_eq!(said(&client, reasons).await, "breaks its contract, version 1: strict ($ > 0) is not true of it");
    assert_eq!(operator.contracts().await.unwrap()[0].breaches, 3);
    assert_eq!(count(&client, "select count(*) from integration.audit_log where action = 'breached'").await, 3);
    assert_eq!(count(&client, "select count(*) from integration.check_counters()").await, 0);
    assert!(operator.forget_contract("billing", "n", None).await.unwrap());
    assert!(!operator.forget_contract("billing", "n", None).await.unwrap());
    plain_insert(&client, "billing", "-4").await;
    assert_eq!(count(&client, "select count(*) from integration.audit_log where action = 'breached'").await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_several_versions_is_enough() {
    let db = Database::new().await;
    let client = db.client().await;
    let operator = bound(&db, Breach::Reject).await;
    let second = Contract { version: 2, ..about("billing", "strict $ == \"two\"", Breach::Fail) };
    operator.contract(&second).await.unwrap();
    for data in ["1", "\"two\"", "0"] {
        plain_insert(&client, "billing", data).await;
    }
    assert_eq!(said(&client, FAILED).await, "billing:pending:1 billing:pending:\"two\" billing:failed:0");
    assert!(operator.forget_contract("billing", "n", Some(2)).await.unwrap());
    let refused = "select integration.publish('shop', 'billing', 'n', '\"two\"')";
    assert_eq!(answer(&client, refused).await, "23514");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_topic_what_fails_reaches_nobody_and_no_subscriber_stops_who_publishes() {
    let db = Database::new().await;
    let client = db.client().await;
    let operator = bound(&db, Breach::Reject).await;
    for target in ["billing", "mirror"] {
        let to = Subscription { topic: "events".into(), target: target.into(), ..Subscription::default() };
        operator.subscribe(&to).await.unwrap();
    }
    operator.contract(&about("events", "strict $ < 10", Breach::Fail)).await.unwrap();
    let both = "insert into integration.data_staging (source_app, target_app, record_type, data) \
        values ('shop', 'events', 'n', '-1'), ('shop', 'events', 'n', '11'), ('shop', 'other', 'n', '11')";
    client.batch_execute(both).await.unwrap();
    plain_insert(&client, "events", "12").await;
    assert_eq!(
        said(&client, FAILED).await,
        "billing:failed:-1 events:completed:-1 events:failed:11 events:failed:12 mirror:pending:-1 other:pending:11"
    );
    assert_eq!(count(&client, "select count(*) from integration.check_counters()").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn contracts_are_made_by_operators_and_known_again_after_settings_were_lost() {
    let db = Database::new().await;
    let client = db.client().await;
    let make = "select integration.set_contract('billing', 'n', 'strict $ > 0')";
    for (to, code) in [("publisher", "42501"), ("consumer", "42501"), ("operator", "")] {
        assert_eq!(answer(&role(&db, to).await, make).await, code, "{to}");
    }
    for wrong in ["'', 'n', '$'", "'b', 'n', '$', 'maybe'", "'b', 'n', '$', 'warn', -1"] {
        assert_eq!(answer(&client, &format!("select integration.set_contract({wrong})")).await, "MQ002", "{wrong}");
    }
    // Whoever publishes needs no right to see them.
    let publisher = db.client().await;
    publisher.batch_execute(&format!("set role publisher_{}", db.name())).await.unwrap();
    let publish = "insert into integration.data_staging (source_app, target_app, record_type, data) \
        values ('shop', 'billing', 'n', '0')";
    assert_eq!(answer(&publisher, publish).await, "23514");
    client.batch_execute("delete from integration.settings; select integration.lead('somebody', 1000)").await.unwrap();
    assert_eq!(answer(&publisher, publish).await, "23514");
}
