//! Who, what, and the answer. Each line was an attack that succeeded once, or is what must go on working beside it.

use super::{answer, role};
use crate::support::{Database, count};

/// A role's own table with a type whose cast runs whatever it wants: what turned a publisher into the owner.
const OWN_TABLE: &str = "create temp table p (id bigint, source_app text, target_app text); \
    create trigger t after insert on p referencing new table as published for each statement execute function";

const PUBLISHER: &[(&str, &str)] = &[
    (
        "insert into integration.data_staging (source_app, target_app, record_type, data) \
        values ('shop', 'billing', 'x', '{}') returning id",
        "",
    ),
    ("select integration.publish('shop', 'billing', 'x', '{}', p_delay => '1 s', p_dedup_key => 'k')", ""),
    ("select integration.publish_many('shop', '{billing}', '{x}', '{1}')", ""),
    ("copy integration.data_staging (source_app, target_app, record_type, data) from stdin", ""),
    ("select data from integration.data_staging", "42501"),
    ("update integration.data_staging set status = 'completed'", "42501"),
    ("delete from integration.data_staging", "42501"),
    ("select integration.complete_out(null, '{1}', '{1}', array[now()], true, now())", "42501"),
    ("select integration.publish('shop', 'billing', 'x', '{}', p_dedup_key => 'k')", ""),
    ("select integration.grant_app('crm', current_user, '{*}')", "42501"),
    ("select integration.set_row_security(false)", "42501"),
    ("select integration.take_dedup_keys('{crm}', '{order-7}', '{1}')", "42501"),
    ("select integration.lead('shop was here', 9000000000000000)", "42501"),
    ("select integration.step_down('host-1')", "42501"),
    ("select integration.ensure_partitions(300)", "42501"),
    ("select integration.insist_on_leases(array['{\"ledger\":{\"holds\":true}}']::jsonb[], '100 years')", "42501"),
    ("select integration.note_found('{billing}', '{2000000000}', '{0}', '{0}')", "42501"),
    ("select integration.recount()", "42501"),
    ("select integration.retire(0, 2147483647)", "42501"),
    ("select integration.note_cleaned()", "42501"),
    ("select integration.check_is_due()", "42501"),
    ("select integration.claim('billing', 'shop', p_lease => '1 s')", "42501"),
    ("select integration.rescue()", "42501"),
    ("select integration.pause('billing')", "42501"),
    ("select integration.grant_to(current_user, 'operate')", "42501"),
    ("select integration.each_right(current_user, 'operate', 'grant %s on %s to %I')", "42501"),
];

const CONSUMER: &[(&str, &str)] = &[
    ("select integration.register('b-1', 'h', 1, 'a', 'v', '{\"billing\": {\"capacity\": 1}}', 60000)", ""),
    (
        "select integration.complete_many('b-1', array_agg(c.id), array_agg(c.attempt), array_agg(c.created_at)) \
        from integration.claim('billing', 'b-1', 1) c",
        "",
    ),
    ("select integration.maintain()", ""),
    ("select integration.rescue()", ""),
    ("select integration.deregister('b-1')", ""),
    ("insert into integration.audit_log (app_name, action, role_name) values ('ceo', 'paused', 'postgres')", "42501"),
    ("select integration.complete_out(null, '{1}', '{1}', array[now()], true, now())", "42501"),
    ("select integration.set_breaker('billing', 'open', 'no', null, 0, 1)", "42501"),
    ("select integration.open_breaker('mailer')", "42501"),
    ("select integration.pause('mailer')", "42501"),
    ("select integration.step_down('host-1')", "42501"),
    ("select integration.insist_on_leases('{}', '100 years')", "42501"),
    (
        "insert into integration.processes (owner, host, pid, version, lease_until) values ('x', 'h', 1, 'v', 'infinity')",
        "42501",
    ),
    ("update integration.places set created_at = '2100-01-01'", "42501"),
    ("update integration.breakers set state = 'open'", "42501"),
    ("insert into integration.deltas (at, target_app, pending) values (now(), 'billing', 1000000)", "42501"),
    ("select integration.ensure_partitions(300)", "MQ002"),
    ("select integration.publish('shop', 'billing', 'x', '{}')", "42501"),
    ("select integration.set_audit_level('off')", "42501"),
];

