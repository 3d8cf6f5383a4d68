//! What is not as the migrations made it.

use doorbell::{Broker, doctor::Level};

use super::{examined, finding, heal, ills, patient, waiting_in_vain};
use crate::support::{Database, count};

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_a_disabled_and_a_foreign_trigger_are_found_and_the_fixes_heal() {
    let db = Database::new().await;
    let client = db.client().await;
    client
        .batch_execute(
            "drop trigger data_staging_published on integration.data_staging; \
             drop trigger data_staging_changed on integration.data_staging; \
             alter table integration.data_staging disable trigger data_staging_hand_edit; \
             create function public.nosy() returns trigger language plpgsql as 'begin return null; end'; \
             create trigger nosy after insert on integration.data_staging execute function public.nosy()",
        )
        .await
        .unwrap();
    let broker = db.broker().await;
    let report = broker.operator().doctor(&waiting_in_vain()).await.unwrap();
    let dropped = finding(&report, "drift", "trigger data_staging.data_staging_published is missing");
    let audit = finding(&report, "drift", "trigger data_staging.data_staging_changed is missing");
    let disabled = finding(&report, "drift", "trigger data_staging_hand_edit is disabled");
    assert!([dropped, audit, disabled].iter().all(|finding| finding.level == Level::Problem), "{report:#?}");
    assert_eq!(finding(&report, "drift", "trigger data_staging.nosy is added").level, Level::Note);
    assert_eq!(finding(&report, "bell", "rings no bell").level, Level::Problem);
    for ill in [dropped, audit, disabled] {
        heal(&client, ill).await;
    }
    client.batch_execute("drop trigger nosy on integration.data_staging").await.unwrap();
    let report = examined(&db).await;
    assert!(ills(&report, "drift").is_empty() && ills(&report, "bell").is_empty(), "{report:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_altered_function_and_a_missing_index_are_found_and_the_fixes_heal() {
    let db = Database::new().await;
    let client = db.client().await;
    client
        .batch_execute(
            "create or replace function integration.ring(p_target text) returns void language sql as 'select'; \
             create or replace function integration.clean_text(p_text text) returns text language sql immutable \
                 return p_text; \
             drop index integration.data_staging_ready; \
             alter table integration.data_staging drop constraint scheduled_needs_available_at; \
             alter table integration.data_staging reset (vacuum_truncate); \
             create index slow on integration.data_staging (source_app)",
        )
        .await
        .unwrap();
    let broker = db.broker().await;
    let report = broker.operator().doctor(&waiting_in_vain()).await.unwrap();
    let ring = finding(&report, "drift", "function ring(text) is altered");
    let clean = finding(&report, "drift", "function clean_text(text) is altered");
    let index = finding(&report, "drift", "index data_staging_ready is missing");
    let constraint = finding(&report, "drift", "constraint data_staging.scheduled_needs_available_at is missing");
    assert!([ring, clean, index, constraint].iter().all(|ill| ill.level == Level::Problem), "{report:#?}");
    assert_eq!(finding(&report, "drift", "index slow is added").level, Level::Note);
    assert_eq!(finding(&report, "drift", "storage settings of data_staging").level, Level::Note);
    for ill in [ring, clean, index] {
        heal(&client, ill).await;
    }
    let report = examined(&db).await;
    let worst: Vec<_> = ills(&report, "drift").into_iter().filter(|ill| ill.level == Level::Problem).collect();
    assert_eq!(worst, [finding(&report, "drift", "scheduled_needs_available_at")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_audit_level_is_as_the_migrations_made_it() {
    let db = Database::new().await;
    let client = db.client().await;
    for level in ["all", "off", "outcomes"] {
        client.execute("select integration.set_audit_level($1)", &[&level]).await.unwrap();
        let report = examined(&db).await;
        assert!(ills(&report, "drift").is_empty(), "{level}: {report:#?}");
        assert!(finding(&report, "drift", level).what.contains("parts"));
    }
    assert_eq!(count(&client, "select count(*) from integration.audit_log where action <> 'audit_level'").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_made_by_the_script_and_by_its_owner_is_no_drift() {
    let db = Database::empty().await;
    db.client().await.batch_execute(&doorbell::migrate::script(&doorbell::migrate::Schema::default())).await.unwrap();
    // A search path of the role's own changes how the server writes definitions, and must not matter.
    let url = format!("{} options='-c search_path=integration,public'", db.url);
    let report = Broker::connect(&url).await.unwrap().operator().doctor(&patient()).await.unwrap();
    assert!(ills(&report, "drift").is_empty(), "{report:#?}");
}

/// pg_dump writes functions and views down as the server prints them.
#[tokio::test(flavor = "multi_thread")]
async fn a_schema_that_was_dumped_and_restored_has_not_drifted() {
    let db = Database::new().await;
    let client = db.client().await;
    client
        .batch_execute(
            "do $$ declare v text; begin \
                 for v in select pg_get_functiondef(p.oid) from pg_proc p where p.pronamespace = 'integration'::regnamespace \
                          union all \
                          select format('create or replace view integration.%I %s as %s', c.relname, \
                                        'with (' || array_to_string(c.reloptions, ', ') || ')', pg_get_viewdef(c.oid)) \
                            from pg_class c where c.relnamespace = 'integration'::regnamespace and c.relkind = 'v' loop \
                     execute v; \
                 end loop; end $$",
        )
        .await
        .unwrap();
    let report = examined(&db).await;
    assert!(ills(&report, "drift").is_empty(), "{report:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_clock_is_a_problem() {
    let db = Database::new().await;
    let client = db.client().await;
    client
        .batch_execute(
            "create or replace function integration.clock() returns timestamptz language sql volatile \
             return clock_timestamp() - interval '1 hour'",
        )
        .await
        .unwrap();
    let report = examined(&db).await;
    assert_eq!(finding(&report, "clock", "-3600 s away").level, Level::Problem);
    heal(&client, finding(&report, "drift", "function clock() is altered")).await;
    let report = examined(&db).await;
    assert!(ills(&report, "clock").is_empty() && ills(&report, "drift").is_empty(), "{report:#?}");
}
