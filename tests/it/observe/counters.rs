//! Counters: exact in every snapshot, whoever changes messages and however, and never read from the table.

use doorbell::observe::Found;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio_postgres::Client;

use crate::support::{Database, count, echo, message, plain_insert, soon, until, until_status};

const DIFFERENCES: &str = "select count(*) from integration.check_counters()";

async fn value(client: &Client, target: &str, status: &str) -> i64 {
    let sql = "select coalesce(sum(messages), 0)::bigint from integration.current_counters where target_app = $1 and status = $2";
    client.query_one(sql, &[&target, &status]).await.unwrap().get(0)
}

async fn total(client: &Client, target: &str, action: &str) -> i64 {
    let sql = "select coalesce(sum(messages), 0)::bigint from integration.current_totals where target_app = $1 and action = $2";
    client.query_one(sql, &[&target, &action]).await.unwrap().get(0)
}

/// One random statement of what people do to the table, legal or not.
fn anything(random: &mut StdRng) -> String {
    let target = ["billing", "shipping", "it's odd"][random.random_range(0..3)].replace('\'', "''");
    let some = format!("id % 7 = {}", random.random_range(0..7));
    let insert = "insert into integration.data_staging (source_app, target_app, record_type, data";
    match random.random_range(0..20) {
        0..3 => format!("select integration.publish('shop', '{target}', 'n', '1')"),
        3 => format!("select integration.publish('shop', '{target}', 'n', '1', p_delay => '1 ms')"),
        4 => format!(
            "{insert}) select 's' || g % 2, case g % 3 when 0 then 'other' else '{target}' end, 'n', '1' from generate_series(1, 30) g"
        ),
        5 => format!(
            "{insert}, status, created_at) select 'old', '{target}', 'n', '1', (array['completed', 'failed', 'cancelled', 'pending'])[1 + g % 4], \
             now() - g * interval '7 min' from generate_series(1, 9) g"
        ),
        6..10 => format!("select count(*) from integration.claim('{target}', 'me', 10, p_lease => '1 h')"),
        10..13 => "select count(*) from (select integration.complete_many('me', array_agg(id), array_agg(attempt), array_agg(created_at)) from \
            (select id, attempt, created_at from integration.data_staging where owner = 'me' and status = 'processing' limit 5) x) y"
            .to_owned(),
        13 => "select count(*) from (select integration.settle('me', array_agg(id), array_agg(attempt), array_agg(created_at), \
            array_agg((array['retry', 'reject', 'snooze', 'release'])[1 + id % 4]), array_agg('why'::text), array_agg(1::bigint)) from \
            (select id, attempt, created_at from integration.data_staging where owner = 'me' and status = 'processing' limit 5) x) y"
            .to_owned(),
        14 => format!("update integration.data_staging set status = 'pending' where {some}"),
        15 => format!("update integration.data_staging set target_app = '{target}', priority = 1 where {some}"),
        16 => format!(
            "update integration.data_staging set status = case status when 'failed' then 'cancelled' when 'pending' then 'failed' else status end where {some}"
        ),
        17 => format!("delete from integration.data_staging where {some} and id % 3 = 0"),
        18 => "select integration.promote('{billing,shipping}'); select integration.rescue()".to_owned(),
        _ => format!(
            "{insert}, dedup_key) values ('shop', '{target}', 'n', '1', 'k{}') on conflict do nothing",
            random.random_range(0..50)
        ),
    }
}