const WATCHER: &[(&str, &str)] = &[
    (
        "select * from integration.stats; select * from integration.dead_letters; select * from integration.explain(1)",
        "",
    ),
    (
        "select * from integration.list(); select * from integration.audit(1); select * from integration.maintenance_due()",
        "",
    ),
    ("select integration.cancel('{1}')", "42501"),
    ("update integration.targets set max_in_flight = 1", "42501"),
    ("update integration.data_staging set status = 'cancelled'", "42501"),
];

const OPERATOR: &[(&str, &str)] = &[
    ("select * from integration.stats; select * from integration.explain(1)", ""),
    ("select integration.pause('mailer', 'why'); select integration.resume('mailer')", ""),
    ("select integration.open_breaker('mailer'); select integration.close_breaker('mailer')", ""),
    ("select integration.cancel('{1}'); select integration.retry('{1}'); select integration.redrive_many('{1}')", ""),
    ("select integration.maintain()", ""),
    (
        "update integration.settings set max_retries = 4; insert into integration.targets (target_app) values ('ledger')",
        "",
    ),
    ("insert into integration.audit_log (app_name, action) values ('ceo', 'paused')", "42501"),
    ("delete from integration.audit_log", "42501"),
    ("select integration.set_audit_level('off')", "42501"),
    ("select integration.grant_to(current_user, 'publish')", "42501"),
];

const NEIGHBOUR: &[(&str, &str)] = &[
    ("select integration.clock()", "42501"),
    ("select integration.channel('billing')", "42501"),
    ("select * from integration.stats", "42501"),
    (
        "insert into integration.data_staging (source_app, target_app, record_type, data) values ('a', 'b', 'c', '1')",
        "42501",
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn every_role_does_what_is_its_own_and_nothing_else() {
    let db = Database::new().await;
    let mut wrong = Vec::new();
    for (who, lines) in [
        ("publisher", PUBLISHER),
        ("consumer", CONSUMER),
        ("watcher", WATCHER),
        ("operator", OPERATOR),
        ("neighbour", NEIGHBOUR),
    ] {
        let client = role(&db, who).await;
        for (sql, expected) in lines.iter().filter(|(sql, _)| !sql.starts_with("copy")) {
            let answer = answer(&client, sql).await;
            if answer != *expected {
                wrong.push(format!("{who}: {sql}: {answer:?}, not {expected:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // The other doors of a publisher: COPY, and nobody's work was touched.
    let client = db.client().await;
    assert_eq!(count(&client, "select count(*) from integration.audit_log where app_name = 'ceo'").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trigger_function_of_ours_serves_no_other_table_whoever_may_call_it() {
    let db = Database::new().await;
    let owner = db.client().await;
    let publisher = role(&db, "publisher").await;
    let functions = "select p.proname::text from pg_proc p where p.pronamespace = 'integration'::regnamespace \
        and p.prorettype = 'trigger'::regtype";
    let rows = owner.query(functions, &[]).await.unwrap();
    assert!(rows.len() >= 6, "there are trigger functions");
    for row in rows {
        let name: String = row.get(0);
        let own = format!("{OWN_TABLE} integration.{name}()");
        assert_eq!(answer(&publisher, &format!("{own}; drop table p")).await, "42501", "{name}");
        // The second wall, for when somebody grants too much: the owner himself.
        let fires = format!("{own}; insert into p values (1, 'shop', 'billing')");
        assert_eq!(answer(&owner, &fires).await, "42501", "{name}");
    }
}
