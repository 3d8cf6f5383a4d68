//! The doctor, before real illnesses: what it finds, how bad it says that is, and that its fixes heal.

use std::time::Duration;

use doorbell::{
    Broker, Settings,
    doctor::{Finding, Level, Options, Report},
};
use doorbell_server::{EphemeralOptions, Server};
use tokio_postgres::Client;

use crate::{
    proxy::{Proxy, Weather},
    support::{Database, connect, count, echo, message, plain_insert, until_status},
};

async fn examined(db: &Database) -> Report {
    db.broker().await.operator().doctor(&patient()).await.unwrap()
}

/// Nothing in a test is old.
fn patient() -> Options {
    Options { bell_within: Duration::from_secs(30), ..Options::default() }
}

/// For bells that will not come; those that do have to come in this time, too.
fn waiting_in_vain() -> Options {
    Options { bell_within: Duration::from_secs(5), ..Options::default() }
}

/// What a check found that is worse than well.
fn ills<'a>(report: &'a Report, check: &str) -> Vec<&'a Finding> {
    report.findings.iter().filter(|finding| finding.check == check && finding.level > Level::Ok).collect()
}

/// The one finding of a check that speaks of this.
#[track_caller]
fn finding<'a>(report: &'a Report, check: &str, about: &str) -> &'a Finding {
    let found = report.findings.iter().find(|finding| finding.check == check && finding.what.contains(about));
    found.unwrap_or_else(|| panic!("no finding of {check} speaks of {about:?}: {report:#?}"))
}