/// Statements in transactions that end one way or the other, some of them in part.
async fn storm(client: Client, seed: u64, steps: usize) {
    let mut random = StdRng::seed_from_u64(seed);
    for _ in 0..steps {
        let mut script = "begin; set local lock_timeout = '100 ms'; set local deadlock_timeout = '20 ms';".to_owned();
        for _ in 0..random.random_range(1..4) {
            script.push_str(&format!("{};", anything(&mut random)));
            if random.random_bool(0.2) {
                script.push_str(&format!("savepoint a; {}; rollback to a;", anything(&mut random)));
            }
        }
        if random.random_bool(0.02) {
            script.push_str("truncate integration.data_staging;");
        }
        script.push_str(if random.random_bool(0.8) { "commit" } else { "rollback" });
        // Illegal transitions, taken keys and deadlocks are part of it.
        if client.batch_execute(&script).await.is_err() {
            client.batch_execute("rollback").await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn counters_are_exact_in_every_snapshot_of_a_storm_at_every_audit_level() {
    for (seed, level) in [(1, "outcomes"), (2, "all"), (3, "off")] {
        let db = Database::new().await;
        let client = db.client().await;
        let prepare = format!(
            "select integration.set_audit_level('{level}'); insert into integration.targets (target_app, on_complete) \
             values ('shipping', 'delete'), ('other', 'archive')"
        );
        client.batch_execute(&prepare).await.unwrap();
        let mut tasks = tokio::task::JoinSet::new();
        for worker in 0..4 {
            tasks.spawn(storm(db.client().await, seed * 100 + worker, 60));
        }
        let folder = db.client().await;
        let folding = async {
            loop {
                // In slices that end anywhere.
                folder.query("select integration.fold(7)", &[]).await.unwrap();
                tokio::task::yield_now().await;
            }
        };
        let checking = async {
            let mut checks = 0;
            while !tasks.is_empty() {
                if let Some(ended) = tasks.try_join_next() {
                    ended.unwrap();
                }
                let wrong = client.query("select c::text from integration.check_counters() c", &[]).await.unwrap();
                let wrong: Vec<String> = wrong.iter().map(|row| row.get(0)).collect();
                assert!(wrong.is_empty(), "seed {seed}, level {level}, check {checks}: {wrong:?}");
                checks += 1;
            }
            checks
        };
        let checks = tokio::select! {
            checks = soon("the storm ends", checking) => checks,
            () = folding => unreachable!(),
        };
        assert!(checks > 3, "the storm was over before it was looked at");
        assert_eq!(count(&client, DIFFERENCES).await, 0);
        // The fold that was under way when the storm ended may still have the gate, and then this one does nothing.
        let folded = async {
            while count(&client, "select count(*) from integration.deltas").await > 0 {
                client.query("select integration.fold()", &[]).await.unwrap();
            }
        };
        soon("all is folded", folded).await;
        assert_eq!(count(&client, DIFFERENCES).await, 0);
        assert!(count(&client, "select sum(messages)::bigint from integration.totals").await > 100);
        assert_eq!(count(&client, "select count(*) from integration.totals where messages < 0").await, 0);
    }
}

#[tokio::test]
async fn what_is_copied_deleted_and_truncated_is_counted() {
    let db = Database::new().await;
    let client = db.client().await;
    let messages: Vec<_> = (0..50).map(|n| message("billing", n)).collect();
    db.broker().await.producer("shop").publish_many(&messages).await.unwrap();
    assert_eq!((value(&client, "billing", "pending").await, total(&client, "billing", "published").await), (50, 50));
    client.execute("delete from integration.data_staging where id % 5 = 0", &[]).await.unwrap();
    assert_eq!((value(&client, "billing", "pending").await, total(&client, "billing", "deleted").await), (40, 10));
    client.query("select integration.fold()", &[]).await.unwrap();
    client.batch_execute("begin; truncate integration.data_staging; rollback").await.unwrap();
    assert_eq!(value(&client, "billing", "pending").await, 40);
    client.batch_execute("truncate integration.data_staging").await.unwrap();
    assert_eq!((value(&client, "billing", "pending").await, total(&client, "billing", "truncated").await), (0, 40));
    let told =
        "select count(*) from integration.audit_log where action = 'truncated' and details = '{\"pending\": 40}'";
    assert_eq!(count(&client, told).await, 1);
    assert_eq!(count(&client, DIFFERENCES).await, 0);
    // A snapshot that is older than what others committed could not count what is truncated.
    let old = "begin isolation level repeatable read; truncate integration.data_staging";
    assert_eq!(client.batch_execute(old).await.unwrap_err().code().unwrap().code(), "0A000");
}

#[tokio::test]
async fn every_action_in_the_life_of_messages_has_a_total() {
    let db = Database::new().await;
    let client = db.client().await;
    let life = "
        select integration.publish('shop', 'billing', 'n', '1') from generate_series(1, 7);
        select integration.publish('shop', 'billing', 'n', '1', p_delay => '1 h');
        select count(*) from integration.claim('billing', 'me', 7, p_lease => '1 h');
        select integration.complete(1::bigint, 1, 'me');
        select integration.fail(2, 1, 'me', 'why', '1 h');
        select integration.reject(3, 1, 'me', 'why');
        select integration.snooze(4, 1, 'me', '1 h');
        select integration.release(5, 1, 'me');
        select integration.cancel('{6}');
        update integration.data_staging set lease_until = integration.clock() - interval '1 s' where id = 7;
        select integration.rescue();
        select integration.redrive(3);
        update integration.data_staging set available_at = integration.clock() - interval '1 s' where id = 8;
        select integration.promote('{billing}');
        update integration.data_staging set status = 'scheduled', available_at = integration.clock() + interval '1 h' where id = 5;
        delete from integration.data_staging where id = 1";
    for folded in [false, true] {
        if folded {
            client.query("select integration.fold()", &[]).await.unwrap();
        } else {
            client.batch_execute(life).await.unwrap();
        }
        let rows = client
            .query(
                "select action || ' ' || messages from integration.current_totals order by action collate \"C\"",
                &[],
            )
            .await
            .unwrap();
        let totals: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        let expected = [
            "cancelled 1",
            "claimed 7",
            "completed 1",
            "deleted 1",
            "errored 1",
            "failed 1",
            "promoted 1",
            "published 8",
            "redriven 1",
            "released 1",
            "rescued 1",
            "scheduled 1",
            "snoozed 1",
        ];
        assert_eq!(totals, expected, "folded: {folded}");
        assert_eq!(count(&client, "select sum(messages)::bigint from integration.current_traffic").await, 26);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn counters_that_were_bypassed_are_repaired_while_publishing_goes_on() {
    let db = Database::new().await;
    let client = db.client().await;
    for n in 0..20 {
        plain_insert(&client, "billing", &n.to_string()).await;
    }
    client
        .batch_execute(
            "set session_replication_role = replica; delete from integration.data_staging where id <= 5; \
             update integration.data_staging set status = 'failed' where id = 6; reset session_replication_role",
        )
        .await
        .unwrap();
    assert_eq!(value(&client, "billing", "pending").await, 20);
    let open = db.client().await;
    open.batch_execute("begin; select integration.publish('shop', 'billing', 'n', '1')").await.unwrap();
    let repaired = client.query("select status, counted, messages from integration.recount() order by 1", &[]).await;
    let repaired: Vec<(String, i64, i64)> =
        repaired.unwrap().iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect();
    assert_eq!(repaired, [("failed".to_owned(), 0, 1), ("pending".to_owned(), 20, 14)]);
    open.batch_execute("commit").await.unwrap();
    assert_eq!((value(&client, "billing", "pending").await, value(&client, "billing", "failed").await), (15, 1));
    assert_eq!(count(&client, DIFFERENCES).await, 0);
    assert_eq!(count(&client, "select count(*) from integration.recount()").await, 0);
    // Maintenance does the same, once a day.
    let broker = db.broker().await;
    assert_eq!(soon("maintenance ends", broker.operator().maintain()).await.unwrap().recounted, 0);
    let unseen =
        "set session_replication_role = replica; delete from integration.data_staging; reset session_replication_role";
    client.batch_execute(unseen).await.unwrap();
    assert_eq!(soon("maintenance ends", broker.operator().maintain()).await.unwrap().recounted, 0);
    client.batch_execute("update integration.maintenance set checked_at = now() - interval '25 h'").await.unwrap();
    assert_eq!(soon("maintenance ends", broker.operator().maintain()).await.unwrap().recounted, 2);
    assert_eq!(count(&client, DIFFERENCES).await, 0);
}

/// What one transaction read of the messages.
const READ: &str = "select coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0) from pg_stat_xact_user_tables \
    where relid = 'integration.data_staging'::regclass";

#[tokio::test]
async fn looking_never_reads_the_table() {
    let db = Database::new().await;
    let client = db.client().await;
    client
        .batch_execute(
            "insert into integration.data_staging (source_app, target_app, record_type, data, priority, status, available_at)
             select 's' || g % 3, 't' || g % 4, 'n', '1', g % 5,
                    case when g % 10 < 4 then 'pending' when g % 10 = 4 then 'scheduled' else 'completed' end,
                    case when g % 10 = 4 then now() + interval '1 h' end
               from generate_series(1, 20000) g;
             insert into integration.data_staging (source_app, target_app, record_type, data, status)
             select 'shop', 'billing', 'n', '1', s from unnest('{failed,processing,cancelled}'::text[]) s;
             analyze integration.data_staging",
        )
        .await
        .unwrap();
    for folded in [false, true] {
        for view in [
            "stats",
            "pending_by_app",
            "error_rates",
            "stuck",
            "dead_letters",
            "wakeups",
            "current_totals",
            "retention",
        ] {
            client.batch_execute(&format!("begin; select * from integration.{view}")).await.unwrap();
            let read = count(&client, READ).await;
            client.batch_execute("commit").await.unwrap();
            // One per target and priority, and the next scheduled one, the few that failed or are processing.
            assert!(read <= 30, "{view} read {read} messages (folded: {folded})");
        }
        client.query("select integration.fold()", &[]).await.unwrap();
    }
    let rows = client
        .query(
            "select target_app, pending, scheduled, completed, oldest_age is not null, next_due_at > now() \
        from integration.stats where target_app = 't2'",
            &[],
        )
        .await
        .unwrap();
    let stats: (String, i64, i64, i64, bool, Option<bool>) =
        (rows[0].get(0), rows[0].get(1), rows[0].get(2), rows[0].get(3), rows[0].get(4), rows[0].get(5));
    let real = "select count(*) from integration.data_staging where target_app = 't2' and status = ";
    let (pending, scheduled) =
        (count(&client, &format!("{real}'pending'")).await, count(&client, &format!("{real}'scheduled'")).await);
    assert_eq!(stats, ("t2".to_owned(), pending, scheduled, 5000 - pending - scheduled, true, Some(true)));
    let oldest = "select extract(epoch from integration.clock() - (select min(created_at) from integration.data_staging \
        where target_app = 't2' and status = 'pending') - oldest_age)::float8 < 1 from integration.stats where target_app = 't2'";
    assert!(client.query_one(oldest, &[]).await.unwrap().get::<_, bool>(0));
}

#[tokio::test]
async fn error_rates_are_those_of_the_guides_query() {
    let db = Database::new().await;
    let client = db.client().await;
    client
        .batch_execute(
            "insert into integration.data_staging (source_app, target_app, record_type, data, status, created_at)
             select 's' || g % 2, 't' || g % 3, 'n', '1', case when g % 7 = 0 then 'failed' else 'completed' end,
                    now() - g * interval '10 min 1 s' from generate_series(1, 300) g;
             select integration.fold();
             select integration.redrive_many(array[7, 14]);
             update integration.data_staging set status = 'failed' where id = 14;
             update integration.data_staging set status = 'cancelled' where id = 21;
             insert into integration.data_staging (source_app, target_app, record_type, data) values ('new', 't0', 'n', '1')",
        )
        .await
        .unwrap();
    // The guide's window, with the ten minutes in which it begins.
    let differ = "with guide as (
            select source_app, target_app, count(*) as total, sum(case when status = 'failed' then 1 else 0 end) as failed,
                   round(100.0 * sum(case when status = 'failed' then 1 else 0 end) / count(*), 2) as error_rate
              from integration.data_staging
             where integration.ten_minutes(created_at) > now() - interval '24 hours 10 minutes' group by source_app, target_app)
        select count(*) from (select * from guide except select * from integration.error_rates
                              union all (select * from integration.error_rates except select * from guide)) d";
    assert_eq!(count(&client, differ).await, 0);
    assert_eq!(count(&client, "select count(*) from integration.error_rates").await, 7);
    // What is archived or deleted was published nevertheless.
    client.execute("delete from integration.data_staging where status = 'completed'", &[]).await.unwrap();
    assert!(count(&client, "select sum(total)::bigint from integration.error_rates").await > 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_database_knows_how_messages_were_found() {
    let db = Database::new().await;
    let client = db.client().await;
    let broker = db.broker().await;
    let (consumer, mut told) = echo(&broker, "billing").await;
    // Parked: only the bell can be what finds the next ones.
    let parked = "select count(*) > 0 from pg_locks where locktype = 'advisory' and classid = integration.latch_class() \
        and database = (select oid from pg_database where datname = current_database())";
    // Or a look that was still to be made when it took the latch.
    let mut published = 0;
    loop {
        until(&client, "the consumer is parked", parked).await;
        let id = plain_insert(&client, "billing", "1").await;
        let found = told.next().await.found;
        until_status(&client, id, "completed").await;
        published += 1;
        if found == Found::Bell {
            break;
        }
    }
    consumer.shutdown().await.unwrap();
    broker.close().await;
    let found = client
        .query_one("select bell::bigint, (bell + drain + sweep)::bigint from integration.wakeups", &[])
        .await
        .unwrap();
    let (bell, all): (i64, i64) = (found.get(0), found.get(1));
    assert!(bell == 1 && all == published, "{bell} of {all}, {published}");
    let shares = "select (select sweep_share from integration.stats) is not distinct from (select sweep_share from integration.wakeups)";
    assert!(client.query_one(shares, &[]).await.unwrap().get::<_, bool>(0));
}
