//! Whose the schema is: who migrates, and what he refuses to build on.

use std::sync::Arc;

use doorbell::{Broker, ErrorKind, Outcome};
use tokio::sync::Semaphore;

use super::{answer, role};
use crate::support::{Database, bells_only, connect, count, message, until};

/// A role that may log in, and what is done for it beforehand; its broker.
async fn migrator(db: &Database, made: &str) -> Broker {
    let name = format!("migrator_{}", db.name());
    let made = made.replace("MIGRATOR", &name);
    db.client().await.batch_execute(&format!("create role {name} login; {made}")).await.unwrap();
    Broker::connect(&db.url.replace("user=postgres", &format!("user={name}"))).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_that_was_made_and_given_away_needs_no_right_to_create_schemas() {
    let db = Database::empty().await;
    migrator(&db, "create schema integration authorization MIGRATOR").await.migrate().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn all_belongs_to_a_role_that_cannot_log_in_when_the_schema_does() {
    let db = Database::empty().await;
    let owner = format!("owner_{}", db.name());
    let made =
        format!("create role {owner}; create schema integration authorization {owner}; grant {owner} to MIGRATOR");
    migrator(&db, &made).await.migrate().await.unwrap();
    let others = format!(
        "select (select count(*) from pg_proc where pronamespace = 'integration'::regnamespace and proowner <> '{owner}'::regrole) \
            + (select count(*) from pg_class where relnamespace = 'integration'::regnamespace and relowner <> '{owner}'::regrole)"
    );
    let client = db.client().await;
    assert_eq!(count(&client, &others).await, 0);
    // A superuser is no member: what he made could not be told from what was made for him.
    client.batch_execute("update integration.migrations set checksum = 'another' where version = 0").await.unwrap();
    let refused = db.broker().await.migrate().await.unwrap_err();
    assert!(format!("{refused:?}").contains(&owner), "{refused:?}");
}

/// Gives the schema to a role that cannot log in, as the page about deploying does it; returns the role.
async fn handed_over(db: &Database) -> String {
    let page = crate::support::repository("docs/deploy.md");
    let (before, _) = page.split_once("hand_over").expect("the page tells how");
    let begin = before.rfind("create role").expect("it makes the role first");
    let written = page[begin..].split_once("\n```").expect("a block of SQL ends").0;
    let owner = format!("owner_{}", db.name());
    db.client().await.batch_execute(&written.replace("doorbell_owner", &owner)).await.unwrap();
    owner
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_is_handed_over_with_all_that_is_in_it_and_goes_on_as_it_was() {
    let db = Database::new().await;
    let (client, publisher) = (db.client().await, role(&db, "publisher").await);
    let owner = handed_over(&db).await;
    let others = format!(
        "select count(*) from pg_shdepend s where s.deptype = 'o' and s.refobjid <> '{owner}'::regrole \
            and s.dbid = (select oid from pg_database where datname = current_database())"
    );
    assert_eq!(count(&client, &others).await, 0);
    // Who had rights has them, and whoever migrates is a member now.
    let insert =
        "insert into integration.data_staging (source_app, target_app, record_type, data) values ('a', 'b', 'c', '1')";
    assert_eq!(answer(&publisher, insert).await, "");
    client.batch_execute("update integration.migrations set checksum = 'another' where version = 0").await.unwrap();
    db.broker().await.migrate().await.unwrap();
    assert_eq!(count(&client, &others).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_hands_a_schema_over_to_whom_he_is_no_member_of_or_waits_for_long() {
    let db = Database::new().await;
    let client = db.client().await;
    let stranger = format!("stranger_{}", db.name());
    client.batch_execute(&format!("create role {stranger}")).await.unwrap();
    let hand_over = format!("select integration.hand_over('{stranger}')");
    let refused = client.batch_execute(&hand_over).await.unwrap_err();
    let refused = refused.as_db_error().unwrap();
    assert_eq!(refused.code().code(), "MQ002");
    client.batch_execute(refused.hint().unwrap()).await.unwrap();
    let other = db.client().await;
    other.batch_execute("begin; select count(*) from integration.data_staging").await.unwrap();
    assert_eq!(answer(&client, &hand_over).await, "55P03");
    other.batch_execute("commit").await.unwrap();
    assert_eq!(answer(&client, &hand_over).await, "");
    // And back, by a member.
    assert_eq!(answer(&client, "select integration.hand_over(current_user)").await, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_in_which_others_may_create_or_that_somebody_else_made_is_refused() {
    let db = Database::empty().await;
    let broker =
        migrator(&db, "create schema integration authorization MIGRATOR; grant create on schema integration to public")
            .await;
    let refused = broker.migrate().await.unwrap_err();
    assert_eq!((refused.kind(), refused.sqlstate()), (ErrorKind::Forbidden, Some("42501")), "{refused:?}");
    assert!(format!("{refused:?}").contains("may create in the schema"), "{refused:?}");
    let db = Database::empty().await;
    let squatted = "create role squatter_DB; create schema integration authorization squatter_DB; \
        grant usage on schema integration to MIGRATOR";
    let broker = migrator(&db, &squatted.replace("DB", db.name())).await;
    assert_eq!(broker.migrate().await.unwrap_err().sqlstate(), Some("42501"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_may_not_consume_does_not_start() {
    let db = Database::new().await;
    let publisher = role(&db, "publisher").await;
    assert_eq!(answer(&publisher, "select 1").await, "");
    let url = db.url.replace("user=postgres", &format!("user=publisher_{}", db.name()));
    let broker = Broker::connect(&url).await.unwrap();
    broker.producer("shop").publish(&message("billing", 1)).await.unwrap();
    let started = broker.consumer("billing").fallback(|_| async { Ok(doorbell::Outcome::Done) }).start().await;
    assert_eq!(started.err().and_then(|error| error.sqlstate().map(str::to_owned)).as_deref(), Some("42501"));
    assert_eq!(answer(&connect(&url).await, "select integration.rescue()").await, "42501");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_may_not_consume_any_more_ends_and_says_so() {
    let db = Database::new().await;
    role(&db, "consumer").await;
    let (name, owner) = (format!("consumer_{}", db.name()), db.client().await);
    let broker = Broker::connect(&db.url.replace("user=postgres", &format!("user={name}"))).await.unwrap();
    let (consumer, mut told) = crate::support::echo(&broker, "billing").await;
    let producer = db.broker().await.producer("shop");
    producer.publish(&message("billing", 1)).await.unwrap();
    told.next().await;
    // Whose rights go while it parks is told by its next sweep, which is far away here.
    until(&owner, "it is parked", "select integration.somebody_is_parked('billing')").await;
    owner.batch_execute(&format!("select integration.revoke_from('{name}', 'consume')")).await.unwrap();
    // Whoever looks is told.
    producer.publish(&message("billing", 2)).await.unwrap();
    crate::support::soon("the consumer ends", consumer.ended()).await;
    let pulse = consumer.pulse();
    let ended = consumer.shutdown().await.unwrap_err();
    assert!(!pulse.is_moving());
    assert_eq!((ended.kind(), ended.sqlstate()), (ErrorKind::Forbidden, Some("42501")), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_may_not_settle_any_more_ends_and_says_so() {
    let db = Database::new().await;
    role(&db, "consumer").await;
    let (name, owner) = (format!("consumer_{}", db.name()), db.client().await);
    let broker = Broker::connect(&db.url.replace("user=postgres", &format!("user={name}"))).await.unwrap();
    let (running, gate) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let (begun, open) = (running.clone(), gate.clone());
    let consumer = broker.consumer("billing").config(bells_only()).fallback(move |_| {
        let (begun, open) = (begun.clone(), open.clone());
        async move {
            begun.add_permits(1);
            let _open = open.acquire().await?;
            Ok(Outcome::Done)
        }
    });
    let consumer = consumer.start().await.unwrap();
    db.broker().await.producer("shop").publish(&message("billing", 1)).await.unwrap();
    drop(running.acquire().await.unwrap());
    owner.batch_execute(&format!("select integration.revoke_from('{name}', 'consume')")).await.unwrap();
    gate.add_permits(1);
    crate::support::soon("the consumer ends", consumer.ended()).await;
    assert_eq!(consumer.shutdown().await.unwrap_err().kind(), ErrorKind::Forbidden);
}
