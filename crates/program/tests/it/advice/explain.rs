//! The fixes of `explain`.

use std::collections::BTreeSet;

use doorbell_testing::plain_insert;

use super::{Changes, Living, command_of, is_all_that_changes};
use crate::program::*;

/// The codes of `explain` that come with advice, with what it may change: nothing, the message it is about, the messages
/// of dead owners, or the gates of its target.
const ADVICE: [(&str, Changes); 22] = [
    ("gone", Changes::Nothing),
    ("failed", Changes::Message),
    ("cancelled", Changes::Message),
    ("expired", Changes::Message),
    ("scheduled", Changes::Message),
    ("due", Changes::Message),
    ("owner_dead", Changes::Orphans),
    ("foreign_claim", Changes::Message),
    ("locked", Changes::Nothing),
    ("paused", Changes::Gates),
    ("breaker_open", Changes::Gates),
    ("breaker_half_open", Changes::Gates),
    ("in_flight_limit", Changes::Nothing),
    ("rate_limited", Changes::Nothing),
    ("no_consumer", Changes::Nothing),
    ("type_not_accepted", Changes::Nothing),
    ("set_aside", Changes::Message),
    ("key_waits", Changes::Nothing),
    ("key_blocked", Changes::Message),
    ("key_type", Changes::Message),
    ("key_turn", Changes::Nothing),
    ("not_visible", Changes::Nothing),
];

/// Those without: nothing needs to be done.
const NO_ADVICE: [&str; 13] = [
    "not_found",
    "archived",
    "completed",
    "processing",
    "held",
    "suspect",
    "busy",
    "queued",
    "ready",
    "key_busy",
    "expires",
    "expiring",
    "coalesced",
];

/// A situation: what brings it about, given a target of its own, and the code that `explain` has for its message first.
const SITUATIONS: [(&str, &str); 19] = [
    ("delete from integration.data_staging where id = $id", "gone"),
    ("update integration.data_staging set status = 'failed', error_message = 'no such card' where id = $id", "failed"),
    ("select integration.cancel(array[$id], 'withdrawn')", "cancelled"),
    ("select integration.cancel(array[$id], integration.expiry_reason())", "expired"),
    (
        "update integration.data_staging set status = 'scheduled', available_at = now() + interval '1 h' where id = $id",
        "scheduled",
    ),
    ("update integration.data_staging set status = 'scheduled', available_at = now() where id = $id", "due"),
    ("select integration.claim('$target', 'ghost', 1, p_lease => '-1 s')", "owner_dead"),
    ("update integration.data_staging set status = 'processing' where id = $id", "foreign_claim"),
    ("select integration.pause('$target', 'moving')", "paused"),
    ("select integration.open_breaker('$target', 'cards are down')", "breaker_open"),
    (
        "select integration.open_breaker('$target', 'cards are down', '0 s'); \
         update integration.breakers set state = 'half_open', canaries_left = 0, changed_at = integration.clock() \
          where breaker_key = '$target'",
        "breaker_half_open",
    ),
    (
        "insert into integration.targets (target_app, max_in_flight) values ('$target', 0 + 1); \
         insert into integration.data_staging (source_app, target_app, record_type, data, status) \
             values ('shop', '$target', 'n', '2', 'processing')",
        "in_flight_limit",
    ),
    (
        "insert into integration.targets (target_app, rate_max, rate_per) values ('$target', 1, '1 day'); \
         insert into integration.turns (target_app, claimed_at, claimed) values ('$target', array[integration.clock()], '{1}')",
        "rate_limited",
    ),
    ("", "no_consumer"),
    ("update integration.data_staging set target_app = 'picky' where id = $id", "type_not_accepted"),
    (
        "update integration.data_staging set ordering_key = 'k' where id = $id; \
         insert into integration.data_staging (source_app, target_app, record_type, data, ordering_key) \
             values ('shop', '$target', 'n', '2', 'k'); \
         select integration.reject(c.id, c.attempt, 'x', 'no such card') \
           from integration.claim('$target', 'x', 1, p_lease => '1 min') c; \
         select integration.claim('$target', 'x', 1, p_lease => '1 min')",
        "key_blocked",
    ),
    (
        "update integration.data_staging set ordering_key = 'k' where id = $id; \
         insert into integration.data_staging (source_app, target_app, record_type, data, ordering_key) \
             values ('shop', '$target', 'n', '2', 'k'); \
         select integration.snooze(c.id, c.attempt, 'x', '1 h') \
           from integration.claim('$target', 'x', 1, p_lease => '1 min') c",
        "key_waits",
    ),
    (
        "update integration.data_staging set ordering_key = 'k' where id = $id; \
         insert into integration.data_staging (source_app, target_app, record_type, data, ordering_key) \
             values ('shop', '$target', 'n', '2', 'k')",
        "key_type",
    ),
    ("lock", "locked"),
];

#[tokio::test(flavor = "multi_thread")]
async fn what_explain_says_to_type_changes_what_it_says_and_nothing_else() {
    let db = Database::new().await;
    let (client, broker) = (db.client().await, db.broker().await);
    client.batch_execute("select integration.set_audit_level('all')").await.unwrap();
    let living = Living::on(&broker, &client).await;
    let mut seen = BTreeSet::new();
    for (at, (sql, code)) in SITUATIONS.iter().enumerate() {
        let target = format!("target {at}");
        let holder = db.client().await;
        // Asked in the transaction that makes it so: living processes look after some of it at once.
        client.batch_execute("begin").await.unwrap();
        let id = plain_insert(&client, &target, "1").await;
        if *sql == "lock" {
            client.batch_execute("commit; begin").await.unwrap();
            holder
                .batch_execute(&format!("begin; select from integration.data_staging where id = {id} for update"))
                .await
                .unwrap();
        } else {
            let sql = sql.replace("$id", &id.to_string()).replace("$target", &target);
            client.batch_execute(&sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        }
        // Of those about a key it is the one behind.
        let behind = "select max(id) from integration.data_staging where target_app = $1";
        let behind: Option<i64> = client.query_one(behind, &[&target]).await.unwrap().get(0);
        let asked = if code.starts_with("key_") { behind.unwrap() } else { id };
        let explain = "select code, fix from integration.explain($1)";
        let causes: Vec<(String, Option<String>)> =
            client.query(explain, &[&asked]).await.unwrap().iter().map(|row| (row.get(0), row.get(1))).collect();
        client.batch_execute("commit").await.unwrap();
        assert_eq!(causes[0].0, *code, "{causes:?}");
        for (code, fix) in causes {
            let Some((_, changes)) = ADVICE.iter().find(|(known, _)| *known == code) else {
                assert!(NO_ADVICE.contains(&code.as_str()) && fix.is_none(), "{code}: {fix:?}");
                continue;
            };
            seen.insert(code.clone());
            let fix = fix.unwrap_or_else(|| panic!("{code} has no advice"));
            let Some(command) = command_of(&fix) else { continue };
            is_all_that_changes(&db, &client, &living, command, *changes, Some((id, &target))).await;
        }
        holder.batch_execute("rollback").await.unwrap();
    }
    let known: BTreeSet<String> = ADVICE.iter().map(|(code, _)| (*code).to_owned()).collect();
    let elsewhere = BTreeSet::from(["not_visible", "set_aside", "key_turn"].map(str::to_owned));
    assert_eq!(seen.union(&elsewhere).cloned().collect::<BTreeSet<_>>(), known);
    living.end().await;
    broker.close().await;
}
