//! The fixes of the doctor.

use doorbell::doctor::{Finding, Options, Report};
use doorbell_server::{EphemeralOptions, Server};
use doorbell_testing::{connect, plain_insert};

use super::{Changes, Living, command_of, is_all_that_changes};
use crate::program::*;

#[tokio::test(flavor = "multi_thread")]
async fn what_the_doctor_says_to_type_changes_what_it_says_and_nothing_else() {
    let db = Database::new().await;
    let (client, broker) = (db.client().await, db.broker().await);
    let living = Living::on(&broker, &client).await;
    // Handlers that have been running for two hours, and claims of nobody knows whom that have as well; dead letters, a
    // pause, a breaker, a target that nobody consumes; an illness of every kind that leaves the server as it is.
    client
        .batch_execute(
            "insert into integration.data_staging (source_app, target_app, record_type, data, status, updated_at) \
                 select 'psql', 'target 0', 'n', '1', 'processing', now() - interval '2 h' from generate_series(1, 20); \
             update integration.data_staging set updated_at = now() - interval '2 h' where status = 'processing'; \
             insert into integration.data_staging (source_app, target_app, record_type, data, status, error_message) \
                 values ('psql', 'target 1', 'n', '1', 'failed', 'no such card'); \
             insert into integration.data_staging (source_app, target_app, record_type, data, created_at) \
                 select 'psql', t, 'n', '1', now() - interval '1 h' from unnest('{target 2, picky, living, livng}'::text[]) t; \
             select integration.pause('target 3', 'moving'); select integration.open_breaker('target 4', 'down'); \
             insert into integration.processes (owner, host, pid, application, version, targets, beat_at, lease_until) \
                 values ('ghost', 'host', 1, 'app', '0', '{}', now() - interval '1 h', now() - interval '1 h'); \
             create table items (id integer primary key, cents integer); create table gone (id integer primary key); \
             create table \"it's\" (id integer primary key); \
             select integration.capture(t, 'target 5') from unnest(array['items'::regclass, 'gone', '\"it''s\"']) t; \
             alter table items disable trigger doorbell_update; drop table gone; \
             alter table \"it's\" drop constraint \"it's_pkey\", add column k integer primary key; \
             select integration.set_extract(x, 'target 5', 'items', p_watermark => 'cents', p_type => 'x') \
               from unnest('{fails, it''s late, skips}'::text[]) x; \
             select integration.set_foreign_extract('it''s unread', 'target 5', 'select 1', \
                 '{\"types\": {\"n\": \"bigint\"}}', 'n', '{n}'); \
             update integration.extracts set next_at = null, last_error = case name when 'fails' then 'no such column' end, \
                 began_at = case name when 'it''s late' then now() - interval '1 h' end, \
                 skipped = (name = 'skips')::integer, looked_at = case name when 'it''s unread' then now() - interval '1 h' end; \
             select integration.set_contract('target 6', 'n', 'strict $ > 0', 'fail'); \
             insert into integration.data_staging (source_app, target_app, record_type, data) \
                 values ('psql', 'target 6', 'n', '0'), ('psql', 'target 7', 'n', '1'), ('psql', 'target 7', 'n', '1'); \
             select integration.set_target('target 7', '{\"rate_max\": 1, \"rate_per\": \"1 day\"}'); \
             alter table integration.data_staging disable trigger data_staging_published; \
             alter table integration.data_staging set (autovacuum_enabled = false); \
             drop index integration.data_staging_requeued; \
             create or replace function integration.step_down(p_name text) returns void language sql as ''",
        )
        .await
        .unwrap();
    let waiting = ["doctor", "--json"];
    let report = json_of(&ended(doorbell(&db, &waiting)).await);
    let findings = report["findings"].as_array().unwrap();
    let fixes: Vec<(&str, &str)> =
        findings.iter().filter_map(|finding| Some((finding["check"].as_str()?, finding["fix"].as_str()?))).collect();
    assert!(fixes.iter().any(|(_, fix)| fix.contains("--to living --target livng")), "{report:#}");
    for check in ["targets", "stuck", "drift", "tables", "contracts", "limits"] {
        assert!(fixes.iter().any(|(of, _)| *of == check), "no fix of {check}: {report:#}");
    }
    assert_eq!(fixes.iter().filter(|(of, _)| *of == "sources").count(), 7, "{report:#}");
    for (check, fix) in fixes {
        // The server of the tests is not this database's alone.
        let Some(command) = command_of(fix).filter(|_| !["settings", "server", "connections"].contains(&check)) else {
            continue;
        };
        let command = command.strip_suffix(", or start any consumer: each rescues for all").unwrap_or(command);
        let changes = match check {
            "stuck" | "processes" => Changes::Orphans,
            "limits" => Changes::Gates,
            "targets" if command.contains("resume") || command.contains("breaker") => Changes::Gates,
            _ => Changes::Nothing,
        };
        let target = match check {
            "limits" => "target 7",
            _ if command.contains("resume") => "target 3",
            _ => "target 4",
        };
        is_all_that_changes(&db, &client, &living, command, changes, Some((0, target))).await;
    }
    let report = json_of(&ended(doorbell(&db, &waiting)).await);
    let healed = |check: &str| {
        let findings = report["findings"].as_array().unwrap().iter();
        findings.filter(|finding| finding["check"] == check).all(|finding| finding["level"] == "ok")
    };
    for check in ["stuck", "drift", "tables", "processes", "limits"] {
        assert!(healed(check), "{check}: {report:#}");
    }
    let left =
        |check: &str| report["findings"].as_array().unwrap().iter().filter(|finding| finding["check"] == check).count();
    // That rows were skipped stays, until the extract is made anew.
    assert_eq!(left("sources"), 1, "{report:#}");
    living.end().await;
    broker.close().await;
}

