//! What keeps tables from being adopted is named, all of it, and nothing is changed.

use doorbell::{ErrorKind, migrate::Adopt};

use super::{adopt, contents, populated, same};
use crate::support::{connect, count};

/// What somebody did to the document's tables, and what is said of it.
const OBSTACLES: &[(&str, &str)] = &[
    (
        "alter table integration.data_staging alter column data type text using data::text",
        "data_staging.data is text, and has to be jsonb or json",
    ),
    (
        "alter table integration.data_staging add column tenant uuid not null default gen_random_uuid(); \
         alter table integration.data_staging alter column tenant drop default",
        "data_staging.tenant uuid is not null and has no default, so that a publish that does not name it would fail: \
         alter table ... alter column tenant set default ..., or --leave data_staging.tenant leaves it",
    ),
    (
        "alter table integration.data_staging add column \"owner\" text",
        "data_staging.owner text has the name of a column of Doorbell's: alter table ... rename column owner to another",
    ),
    (
        "alter table integration.data_staging add column number bigserial",
        "data_staging.number bigint takes its values from a sequence, which stays with the old table",
    ),
    (
        "alter table integration.data_staging add column day date generated always as (created_at::date) stored",
        "data_staging.day date is generated from created_at, which becomes timestamptz",
    ),
    (
        "alter table integration.data_staging add column tenant text; \
         alter table integration.data_staging_archive add column tenant uuid",
        "data_staging.tenant is text, and data_staging_archive.tenant is uuid",
    ),
    ("alter table integration.data_staging drop column status cascade", "data_staging has no column status"),
    (
        "alter table integration.data_staging alter column priority type bigint",
        "data_staging.priority is bigint, and has to be integer or smallint",
    ),
    (
        "update integration.data_staging set status = 'done' where id in (7, 9)",
        "data_staging has 2 rows with the status 'done', which is none of pending, processing, completed, failed, cancelled, \
         the first with id 7",
    ),
    (
        "update integration.data_staging set status = null where id = 5",
        "data_staging has 1 row with the status null, the first with id 5",
    ),
    (
        "update integration.data_staging set source_app = '' where id > 398",
        "data_staging has 2 rows with a source_app of less than 1 or more than 50 characters, the first with id 399",
    ),
    (
        "update integration.data_staging set created_at = 'infinity' where id = 8",
        "data_staging has 1 row with a time outside of the years 1 to 9999, the first with id 8",
    ),
    (
        "create view public.backlog as select target_app, count(*) from integration.data_staging group by 1",
        "the view public.backlog reads data_staging",
    ),
    (
        "create table public.invoices (staging_id bigint references integration.data_staging)",
        "public.invoices refers to data_staging (FOREIGN KEY (staging_id) REFERENCES integration.data_staging(id))",
    ),
    (
        "create function public.touch() returns trigger language plpgsql as 'begin return new; end'; \
         create trigger touched before update on integration.data_staging for each row execute function public.touch()",
        "data_staging has the trigger touched",
    ),
    ("alter table integration.data_staging enable row level security", "data_staging has row security"),
    ("create table integration.settings (name text)", "the relation settings is there already"),
    (
        "create function integration.clock() returns timestamptz language sql as 'select now()'",
        "the function clock() is there already",
    ),
    ("create schema integration_before_doorbell", "the schema integration_before_doorbell is there already"),
    (
        "alter table integration.data_staging_archive rename to kept; \
         create view integration.data_staging_archive as select * from integration.kept",
        "data_staging_archive is not an ordinary table but a view",
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn each_obstacle_is_named_and_nothing_is_changed() {
    for (made, expected) in OBSTACLES {
        let (db, client) = populated().await;
        client.batch_execute(made).await.unwrap();
        let broker = db.broker().await;
        let adoption = broker.adoption(&Adopt::default()).await.unwrap().unwrap();
        let named = adoption.differences.iter().filter(|what| what.starts_with(expected)).count();
        assert_eq!((named, adoption.differences.len()), (1, 1), "{made}: {:#?}", adoption.differences);
        let error = broker.adopt(&Adopt::default()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Schema, "{made}: {error:?}");
        assert!(error.to_string().contains(expected), "{made}: {error}");
        assert_eq!(count(&client, "select count(*) from pg_class where relname = 'fingerprints'").await, 0, "{made}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_obstacles_are_named_at_once() {
    let (db, client) = populated().await;
    for (made, _) in [&OBSTACLES[1], &OBSTACLES[7], &OBSTACLES[9], &OBSTACLES[12]] {
        client.batch_execute(made).await.unwrap();
    }
    let adoption = db.broker().await.adoption(&Adopt::default()).await.unwrap().unwrap();
    // Of the rows nothing is said while a column cannot be read.
    assert_eq!(adoption.differences.len(), 3, "{:#?}", adoption.differences);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zone_that_the_server_does_not_know_is_refused() {
    let (db, client) = populated().await;
    let before = contents(&client).await;
    let mut how = Adopt::default();
    how.times_in = Some("Europe/Bergamo".to_owned());
    let error = db.broker().await.adopt(&how).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error:?}");
    assert!(error.to_string().contains("Europe/Bergamo"), "{error}");
    same(&before, &contents(&client).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_of_another_role_is_refused_with_what_makes_it_ours() {
    let (db, client) = populated().await;
    let role = format!("stranger_{}", db.name());
    let migrator = format!("migrator_{}", db.name());
    let give = format!(
        "create role {role}; create role {migrator} login; alter table integration.audit_log owner to {role}; \
         alter schema integration owner to {migrator}; alter table integration.data_staging owner to {migrator}; \
         alter table integration.data_staging_archive owner to {migrator}; grant create on database {0} to {migrator}",
        db.name()
    );
    client.batch_execute(&give).await.unwrap();
    let url = db.url.replace("user=postgres", &format!("user={migrator}"));
    let broker = doorbell::Broker::connect(&url).await.unwrap();
    let adoption = broker.adoption(&Adopt::default()).await.unwrap().unwrap();
    assert_eq!(adoption.differences.len(), 1, "{:#?}", adoption.differences);
    let (_, advice) = adoption.differences[0].split_once(": ").unwrap();
    client.batch_execute(advice).await.unwrap();
    adopt(&broker).await;
    let owner = connect(&url).await;
    assert_eq!(count(&owner, "select count(*) from integration.data_staging").await, 397);
    let may = format!("select has_table_privilege('{role}', 'integration.audit_log', 'insert')::integer::bigint");
    assert_eq!(count(&owner, &may).await, 1, "who owned it can still work with it");
}

/// Only the server knows what a default violates: it is found when a message is published that does not name the column.
#[tokio::test(flavor = "multi_thread")]
async fn columns_that_would_refuse_every_other_publish_are_found_before_anything_is_done() {
    let (db, client) = populated().await;
    let altered = "alter table integration.data_staging add column tenant text default ''; \
        update integration.data_staging set tenant = 'acme'; \
        alter table integration.data_staging add constraint has_tenant check (tenant <> '')";
    client.batch_execute(altered).await.unwrap();
    let before = contents(&client).await;
    let error = db.broker().await.adopt(&Adopt::default()).await.unwrap_err();
    assert!(error.to_string().contains("a message that does not name your columns would be refused"), "{error}");
    assert_eq!(error.sqlstate(), Some("23514"), "{error:?}");
    same(&before, &contents(&client).await);
    assert_eq!(count(&client, "select count(*) from pg_class where relname = 'fingerprints'").await, 0);
}
