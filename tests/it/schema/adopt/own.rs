//! Columns of somebody's own are kept, with what belongs to them, wherever their messages go.

use doorbell::migrate::{Adopt, Adoption};
use tokio_postgres::Client;

use super::{adopt, contents, populated, same};
use crate::support::{Database, count, echo};

/// The document's tables with more, and what became of them.
async fn adopted(altered: &str) -> (Database, Client, Adoption) {
    let (db, client) = populated().await;
    client.batch_execute(altered).await.unwrap_or_else(|error| panic!("{altered}: {error:?}"));
    let has_archive = !altered.starts_with("drop table");
    let before = if has_archive { contents(&client).await } else { Vec::new() };
    let adoption = adopt(&db.broker().await).await.adopted.unwrap();
    if has_archive {
        same(&before, &contents(&client).await);
    }
    // Rows come and go as everywhere: by hand, and in the library.
    let broker = db.broker().await;
    let (consumer, mut told) = echo(&broker, "mailer").await;
    let id = broker.producer("shop").publish(&crate::support::message("mailer", 1)).await.unwrap();
    assert_eq!(told.take(1).await[0].id, id, "{altered}");
    consumer.shutdown().await.unwrap();
    assert_eq!(count(&client, "select count(*) from integration.check_counters()").await, 0, "{altered}");
    (db, client, adoption)
}

async fn is_refused(client: &Client, sql: &str, code: &str) {
    let error = client.batch_execute(sql).await.unwrap_err();
    assert_eq!(error.code().map(|its| its.code()), Some(code), "{sql}: {error:?}");
}

const INSERT: &str = "insert into integration.data_staging (source_app, target_app, record_type, data";