/// What others' sessions, slots, publications and rules hold up, on a server of its own: some of it is the whole server's.
const HELD_UP: &str = "alter table integration.data_staging add constraint no_claims \
        check (target_app <> 'target 5' or status = 'pending') not valid; \
    select integration.claim('target 5', 'ghost', 1, p_lease => '1 h'); \
    create role reports login superuser; create role \"Ad hoc\" login superuser; \
    select pg_create_physical_replication_slot('forgotten', true); \
    alter table integration.deltas replica identity default; create publication everything for all tables";

/// A month that was not made in time, with events that fell beside it.
const NO_MONTH: &str = "do $$ begin execute 'drop table integration.audit_log' \
        || to_char(integration.clock() at time zone 'UTC', '\"_\"YYYYMM'); end $$; \
    insert into integration.audit_log (staging_id, app_name, action, target_app) values (0, 'test', 'failed', 'target 6')";

#[tokio::test(flavor = "multi_thread")]
async fn what_is_held_up_by_others_goes_on_after_what_the_doctor_says_and_nothing_else_changes() {
    let settings = [("max_prepared_transactions", "5"), ("wal_level", "logical"), ("max_replication_slots", "2")];
    let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let server = Server::ephemeral(EphemeralOptions { settings, ..Default::default() }).await.unwrap();
    let db = Database { url: server.connection_string("postgres") };
    let broker = db.broker().await;
    broker.migrate().await.unwrap();
    let client = db.client().await;
    let living = Living::on(&broker, &client).await;
    plain_insert(&client, "target 5", "1").await;
    client.batch_execute(HELD_UP).await.unwrap();
    client.batch_execute(NO_MONTH).await.unwrap();
    let left_alone = connect(&db.url.replace("user=postgres", "user='Ad hoc'")).await;
    left_alone.batch_execute("begin; create temporary table pinned ()").await.unwrap();
    for (table, gid) in [("forgotten", "it''s forgotten"), ("kept", "to be kept")] {
        let forgotten = format!("begin; create table {table} (); prepare transaction '{gid}'");
        connect(&db.url).await.batch_execute(&forgotten).await.unwrap();
    }

    let examined = async || -> Report {
        let options = Options { transaction_old: Duration::ZERO, ..Options::default() };
        broker.operator().doctor(&options).await.unwrap()
    };
    // Sessions that happen to be in a transaction are old, too, where nothing is young.
    let checks = ["horizon", "publication", "partitions", "set_aside"];
    let is_meant = |finding: &&Finding| {
        checks.contains(&finding.check)
            && finding.fix.is_some()
            && (!finding.what.contains("has kept a transaction open")
                || finding.evidence.as_deref().is_some_and(|evidence| evidence.contains("Ad hoc")))
    };
    let report = examined().await;
    let fixes: Vec<&Finding> = report.findings.iter().filter(is_meant).collect();
    for about in [
        "has kept a transaction open",
        "a prepared transaction",
        "slot forgotten",
        "publication everything keeps rows of",
        "lie in its default partition",
        "has no partition for this month",
        "are set aside",
    ] {
        assert!(fixes.iter().any(|finding| finding.what.contains(about)), "nothing about {about:?}: {report:#?}");
    }
    for finding in fixes {
        for command in commands_of(finding.fix.as_deref().unwrap()) {
            is_all_that_changes(&db, &client, &living, &command, Changes::Nothing, None).await;
        }
    }
    let report = examined().await;
    let left: Vec<&Finding> = report.findings.iter().filter(is_meant).collect();
    // Set aside it stays, as long as the rule is there; and that a publication holds our tables is for its owner.
    let stays = |finding: &&&Finding| {
        finding.what.contains("are set aside") || finding.what.contains("publication everything holds")
    };
    assert!(left.iter().all(|finding| stays(&finding)), "{left:#?}");
    let tables = "select string_agg(tablename, ' ') from pg_tables where schemaname = 'public'";
    assert_eq!(client.query_one(tables, &[]).await.unwrap().get::<_, String>(0), "kept");
    living.end().await;
    broker.close().await;
    server.stop().await.unwrap();
}

/// Those that a fix of several has: for now and for the future, or either of two.
fn commands_of(fix: &str) -> Vec<String> {
    if fix == "as above" {
        return Vec::new();
    }
    let (now, later) = fix.split_once(". For the future: ").map_or((fix, None), |(now, later)| (now, Some(later)));
    let now = match now.rsplit_once(" is undone by ") {
        Some((_, command)) => command,
        None if now.contains(" prepared '") => {
            let (commit, rollback) = now.split_once(" says ").unwrap().1.split_once(" or ").unwrap();
            if commit.contains("to be kept") { commit } else { rollback }
        }
        None => command_of(now).unwrap_or_else(|| panic!("nothing to type in {fix:?}")),
    };
    [Some(now), later]
        .into_iter()
        .flatten()
        .map(|command| command.split("; and run it").next().unwrap().to_owned())
        .collect()
}
