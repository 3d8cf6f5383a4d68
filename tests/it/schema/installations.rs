//! Other names for the schema, and several installations in one database.

use doorbell::{
    Broker, BrokerConfig, Settings,
    doctor::{Level, Options},
    migrate::{self, Schema},
};

use crate::support::{Database, count, echo, message};

async fn installed(db: &Database, schema: &str) -> Broker {
    let settings = Settings::parse(&db.url).unwrap().with_schema(Schema::new(schema).unwrap());
    let broker = Broker::with_config(settings, BrokerConfig::default()).await.unwrap();
    broker.migrate().await.unwrap();
    broker
}

#[test]
fn the_script_for_another_name_never_says_the_usual_one() {
    let schema = Schema::new("orders").unwrap();
    let script = migrate::script(&schema);
    let said: Vec<_> = script.lines().filter(|line| line.contains("integration")).collect();
    assert!(said.is_empty(), "{said:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_script_for_another_name_makes_what_migrate_makes() {
    let db = Database::empty().await;
    let client = db.client().await;
    client.batch_execute(&migrate::script(&Schema::new("orders").unwrap())).await.unwrap();
    let broker = installed(&db, "orders").await;
    assert!(broker.migrate().await.unwrap().applied.is_empty());
    let report = broker.operator().doctor(&Options::default()).await.unwrap();
    let ills: Vec<_> = report.findings.iter().filter(|f| f.check == "drift" && f.level > Level::Ok).collect();
    assert!(ills.is_empty(), "{ills:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_works_under_another_name() {
    let db = Database::empty().await;
    let broker = installed(&db, "orders").await;
    let (consumer, mut told) = echo(&broker, "billing").await;
    let producer = broker.producer("shop");
    let id = producer.publish(&message("billing", 1)).await.unwrap();
    assert_eq!(told.next().await.id, id);
    // With a key, many at a time, by COPY, and in a transaction.
    producer.publish(&message("billing", 2).dedup_key("integration.settings")).await.unwrap();
    let many: Vec<_> = (0..500).map(|n| message("billing", n)).collect();
    producer.publish_many(&many).await.unwrap();
    let mut client = broker.client().await.unwrap();
    let tx = client.transaction().await.unwrap();
    producer.publish_in(&tx, &message("billing", 3)).await.unwrap();
    tx.commit().await.unwrap();
    told.take(502).await;
    consumer.shutdown().await.unwrap();

    assert_eq!(broker.operator().explain(id).await.unwrap()[0].code, "completed");
    assert_eq!(broker.operator().stats().await.unwrap()[0].target, "billing");
    broker.operator().maintain().await.unwrap();
    let report = broker.operator().doctor(&Options::default()).await.unwrap();
    let own = |f: &&doorbell::doctor::Finding| {
        f.level > Level::Ok && !["connections", "settings", "maintenance", "rights"].contains(&f.check)
    };
    let ills: Vec<_> = report.findings.iter().filter(own).collect();
    assert!(ills.is_empty(), "{ills:#?}");
    // What the doctor says to type names the schema, too.
    let client = db.client().await;
    client.batch_execute("drop index orders.data_staging_scheduled").await.unwrap();
    let report = broker.operator().doctor(&Options::default()).await.unwrap();
    let index = report.findings.iter().find(|f| f.what == "index data_staging_scheduled is missing").unwrap();
    client.batch_execute(index.fix.as_deref().unwrap()).await.unwrap();
    // Values stay as they are, whatever they say.
    assert_eq!(
        count(&client, "select count(*) from orders.dedup_keys where dedup_key = 'integration.settings'").await,
        1
    );
    assert_eq!(count(&client, "select count(*) from pg_namespace where nspname = 'integration'").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_installations_in_one_database_neither_hear_nor_disturb_each_other() {
    let db = Database::empty().await;
    let (one, other) = (installed(&db, "integration").await, installed(&db, "orders").await);
    let client = db.client().await;
    let shared = "select count(*) from (select integration.channel('billing') intersect select orders.channel('billing') \
        union all select integration.lock_class()::text intersect select orders.lock_class()::text) x";
    assert_eq!(count(&client, shared).await, 0);

    let (consumer, mut told) = echo(&one, "billing").await;
    let (other_consumer, mut other_told) = echo(&other, "billing").await;
    // Each has its own switch.
    client.batch_execute("set orders.notify = off").await.unwrap();
    let sql = |schema: &str, n: i64| format!("select {schema}.publish('shop', 'billing', 'n', '{n}')");
    let quiet: i64 = client.query_one(&sql("orders", 1), &[]).await.unwrap().get(0);
    let loud: i64 = client.query_one(&sql("integration", 2), &[]).await.unwrap().get(0);
    assert_eq!(told.next().await.id, loud);
    let rung = other.producer("shop").publish(&message("billing", 3)).await.unwrap();
    let mut handled = [other_told.next().await.id, other_told.next().await.id];
    handled.sort_unstable();
    assert_eq!(handled, [quiet, rung]);
    assert_eq!(told.rest().count(), 0);

    // A limit's lock, a pause and a breaker are one installation's, too.
    one.operator().pause("billing", None, None).await.unwrap();
    let id = other.producer("shop").publish(&message("billing", 4)).await.unwrap();
    assert_eq!(other_told.next().await.id, id);
    consumer.shutdown().await.unwrap();
    other_consumer.shutdown().await.unwrap();
    client.batch_execute("drop schema orders cascade").await.unwrap();
    let report = one.operator().doctor(&Options::default()).await.unwrap();
    assert!(report.findings.iter().all(|f| f.check != "drift" || f.level == Level::Ok), "{report:#?}");
}
