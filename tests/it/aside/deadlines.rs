//! What the server does with our statements when we have given them up.

use std::time::Duration;

use doorbell::BrokerConfig;

use crate::support::{Database, count, echo, message, until};

const SESSIONS: &str = "select count(*) from pg_stat_activity where datname = current_database()";

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_locked_for_long_costs_no_connections_and_work_goes_on_afterwards() {
    let db = Database::new().await;
    let client = db.client().await;
    let config = BrokerConfig {
        connections_max: 3,
        statement_within: Duration::from_millis(600),
        publish_within: Duration::ZERO,
        ..BrokerConfig::default()
    };
    let broker = db.broker_with(config).await;
    let (consumer, mut told) = echo(&broker, "billing").await;
    let producer = broker.producer("shop");
    producer.publish(&message("billing", 1)).await.unwrap();
    told.next().await;
    let person = db.client().await;
    person.batch_execute("begin; lock table integration.data_staging in access exclusive mode").await.unwrap();
    for n in 0..8 {
        producer.publish(&message("billing", n)).await.unwrap_err();
    }
    // Three pooled, one each of the listener and the heartbeat, and ours; without limits of the server's own one more for
    // each attempt, for as long as the table is locked.
    until(&client, "given up statements are over", &format!("select ({SESSIONS}) <= 7")).await;
    assert_eq!(
        count(
            &client,
            "select count(*) from pg_locks where granted and mode = 'AccessExclusiveLock' \
        and relation = 'integration.data_staging'::regclass"
        )
        .await,
        1,
        "it is locked all the while"
    );
    person.batch_execute("rollback").await.unwrap();
    producer.publish(&message("billing", 2)).await.unwrap();
    told.next().await;
    consumer.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_of_ours_look_at_their_sockets_and_stricter_settings_of_a_role_stay() {
    let db = Database::new().await;
    let admin = db.client().await;
    let broker = db.broker().await;
    let shown =
        "select concat_ws(' ', current_setting('lock_timeout'), current_setting('client_connection_check_interval'))";
    let of = async |broker: &doorbell::Broker| -> String {
        let mut client = broker.client().await.unwrap();
        let tx = client.transaction().await.unwrap();
        tx.query_one(shown, &[]).await.unwrap().get(0)
    };
    assert_eq!(of(&broker).await, "20s 2s");
    let strict = format!("alter database {} set lock_timeout = '3 s'", db.name());
    admin.batch_execute(&strict).await.unwrap();
    assert_eq!(of(&db.broker().await).await, "3s 2s");
}
