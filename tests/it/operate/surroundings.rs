//! What stands around the messages: publications, standbys, room for connections.

use doorbell::{
    Broker,
    doctor::{Finding, Level, Options},
};
use doorbell_server::{EphemeralOptions, Server, Shutdown};

use super::maintenance::{ARCHIVED, old_messages};
use crate::support::{Database, Ear, connect, count, echo, grants, message, until};

/// What the doctor says of this, if anything.
async fn finding(broker: &Broker, about: &str) -> Option<Finding> {
    let report = broker.operator().doctor(&Options::default()).await.unwrap();
    report.findings.into_iter().find(|finding| finding.what.contains(about))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publication_of_all_tables_does_not_end_the_maintenance_and_the_doctor_names_it() {
    let db = Database::new().await;
    let client = db.client().await;
    client.batch_execute("create publication everything for all tables").await.unwrap();
    old_messages(&client, "billing", 10).await;
    client
        .batch_execute("delete from integration.data_staging_archive; delete from integration.audit_log")
        .await
        .unwrap();
    let done = db.broker().await.operator().maintain().await.unwrap();
    assert!(done.archived == 10 && done.folded > 0, "{done:?}");
    let unnamed = "select count(*) from pg_class c where c.relnamespace = 'integration'::regnamespace \
        and c.relkind in ('r', 'p') and (c.relreplident = 'n' or c.relreplident = 'd' \
            and not exists (select from pg_index i where i.indrelid = c.oid and i.indisprimary))";
    assert_eq!(count(&client, unnamed).await, 0, "tables whose rows a publication could not name");
    let finding = finding(&db.broker().await, "publication everything").await.expect("it is named");
    assert_eq!(finding.level, Level::Note);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chore_that_is_refused_does_not_keep_the_others_from_being_done() {
    let db = Database::new().await;
    let client = db.client().await;
    old_messages(&client, "billing", 10).await;
    client
        .batch_execute(
            "create publication everything for all tables; alter table integration.deltas replica identity default",
        )
        .await
        .unwrap();
    let broker = db.broker().await;
    let error = broker.operator().maintain().await.unwrap_err();
    assert!(error.to_string().contains("replica identity"), "{error}");
    assert_eq!(count(&client, ARCHIVED).await, 10);
    let finding = finding(&broker, "publication everything keeps rows of deltas").await.expect("it is named");
    assert_eq!(finding.level, Level::Problem);
    client.batch_execute(finding.fix.as_deref().unwrap()).await.unwrap();
    broker.operator().maintain().await.unwrap();
    assert_eq!(count(&client, "select count(*) from integration.deltas").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_standby_the_maintenance_says_that_the_server_is_read_only() {
    let mut server = Server::ephemeral(EphemeralOptions { durable: true, ..Default::default() }).await.unwrap();
    let url = server.connection_string("postgres");
    let broker = Broker::connect(&url).await.unwrap();
    broker.migrate().await.unwrap();
    let mut leader = broker.operator().maintenance();
    assert!(leader.round().await.unwrap().is_some());
    let client = connect(&url).await;
    let data: String = client.query_one("select current_setting('data_directory')", &[]).await.unwrap().get(0);
    std::fs::write(std::path::Path::new(&data).join("standby.signal"), "").unwrap();
    server.restart(Shutdown::Fast).await.unwrap();
    let broker = Broker::connect(&url).await.unwrap();
    // Somebody else leads, if one believes what is written here.
    let error = broker.operator().maintenance().round().await.unwrap_err();
    assert_eq!(error.sqlstate(), Some("25006"));
    assert!(error.to_string().contains("standby"), "{error}");
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_that_may_want_more_connections_than_there_are_are_counted() {
    let db = Database::new().await;
    let (client, broker) = (db.client().await, db.broker().await);
    let register = "select integration.register('p' || n, 'host', n, 'app', '1', '{}', 60000) from generate_series(1, $1::integer) n";
    client.query(register, &[&2]).await.unwrap();
    assert!(finding(&broker, "want more").await.is_none());
    client.query(register, &[&60]).await.unwrap();
    let finding = finding(&broker, "60 processes of up to").await.expect("they are counted");
    assert_eq!((finding.check, finding.level), ("connections", Level::Warning));
}

/// What the guide says of it, so that it is noticed when it is not true any more.
#[tokio::test(flavor = "multi_thread")]
async fn rows_that_a_subscriber_gets_ring_nothing_and_are_not_counted_there() {
    let settings = [("wal_level", "logical")].map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let server = Server::ephemeral(EphemeralOptions { settings, ..Default::default() }).await.unwrap();
    let here = server.connection_string("postgres");
    connect(&here).await.batch_execute("create database there").await.unwrap();
    let there = server.connection_string("there");
    for url in [&here, &there] {
        Broker::connect(url).await.unwrap().migrate().await.unwrap();
    }
    let (source, subscriber) = (connect(&here).await, connect(&there).await);
    source.batch_execute("create publication feed for table integration.data_staging").await.unwrap();
    // Of the same server, a subscription that made the slot would wait for its own transaction.
    source.batch_execute("select pg_create_logical_replication_slot('feed', 'pgoutput')").await.unwrap();
    // What the first copy brings is inserted as by anybody.
    subscriber
        .batch_execute(&format!(
            "create subscription feed connection '{here}' publication feed with (create_slot = false, copy_data = false); \
             alter table integration.data_staging enable always trigger data_staging_published"
        ))
        .await
        .unwrap();
    let mut ear = Ear::on(&Database { url: there.clone() }, &["billing"]).await;
    let publish = "select integration.publish('shop', 'billing', 'n', '1')";
    let first = count(&source, publish).await;
    until(&subscriber, "it has come", "select count(*) = 1 from integration.data_staging").await;
    assert_eq!(ear.heard().await, [""; 0]);
    assert_eq!(count(&subscriber, "select count(*) from integration.deltas").await, 0);
    let broker = Broker::connect(&there).await.unwrap();
    let (consumer, mut told) = echo(&broker, "billing").await;
    assert_eq!(told.next().await.id, first, "a look needs no bell");
    let second = count(&source, publish).await;
    until(&subscriber, "it has come", "select count(*) = 2 from integration.data_staging").await;
    // A publish there does not know that an id is taken, but rings: and what is found then is the other one, too.
    for _ in [first, second] {
        let refused = broker.producer("shop").publish(&message("billing", 2)).await.unwrap_err();
        assert_eq!(refused.sqlstate(), Some("23505"), "{refused:?}");
    }
    broker.producer("shop").publish(&message("billing", 3)).await.unwrap();
    let mut found: Vec<_> = told.take(2).await.iter().map(|delivery| delivery.id).collect();
    found.sort_unstable();
    assert_eq!(found, [second, second + 1]);
    consumer.shutdown().await.unwrap();
    subscriber
        .batch_execute(
            "alter subscription feed disable; alter subscription feed set (slot_name = none); drop subscription feed",
        )
        .await
        .unwrap();
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_that_the_database_ends_when_idle_roles_of_few_connections_and_large_ids_change_nothing() {
    let db = Database::new().await;
    let (client, role) = (db.client().await, format!("few_{}", db.name()));
    client
        .batch_execute(&format!(
            "alter database {} set idle_session_timeout = '1 s'; \
             create role {role} login connection limit 4; {}; {}; \
             select setval('integration.data_staging_id_seq', 5000000000)",
            db.name(),
            grants("consumer", &role),
            grants("publisher", &role),
        ))
        .await
        .unwrap();
    let broker = Broker::connect(&db.url.replace("user=postgres", &format!("user={role}"))).await.unwrap();
    let (consumer, mut told) = echo(&broker, "billing").await;
    let producer = broker.producer("shop");
    // For longer than a session may be idle: each is handled when its bell rings, and the next is published then.
    let began = std::time::Instant::now();
    let mut handled = 0;
    while handled < 50 || began.elapsed() < std::time::Duration::from_secs(2) {
        let id = producer.publish(&message("billing", 1)).await.unwrap();
        assert!(id > 5_000_000_000);
        assert_eq!(told.next().await.id, id);
        handled += 1;
    }
    until(
        &client,
        "all are completed",
        &format!("select count(*) = {handled} from integration.data_staging where status = 'completed'"),
    )
    .await;
    consumer.shutdown().await.unwrap();
    broker.close().await;
}
