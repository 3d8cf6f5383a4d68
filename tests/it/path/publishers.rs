//! Publishers that are none of ours: their clocks, their sessions, and how they get here.

use tokio_postgres::config::Host;

use crate::support::{Database, count, echo, until_a_bell, until_count};

/// People write local times and name no zone; the session says where they are meant. Nothing of them keeps a bell from
/// finding its message, and what is due is due at that time.
#[tokio::test(flavor = "multi_thread")]
async fn times_that_name_no_zone_are_of_the_session_and_hide_no_message() {
    let db = Database::new().await;
    let (client, tokyo) = (db.client().await, db.client().await);
    tokyo.batch_execute("set timezone = 'Asia/Tokyo'").await.unwrap();
    let broker = db.broker().await;
    let (consumer, mut told) = echo(&broker, "billing").await;
    let earlier = until_a_bell(&broker.producer("shop"), "billing", &mut told).await;
    // What a program makes of it that takes its own wall clock for that of the server, and the other way round.
    for created in ["clock_timestamp() at time zone 'Asia/Tokyo'", "clock_timestamp() at time zone 'UTC'"] {
        for session in [&client, &tokyo] {
            let sql = format!(
                "insert into integration.data_staging (source_app, target_app, record_type, data, created_at) \
                 values ('shop', 'billing', 'n', '1', ({created})::text::timestamptz) returning id"
            );
            let id = count(session, &sql).await;
            assert_eq!(told.next().await.id, id, "{created}");
        }
    }
    let due = "insert into integration.data_staging (source_app, target_app, record_type, data, status, available_at) \
        values ('shop', 'billing', 'n', '1', 'scheduled', ((clock_timestamp() + interval '50 ms') at time zone 'Asia/Tokyo')::text::timestamptz) \
        returning id";
    let id = count(&tokyo, due).await;
    assert_eq!(told.next().await.id, id);
    let mixed = "insert into integration.data_staging (source_app, target_app, record_type, data, created_at) \
        select 'shop', 'billing', 'n', to_jsonb(n), clock_timestamp() + (n % 3 - 1) * interval '9 h' from generate_series(1, 300) n";
    client.batch_execute(mixed).await.unwrap();
    until_count(&client, "completed", earlier + 5 + 300).await;
    consumer.shutdown().await.unwrap();
}

/// Of another database, through a foreign table: its statements come in REPEATABLE READ, and with a path of its own.
#[tokio::test(flavor = "multi_thread")]
async fn an_insert_through_a_foreign_table_rings_when_it_commits_and_leaves_nothing_otherwise() {
    let (db, elsewhere) = (Database::new().await, Database::empty().await);
    let (client, publisher) = (db.client().await, elsewhere.client().await);
    let there = "select count(*) from pg_available_extensions where name = 'postgres_fdw'";
    if count(&publisher, there).await == 0 {
        println!("skipped: the server has come without postgres_fdw");
        return;
    }
    let url: tokio_postgres::Config = db.url.parse().unwrap();
    let host = match &url.get_hosts()[0] {
        Host::Tcp(name) => name.clone(),
        Host::Unix(path) => path.display().to_string(),
    };
    let (port, name, user) = (url.get_ports()[0], db.name(), url.get_user().unwrap());
    let setup = format!(
        "create extension postgres_fdw; \
         create server queue foreign data wrapper postgres_fdw options (host '{host}', port '{port}', dbname '{name}'); \
         create user mapping for current_user server queue options (user '{user}'); \
         create foreign table outbox (source_app text, target_app text, record_type text, data jsonb) \
             server queue options (schema_name 'integration', table_name 'data_staging')"
    );
    publisher.batch_execute(&setup).await.unwrap();
    let broker = db.broker().await;
    let (consumer, mut told) = echo(&broker, "billing").await;
    let earlier = until_a_bell(&broker.producer("shop"), "billing", &mut told).await;
    let insert = "insert into outbox values ('shop', 'billing', 'n', '1')";
    publisher.batch_execute(&format!("begin; {insert}; rollback")).await.unwrap();
    for n in 1..=3 {
        publisher.batch_execute(insert).await.unwrap();
        told.next().await;
        until_count(&client, "completed", earlier + n).await;
    }
    assert_eq!(count(&client, "select count(*) from integration.data_staging").await, earlier as i64 + 3);
    consumer.shutdown().await.unwrap();
}