#[tokio::test(flavor = "multi_thread")]
async fn a_column_keeps_its_values_its_default_and_its_nulls() {
    let (_db, client, adoption) = adopted(
        "alter table integration.data_staging add column tenant text collate \"C\" default 'acme', add column \"Order\" integer; \
         update integration.data_staging set \"Order\" = id where id % 2 = 0",
    )
    .await;
    let kept = [
        "the column data_staging.tenant text collate \"C\" default 'acme'::text",
        "the column data_staging.Order integer",
    ];
    assert_eq!(adoption.kept, kept);
    let values = "select count(*) from integration.data_staging where id <= 400 and tenant = 'acme' \
        and \"Order\" is not distinct from case when id % 2 = 0 then id end";
    assert_eq!(count(&client, values).await, 397);
    assert_eq!(
        count(&client, "select count(*) from integration.data_staging where id > 400 and tenant = 'acme'").await,
        1
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_column_that_is_never_null_and_has_a_default_stays_so() {
    let (_db, client, adoption) =
        adopted("alter table integration.data_staging add column tenant text not null default 'acme'").await;
    assert_eq!(adoption.kept, ["the column data_staging.tenant text default 'acme'::text not null"]);
    is_refused(&client, &format!("{INSERT}, tenant) values ('a', 'b', 'n', '1', null)"), "23502").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_generated_column_goes_on_being_generated() {
    let (_db, client, adoption) = adopted(
        "alter table integration.data_staging add column n integer generated always as ((data ->> 'n')::integer) stored",
    )
    .await;
    assert!(
        adoption.kept[0].contains("generated always as (((data ->> 'n'::text))::integer) stored"),
        "{:?}",
        adoption.kept
    );
    client.batch_execute(&format!("{INSERT}) values ('a', 'b', 'n', '{{\"n\": 7000}}')")).await.unwrap();
    assert_eq!(count(&client, "select count(*) from integration.data_staging where n = id").await, 397);
    assert_eq!(count(&client, "select count(*) from integration.data_staging where n = 7000").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn indexes_and_constraints_of_such_columns_are_made_again_and_others_are_not() {
    let (_db, client, adoption) = adopted(
        "create table public.tenants (name text primary key); insert into public.tenants values ('acme'), ('globex'); \
         alter table integration.data_staging add column tenant text default 'acme' references public.tenants, \
             add column reference text, add column parent bigint references integration.data_staging (id), \
             add constraint short check (length(reference) < 20), \
             add constraint known check (status in ('pending', 'processing', 'completed', 'failed')), \
             add constraint once unique (source_app, reference); \
         create index of_tenants on integration.data_staging (tenant, created_at) where status = 'pending'; \
         create unique index by_reference on integration.data_staging (lower(reference)); \
         alter table integration.audit_log add column note text; create index noted on integration.audit_log (note)",
    )
    .await;
    let what = |kept: &[String]| -> Vec<String> {
        let not_columns = kept.iter().filter(|what| !what.starts_with("the column"));
        not_columns.map(|what| what.split(' ').take(3).collect::<Vec<_>>().join(" ")).collect()
    };
    assert_eq!(
        what(&adoption.kept),
        [
            "the constraint data_staging_tenant_fkey",
            "the constraint once",
            "the constraint short",
            "the index by_reference",
            "the index noted",
            "the index of_tenants",
        ]
    );
    assert_eq!(
        what(&adoption.left),
        [
            "the constraint audit_log_staging_id_fkey",
            "the constraint data_staging_parent_fkey",
            "the constraint known",
            "the index idx_cleanup",
            "the index idx_processing",
        ]
    );
    let values = |values: &str| format!("{INSERT}, tenant, reference) values ('a', 'b', 'n', '1', {values})");
    client.batch_execute(&values("'globex', 'r-1'")).await.unwrap();
    is_refused(&client, &values("'nobody', 'r-2'"), "23503").await;
    is_refused(&client, &values("'acme', 'r-1'"), "23505").await;
    is_refused(&client, &values("'acme', repeat('r', 20)"), "23514").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_archive_keeps_such_columns_too_whether_it_had_them_or_not() {
    for archive in [
        "drop table integration.data_staging_archive",
        "select 1",
        "alter table integration.data_staging_archive add column tenant text, add column batch integer; \
         update integration.data_staging_archive set tenant = 'globex', batch = 7",
    ] {
        let (db, client, _) = adopted(&format!(
            "{archive}; alter table integration.data_staging add column tenant text not null default 'acme', \
             add column n integer generated always as ((data ->> 'n')::integer) stored"
        ))
        .await;
        let old = "update integration.data_staging set processed_at = now() - interval '8 days' where id = 22";
        client.batch_execute(old).await.unwrap();
        db.broker().await.operator().maintain().await.unwrap();
        let archived =
            "select count(*) from integration.data_staging_archive where id = 22 and tenant = 'acme' and n = 22";
        assert_eq!(count(&client, archived).await, 1, "{archive}");
        if archive.contains("batch") {
            let before = "select count(*) from integration.data_staging_archive where batch = 7 and tenant = 'globex'";
            assert_eq!(count(&client, before).await, 3);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_of_the_document_and_the_doctor_are_at_peace_with_such_columns() {
    let (db, client, _) = adopted("alter table integration.data_staging add column tenant text default 'acme'").await;
    let claimed = "update integration.data_staging set status = 'processing' where id = 4 and status = 'pending'";
    assert_eq!(client.execute(claimed, &[]).await.unwrap(), 1);
    let archived = "insert into integration.data_staging_archive select * from integration.data_staging where id = 6";
    // Which was in the archive, and is no message any more.
    assert_eq!(client.execute(archived, &[]).await.unwrap(), 0);
    let report = db.broker().await.operator().doctor(&doorbell::doctor::Options::default()).await.unwrap();
    let drift: Vec<_> = report.findings.iter().filter(|finding| finding.check == "drift").collect();
    assert!(!drift.is_empty());
    assert!(drift.iter().all(|finding| finding.level <= doorbell::doctor::Level::Note), "{drift:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_takes_its_index_with_it() {
    let (db, client) = populated().await;
    let altered = "alter table integration.data_staging add column tenant text, add column place text; \
        create index of_both on integration.data_staging (tenant, place)";
    client.batch_execute(altered).await.unwrap();
    let mut how = Adopt::default();
    how.leave = vec!["data_staging.place".to_owned()];
    let adoption = db.broker().await.adopt(&how).await.unwrap().adopted.unwrap();
    assert_eq!(adoption.kept, ["the column data_staging.tenant text"]);
    assert!(
        adoption.left.iter().any(|what| what.starts_with("the index of_both of data_staging")),
        "{:?}",
        adoption.left
    );
}