/// Types what the finding says, as somebody who has made sure of what it says first.
async fn heal(client: &Client, finding: &Finding) {
    let fix = finding.fix.as_deref().unwrap_or_else(|| panic!("there is a fix for {finding:?}"));
    let fix = fix.rsplit_once("then: ").map_or(fix, |(_, command)| command);
    client.batch_execute(fix).await.unwrap_or_else(|error| panic!("{fix}: {error:?}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_healthy_database_is_well_in_every_respect_and_is_left_as_it_was() {
    let db = Database::new().await;
    let client = db.client().await;
    let report = examined(&db).await;
    // The tests share a server: its connections are also the others', and it is not made to survive a crash.
    let own = |finding: &&Finding| finding.level > Level::Ok && !["connections", "settings"].contains(&finding.check);
    let ills: Vec<_> = report.findings.iter().filter(own).collect();
    // And a superuser made the schema.
    assert_eq!(ills, [finding(&report, "rights", "a superuser")]);
    assert_eq!(finding(&report, "settings", "fsync is off").level, Level::Problem);
    let checks = "server schema horizon notify_queue drift privileges rights locks clock bell counters tables partitions processes targets stuck maintenance wakeups";
    for check in checks.split(' ') {
        assert!(report.findings.iter().any(|finding| finding.check == check), "{check} was looked at");
    }
    assert!(finding(&report, "bell", "INSERT and its trigger").what.contains("woke"));
    for table in ["data_staging", "audit_log", "processes", "dedup_keys", "deltas", "stats"] {
        assert_eq!(count(&client, &format!("select count(*) from integration.{table}")).await, 0, "{table}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_without_the_schema_is_told_to_migrate_and_nothing_else() {
    let report = examined(&Database::empty().await).await;
    assert_eq!(report.worst(), Level::Problem);
    assert_eq!(finding(&report, "schema", "not there").fix.as_deref(), Some("doorbell migrate"));
    assert!(ills(&report, "drift").is_empty() && ills(&report, "bell").is_empty(), "{report:#?}");
}

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

#[tokio::test(flavor = "multi_thread")]
async fn an_open_transaction_is_named_with_its_session() {
    let db = Database::new().await;
    let mut idle = db.client().await;
    let pid = count(&idle, "select pg_backend_pid()::bigint").await;
    let tx = idle.transaction().await.unwrap();
    tx.execute("create temporary table pinned ()", &[]).await.unwrap();
    let broker = db.broker().await;
    let impatient = |old| Options { transaction_old: old, ..patient() };
    let report = broker.operator().doctor(&impatient(Duration::ZERO)).await.unwrap();
    let found = finding(&report, "horizon", "transaction open");
    assert_eq!(found.level, Level::Problem);
    assert!(found.evidence.as_deref().unwrap().contains(&format!("pid {pid},")), "{found:?}");
    assert!(found.fix.as_deref().unwrap().contains(&format!("pg_terminate_backend({pid})")), "{found:?}");
    let report = broker.operator().doctor(&impatient(Duration::from_secs(3600))).await.unwrap();
    assert!(ills(&report, "horizon").is_empty(), "{report:#?}");
    // Whoever is parked is a listener, and a listener in a transaction was stopped.
    tx.execute("select integration.park('billing')", &[]).await.unwrap();
    let report = broker.operator().doctor(&impatient(Duration::ZERO)).await.unwrap();
    let ours = finding(&report, "horizon", "a session of Doorbell's");
    assert!(ours.evidence.as_deref().unwrap().contains(&format!("pid {pid},")), "{ours:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forgotten_prepared_transaction_and_an_unused_slot_are_named() {
    let settings = [("max_prepared_transactions", "5"), ("wal_level", "replica"), ("max_wal_senders", "2")];
    let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let server = Server::ephemeral(EphemeralOptions { settings, ..Default::default() }).await.unwrap();
    let url = server.connection_string("postgres");
    let broker = Broker::connect(&url).await.unwrap();
    broker.migrate().await.unwrap();
    let client = connect(&url).await;
    client
        .batch_execute(
            "begin; set local integration.notify = off; select integration.pause('billing'); \
             prepare transaction 'it''s forgotten'",
        )
        .await
        .unwrap();
    let report = broker.operator().doctor(&Options { transaction_old: Duration::ZERO, ..patient() }).await.unwrap();
    let found = finding(&report, "horizon", "a prepared transaction");
    assert_eq!(found.level, Level::Problem);
    let (ask, rollback) = found.fix.as_deref().unwrap().rsplit_once(" or ").unwrap();
    assert!(ask.starts_with("ask its transaction manager"), "{found:?}");
    client.batch_execute(rollback).await.unwrap();
    client.batch_execute("select pg_create_physical_replication_slot('forgotten', true)").await.unwrap();
    let report = broker.operator().doctor(&patient()).await.unwrap();
    finding(&report, "horizon", "replication slot forgotten keeps WAL, and nobody uses it");
    assert_eq!(ills(&report, "horizon").len(), 1, "{report:#?}");
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_plain_sql_left_behind_and_a_table_without_autovacuum_are_found_and_the_fixes_heal() {
    let db = Database::new().await;
    let client = db.client().await;
    client
        .batch_execute(
            "insert into integration.data_staging (source_app, target_app, record_type, data, status, updated_at) \
             values ('psql', 'reports', 'n', '1', 'processing', integration.clock() - interval '2 hours'); \
             alter table integration.data_staging set (autovacuum_enabled = false)",
        )
        .await
        .unwrap();
    let report = examined(&db).await;
    let stuck = finding(&report, "stuck", "1 messages have been processing for over an hour");
    assert!(stuck.evidence.as_deref().unwrap().contains("reports"), "{stuck:?}");
    let unvacuumed = finding(&report, "tables", "autovacuum is switched off for data_staging");
    assert_eq!(unvacuumed.level, Level::Problem);
    heal(&client, stuck).await;
    heal(&client, unvacuumed).await;
    assert_eq!(count(&client, "select count(*) from integration.data_staging where status = 'pending'").await, 1);
    let report = examined(&db).await;
    assert!(ills(&report, "stuck").is_empty() && ills(&report, "tables").is_empty(), "{report:#?}");
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

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_month_is_found_and_what_fell_beside_it_can_be_moved() {
    let db = Database::new().await;
    let client = db.client().await;
    let this_month = "select 'audit_log' || to_char(integration.clock() at time zone 'UTC', '\"_\"YYYYMM')";
    let partition: String = client.query_one(this_month, &[]).await.unwrap().get(0);
    client.batch_execute(&format!("drop table integration.{partition}")).await.unwrap();
    let report = examined(&db).await;
    let missing = finding(&report, "partitions", "audit_log has no partition for this month");
    assert_eq!(missing.level, Level::Problem);
    assert!(ills(&report, "partitions").len() == 1, "{report:#?}");

    // Nobody healed it in time, and something was audited.
    let id = plain_insert(&client, "billing", "1").await;
    client.execute("delete from integration.data_staging where id = $1", &[&id]).await.unwrap();
    let report = examined(&db).await;
    heal(&client, finding(&report, "partitions", "1 rows of audit_log lie in its default partition")).await;
    let report = examined(&db).await;
    assert!(ills(&report, "partitions").is_empty() && ills(&report, "drift").is_empty(), "{report:#?}");
    assert_eq!(count(&client, &format!("select count(*) from integration.{partition}")).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_stopped_beating_is_found_until_somebody_rescues() {
    let db = Database::new().await;
    let client = db.client().await;
    let dead = "insert into integration.processes (owner, host, pid, version, lease_until, beat_at) \
        values ('dead-1', 'gone', 1, '0.1.0', integration.clock() - interval '1 min', integration.clock() - interval '75 s'); \
        insert into integration.data_staging (source_app, target_app, record_type, data, status, owner, attempt) \
        values ('shop', 'billing', 'n', '1', 'processing', 'dead-1', 1); \
        update integration.contact set seen_at = integration.clock(), resumed_at = integration.clock()";
    client.batch_execute(dead).await.unwrap();
    let report = examined(&db).await;
    let found = finding(&report, "processes", "stopped beating");
    assert_eq!(found.level, Level::Problem);
    assert!(found.evidence.as_deref().unwrap().contains("dead-1 (pid 1 on gone"), "{found:?}");
    assert!(found.evidence.as_deref().unwrap().contains("holds 1 messages"), "{found:?}");
    db.broker().await.operator().maintain().await.unwrap();
    assert!(ills(&examined(&db).await, "processes").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_nobody_consumes_are_found_and_so_are_paused_targets_breakers_and_dead_letters() {
    let db = Database::new().await;
    let (client, broker) = (db.client().await, db.broker().await);
    plain_insert(&client, "nobody", "1").await;
    plain_insert(&client, "paused", "1").await;
    plain_insert(&client, "broken", "1").await;
    broker.operator().pause("paused", Some("the ledger is moved"), None).await.unwrap();
    broker.operator().open_breaker("broken", Some("maintenance"), None).await.unwrap();
    let failed = plain_insert(&client, "failing", "1").await;
    client.execute("update integration.data_staging set status = 'failed' where id = $1", &[&failed]).await.unwrap();
    let (consumer, _seen) = echo(&broker, "busy").await;
    broker.operator().pause("busy", None, None).await.unwrap();
    broker.producer("shop").publish(&message("busy", 1)).await.unwrap();
    let report = broker.operator().doctor(&Options { waiting_long: Duration::ZERO, ..patient() }).await.unwrap();
    assert_eq!(finding(&report, "targets", "messages for nobody wait, and nobody").level, Level::Warning);
    let paused = finding(&report, "targets", "paused is paused");
    assert!(paused.evidence.as_deref().unwrap().contains("the ledger is moved"), "{paused:?}");
    let broken = finding(&report, "targets", "the breaker of broken is open");
    assert_eq!(broken.fix.as_deref(), Some("when its dependency is well: doorbell breaker close broken"));
    finding(&report, "targets", "failing has 1 dead letters");
    assert_eq!(ills(&report, "targets").len(), 5, "{report:#?}");
    // Paused, so that it waits for a reason that is said.
    assert!(finding(&report, "targets", "busy is paused").evidence.as_deref().unwrap().contains("1 live consumers"));
    consumer.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_that_nobody_maintains_and_messages_that_only_sweeps_find_are_named() {
    let db = Database::new().await;
    let client = db.client().await;
    plain_insert(&client, "billing", "1").await;
    let report = examined(&db).await;
    assert_eq!(finding(&report, "maintenance", "nobody does the maintenance").level, Level::Warning);
    client.execute("select integration.lead('somebody', 60000)", &[]).await.unwrap();
    finding(&examined(&db).await, "maintenance", "somebody does it");

    client
        .batch_execute("select integration.note_found('{billing, quiet}', '{100, 1}', '{50, 1}', '{50, 8}')")
        .await
        .unwrap();
    let report = examined(&db).await;
    let swept = finding(&report, "wakeups", "25 % of the messages for billing were found by sweeps");
    assert_eq!(swept.level, Level::Warning);
    assert_eq!(ills(&report, "wakeups").len(), 1, "{report:#?}");
    // Where sweeping is meant, it is no ill.
    let off = "insert into integration.targets (target_app, bell) values ('billing', 'off')";
    client.batch_execute(off).await.unwrap();
    assert!(ills(&examined(&db).await, "wakeups").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rights_of_a_role_are_judged_by_what_it_is_for() {
    let db = Database::new().await;
    let client = db.client().await;
    let role = format!("patient_{}", db.name());
    let broker = |role: &str| Settings::parse(&db.url.replace("user=postgres", &format!("user={role}"))).unwrap();
    client.batch_execute(&format!("create role {role} login")).await.unwrap();
    let ask = async || {
        let broker = Broker::with_config(broker(&role), Default::default()).await.unwrap();
        broker.operator().doctor(&patient()).await.unwrap()
    };
    assert_eq!(finding(&ask().await, "schema", "permission denied").level, Level::Problem);
    client
        .batch_execute(&format!(
            "grant usage on schema integration to {role}; grant select on integration.migrations, integration.fingerprints to {role}"
        ))
        .await
        .unwrap();
    assert_eq!(finding(&ask().await, "privileges", "neither publish nor consume").level, Level::Problem);
    client.batch_execute(&format!("grant insert on integration.data_staging to {role}")).await.unwrap();
    let report = ask().await;
    let half = finding(&report, "privileges", "some of the rights to publish");
    assert_eq!(half.level, Level::Problem);
    heal(&client, half).await;
    let report = ask().await;
    assert_eq!(finding(&report, "privileges", "may publish").level, Level::Ok);
    assert_eq!(finding(&report, "bell", "was not tried").level, Level::Note, "{report:#?}");
    client.batch_execute(&format!("grant update on integration.data_staging to {role}")).await.unwrap();
    let report = ask().await;
    heal(&client, finding(&report, "privileges", "some of the rights to consume")).await;
    let report = ask().await;
    assert!(finding(&report, "privileges", "may publish, consume").what.contains(&role));
    // The list of rights is complete: nothing else is needed to do it.
    let worker = Broker::with_config(broker(&role), Default::default()).await.unwrap();
    let settings = "insert into integration.targets (target_app, on_complete) values ('elsewhere', 'archive')";
    client.batch_execute(settings).await.unwrap();
    let (consumer, mut told) = echo(&worker, "billing").await;
    let id = worker.producer("shop").publish(&message("billing", 1)).await.unwrap();
    assert_eq!(told.next().await.id, id);
    consumer.shutdown().await.unwrap();
    until_status(&client, id, "completed").await;
    worker.close().await;
    assert_eq!(count(&client, "select count(*) from integration.processes").await, 0);
    // Who may not take a probe back rings without it, and says so.
    assert_eq!(finding(&report, "bell", "integration.ring()").level, Level::Ok, "{report:#?}");
    assert_eq!(finding(&report, "bell", "was not tried").level, Level::Note);
}

#[tokio::test(flavor = "multi_thread")]
async fn rights_that_belong_to_no_verb_and_grants_that_are_not_so_are_named_and_the_fixes_heal() {
    let db = Database::new().await;
    let client = db.client().await;
    let role = format!("stray_{}", db.name());
    let made = format!(
        "create role {role} login; select integration.grant_app('shop', '{role}', '{{billing}}', p_consume => true); \
         grant trigger, delete on integration.data_staging to {role}; grant create on schema integration to {role}; \
         grant execute on function integration.pause(text, text, interval) to public; grant select on integration.grants to public; \
         insert into integration.grants (role_name, app, consume) values ('gone_{role}', 'crm', true)"
    );
    client.batch_execute(&made).await.unwrap();
    let report = examined(&db).await;
    let stray = finding(&report, "rights", &format!("{role} has rights that belong to no verb"));
    let everybody = finding(&report, "rights", "everybody has rights");
    let gone = finding(&report, "rights", "may do for crm is not so");
    assert_eq!([stray, everybody, gone].map(|finding| finding.level), [Level::Warning; 3]);
    assert!(gone.evidence.as_deref().unwrap().contains("no such role"), "{gone:?}");
    for ill in [stray, everybody] {
        heal(&client, ill).await;
    }
    client.batch_execute(&format!("select integration.revoke_app('crm', 'gone_{role}')")).await.unwrap();
    // Asked as the role itself.
    let settings = Settings::parse(&db.url.replace("user=postgres", &format!("user={role}"))).unwrap();
    let its = Broker::with_config(settings, Default::default()).await.unwrap();
    let its = its.operator().doctor(&patient()).await.unwrap();
    let may = finding(&its, "privileges", "may publish as shop to billing, consume for shop");
    assert_eq!(may.level, Level::Ok);
    let report = examined(&db).await;
    assert_eq!(ills(&report, "rights"), [finding(&report, "rights", "a superuser")]);
    assert_eq!(finding(&report, "rights", "1 roles are listed, for 1 applications").level, Level::Ok);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_holds_locks_of_ours_is_named_by_role() {
    let db = Database::new().await;
    let client = db.client().await;
    let role = format!("squatter_{}", db.name());
    client.batch_execute(&format!("create role {role} login")).await.unwrap();
    let squatter = connect(&db.url.replace("user=postgres", &format!("user={role}"))).await;
    let class = count(&client, "select integration.lock_class()::bigint").await;
    squatter.batch_execute(&format!("select pg_advisory_lock({}, 7)", class + 2)).await.unwrap();
    client.batch_execute("begin; lock table integration.data_staging in share mode").await.unwrap();
    let report = examined(&db).await;
    assert_eq!(finding(&report, "locks", &format!("role {role} holds advisory locks")).level, Level::Warning);
    assert_eq!(finding(&report, "locks", "keeps publishers or consumers out").level, Level::Problem);
    client.batch_execute("commit").await.unwrap();
    squatter.batch_execute("select pg_advisory_unlock_all()").await.unwrap();
    assert!(ills(&examined(&db).await, "locks").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_way_on_which_notifications_get_lost_is_a_problem() {
    let db = Database::new().await;
    let proxy = Proxy::to(&db.url).await;
    proxy.set(Weather::DEAF);
    let broker = Broker::connect(&proxy.url).await.unwrap();
    let report =
        broker.operator().doctor(&Options { bell_within: Duration::from_millis(300), ..patient() }).await.unwrap();
    let found = finding(&report, "bell", "do not arrive");
    assert_eq!(found.level, Level::Problem);
    assert!(found.fix.as_deref().unwrap().contains("direct connection"), "{found:?}");
    proxy.set(Weather::default());
    assert!(ills(&broker.operator().doctor(&patient()).await.unwrap(), "bell").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_break_a_promise_are_named() {
    let db = Database::new().await;
    let settings = "-c synchronous_commit=off -c session_replication_role=replica -c integration.notify=off";
    let broker = Broker::connect(&format!("{} options='{settings}'", db.url)).await.unwrap();
    let report = broker.operator().doctor(&waiting_in_vain()).await.unwrap();
    assert_eq!(finding(&report, "settings", "synchronous_commit is off").level, Level::Warning);
    assert_eq!(finding(&report, "settings", "session_replication_role is replica").level, Level::Problem);
    assert_eq!(finding(&report, "settings", "integration.notify is off").level, Level::Note);
    assert_eq!(finding(&report, "bell", "rings no bell").level, Level::Problem);
}
