//! Folding goes on in slices, and whoever reads or dies meanwhile, every snapshot has each delta once.

use doorbell::Broker;
use tokio_postgres::Client;

use crate::support::{Database, count, grants, soon, until};

const OPEN: &str = "select count(*) from integration.deltas";
const DIFFERENCES: &str = "select count(*) from integration.check_counters()";
const COUNTED: &str = "select coalesce(sum(messages), 0)::bigint from integration.current_counters";
const PUBLISHED: &str =
    "select coalesce(sum(messages), 0)::bigint from integration.current_totals where action = 'published'";

/// So many publishes, a statement each, to three targets in turn.
async fn publish(client: &Client, count: usize) {
    let one = |n: usize| format!("select integration.publish('shop', 'target{}', 'n', '1');", n % 3);
    client.batch_execute(&(0..count).map(one).collect::<String>()).await.unwrap();
}

#[tokio::test]
async fn a_fold_takes_a_slice_of_what_was_written_first_and_the_next_one_goes_on() {
    let db = Database::new().await;
    let client = db.client().await;
    publish(&client, 25).await;
    let first = "select count(*) from (select ctid from integration.deltas limit 10) d where ctid <= '(0,10)'";
    assert_eq!(count(&client, first).await, 10);
    for (slice, left) in [(10, 15), (10, 5), (5, 0), (0, 0)] {
        assert_eq!(count(&client, "select integration.fold(10)").await, slice);
        let read = (
            count(&client, OPEN).await,
            count(&client, COUNTED).await,
            count(&client, PUBLISHED).await,
            count(&client, "select sum(pending)::bigint from integration.stats").await,
            count(&client, "select coalesce(sum(total), 0)::bigint from integration.error_rates").await,
            count(&client, DIFFERENCES).await,
        );
        assert_eq!(read, (left, 25, 25, 25, 25, 0));
    }
    // By the minute and by the ten it is the same, too.
    for table in ["traffic", "traffic_tens"] {
        assert_eq!(count(&client, &format!("select sum(messages)::bigint from integration.{table}")).await, 25);
    }
    assert_eq!(count(&client, "select integration.fold(-5)").await, 0, "no limit is 1");
}

#[tokio::test]
async fn a_fold_that_dies_half_way_has_done_nothing_and_keeps_nobody_from_the_next() {
    let db = Database::new().await;
    let (client, dying) = (db.client().await, db.client().await);
    publish(&client, 20).await;
    let pid: i32 = dying.query_one("select pg_backend_pid()", &[]).await.unwrap().get(0);
    dying.batch_execute("begin").await.unwrap();
    assert_eq!(count(&dying, "select integration.fold(12)").await, 12);
    assert_eq!((count(&dying, OPEN).await, count(&client, OPEN).await), (8, 20));
    // One at a time: who comes meanwhile leaves it at that.
    assert_eq!(count(&client, "select integration.fold(12)").await, 0);
    assert_eq!((count(&client, COUNTED).await, count(&client, DIFFERENCES).await), (20, 0));
    client.execute("select pg_terminate_backend($1)", &[&pid]).await.unwrap();
    let gone = format!("select not exists (select from pg_stat_activity where pid = {pid})");
    until(&client, "it is gone", &gone).await;
    assert_eq!((count(&client, OPEN).await, count(&client, DIFFERENCES).await), (20, 0));
    assert_eq!(count(&client, "select integration.fold(100)").await, 20);
    assert_eq!((count(&client, COUNTED).await, count(&client, DIFFERENCES).await), (20, 0));
}

#[tokio::test]
async fn a_snapshot_that_stays_open_sees_the_same_numbers_while_everything_is_folded_away_behind_it() {
    let db = Database::new().await;
    let (client, old) = (db.client().await, db.client().await);
    publish(&client, 9).await;
    client.batch_execute("select integration.fold(4)").await.unwrap();
    old.batch_execute("begin isolation level repeatable read").await.unwrap();
    let seen = async |client: &Client| {
        let states = "select sum(pending)::bigint from integration.target_states()";
        (count(client, COUNTED).await, count(client, states).await, count(client, PUBLISHED).await)
    };
    assert_eq!(seen(&old).await, (9, 9, 9));
    for round in 1..=4 {
        publish(&client, 6).await;
        client.batch_execute("select integration.fold(5)").await.unwrap();
        assert_eq!(seen(&old).await, (9, 9, 9), "round {round}");
        assert_eq!(count(&old, DIFFERENCES).await, 0);
        let all = 9 + 6 * round;
        assert_eq!((seen(&client).await, count(&client, DIFFERENCES).await), ((all, all, all), 0));
    }
    // It may not fold itself: what others have folded since is gone for it.
    let refused = old.batch_execute("select integration.fold()").await.unwrap_err();
    assert_eq!(refused.code().unwrap().code(), "40001");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recount_waits_for_a_fold_and_a_fold_does_not_wait_for_a_recount() {
    let db = Database::new().await;
    let (client, folding, recounting) = (db.client().await, db.client().await, db.client().await);
    publish(&client, 10).await;
    let unseen = "set session_replication_role = replica; \
        delete from integration.data_staging where id <= 3; reset session_replication_role";
    client.batch_execute(unseen).await.unwrap();
    folding.batch_execute("begin; select integration.fold(4)").await.unwrap();
    let recount = tokio::spawn(async move {
        recounting.batch_execute("begin").await.unwrap();
        let repaired = count(&recounting, "select sum(counted - messages)::bigint from integration.recount()").await;
        (recounting, repaired)
    });
    let waits =
        "select exists (select from pg_locks where relation = 'integration.gate_fold'::regclass and not granted)";
    until(&client, "the recount waits", waits).await;
    publish(&client, 2).await;
    folding.batch_execute("commit").await.unwrap();
    let (recounting, repaired) = soon("the recount ends", recount).await.unwrap();
    assert_eq!(repaired, 3);
    assert_eq!(count(&client, "select integration.fold()").await, 0, "the recount has the gate");
    recounting.batch_execute("commit").await.unwrap();
    assert_eq!(count(&client, DIFFERENCES).await, 0);
    while count(&client, "select integration.fold(3)").await > 0 {
        assert_eq!((count(&client, DIFFERENCES).await, count(&client, COUNTED).await), (0, 9));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_database_is_serializable_counters_are_exact_and_our_maintenance_is_never_refused() {
    let db = Database::new().await;
    let name = db.name().to_owned();
    let set = format!("alter database {name} set default_transaction_isolation = 'serializable'");
    db.client().await.batch_execute(&set).await.unwrap();
    let broker = db.broker().await;
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..3 {
        let client = db.client().await;
        tasks.spawn(async move {
            for step in 0..40 {
                let statement = match step % 4 {
                    0 => format!("select count(*) from integration.claim('target{n}', 'me', 5, p_lease => '1 h')"),
                    1 => "select integration.fold(5)".to_owned(),
                    2 => "select count(*) from integration.stats".to_owned(),
                    _ => {
                        format!("select integration.publish('shop', 'target{n}', 'n', '1') from generate_series(1, 3)")
                    }
                };
                // Who wants to be serializable is asked to try again now and then.
                if let Err(error) = client.batch_execute(&statement).await {
                    assert_eq!(error.code().unwrap().code(), "40001", "{statement}: {error:?}");
                }
            }
        });
    }
    let client = db.client().await;
    client.batch_execute("set default_transaction_isolation = 'read committed'").await.unwrap();
    while !tasks.is_empty() {
        if let Some(ended) = tasks.try_join_next() {
            ended.unwrap();
        }
        soon("maintenance ends", broker.operator().maintain()).await.unwrap();
        assert_eq!(count(&client, DIFFERENCES).await, 0);
    }
    soon("maintenance ends", broker.operator().maintain()).await.unwrap();
    assert_eq!((count(&client, OPEN).await, count(&client, DIFFERENCES).await), (0, 0));
}

/// As an hour without maintenance leaves them; with the messages that they count.
const MANY_OPEN: &str = "set session_replication_role = replica; \
    insert into integration.data_staging (source_app, target_app, record_type, data) \
    select 'shop', 'target' || n % 3, 'n', '1' from generate_series(1, 20000) n; \
    reset session_replication_role; \
    insert into integration.deltas (at, created_at, pending, messages, target_app, action, source_app) \
    select integration.clock(), integration.ten_minutes(integration.clock()), 1, 1, 'target' || n % 3, 'published', 'shop' \
      from generate_series(1, 20000) n";

#[tokio::test(flavor = "multi_thread")]
async fn who_reads_often_folds_a_slice_first_and_who_may_only_read_simply_reads() {
    let db = Database::new().await;
    let client = db.client().await;
    client.batch_execute(MANY_OPEN).await.unwrap();
    for (to, set) in [("watcher", "jit = off"), ("operator", "default_transaction_read_only = on")] {
        let role = format!("{to}_{}", db.name());
        let grants = grants(to, &role);
        client
            .batch_execute(&format!("create role {role} login; alter role {role} set {set}; {grants}"))
            .await
            .unwrap();
        let reader = Broker::connect(&db.url.replace("user=postgres", &format!("user={role}"))).await.unwrap();
        let stats = reader.operator().stats().await.unwrap();
        assert_eq!(stats.iter().map(|stats| stats.pending).sum::<i64>(), 20_000);
        assert_eq!(count(&client, OPEN).await, 20_000, "nothing was folded");
        reader.close().await;
    }
    let operator = db.broker().await.operator();
    for left in [15_000, 10_000] {
        let targets = operator.targets().await.unwrap();
        assert_eq!(targets.iter().map(|target| target.stats.pending).sum::<i64>(), 20_000);
        assert_eq!(count(&client, OPEN).await, left);
    }
    // Another who is at it is no reason to wait, or not to answer.
    let folding = db.client().await;
    folding.batch_execute("begin; select integration.fold(1)").await.unwrap();
    assert_eq!(operator.stats().await.unwrap().len(), 3);
    folding.batch_execute("rollback").await.unwrap();
    assert_eq!((count(&client, OPEN).await, count(&client, DIFFERENCES).await), (10_000, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_is_forgotten_with_all_that_was_counted_of_it_however_much_is_open() {
    let db = Database::new().await;
    let (client, folding) = (db.client().await, db.client().await);
    client.batch_execute(MANY_OPEN).await.unwrap();
    client.batch_execute("delete from integration.data_staging where target_app = 'target1'").await.unwrap();
    folding.batch_execute("begin; select integration.fold(5000)").await.unwrap();
    let forgetting = db.client().await;
    let forgotten = tokio::spawn(async move {
        count(&forgetting, "select integration.forget_target('target1')::integer::bigint").await
    });
    let waits =
        "select exists (select from pg_locks where relation = 'integration.gate_fold'::regclass and not granted)";
    until(&client, "it waits for the fold", waits).await;
    folding.batch_execute("commit").await.unwrap();
    assert_eq!(soon("it is forgotten", forgotten).await.unwrap(), 1);
    assert_eq!(count(&client, DIFFERENCES).await, 0);
    assert_eq!(count(&client, "select count(*) from integration.stats where target_app = 'target1'").await, 0);
}

/// What one transaction asked of a table: its scans, and the rows that were read.
async fn asked(client: &Client, table: &str, question: &str) -> (i64, i64) {
    let sql = format!(
        "select coalesce(seq_scan, 0) + coalesce(idx_scan, 0), coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0) \
           from pg_stat_xact_user_tables where relid = 'integration.{table}'::regclass"
    );
    client.batch_execute("begin").await.unwrap();
    // What the session did before and has not reported yet is in it.
    let before = client.query_one(&sql, &[]).await.unwrap();
    client.batch_execute(question).await.unwrap();
    let after = client.query_one(&sql, &[]).await.unwrap();
    client.batch_execute("rollback").await.unwrap();
    let grown = |at: usize| after.get::<_, i64>(at) - before.get::<_, i64>(at);
    (grown(0), grown(1))
}

#[tokio::test]
async fn many_open_deltas_are_read_once_for_all_that_is_said_of_the_targets() {
    let db = Database::new().await;
    let client = db.client().await;
    client.batch_execute(MANY_OPEN).await.unwrap();
    for question in ["select * from integration.stats", "select * from integration.target_states()"] {
        assert_eq!(asked(&client, "deltas", question).await, (1, 20_000), "{question}");
    }
    assert_eq!(asked(&client, "deltas", "select * from integration.current_counters").await, (1, 20_000));
}

#[tokio::test]
async fn gates_are_looked_at_where_one_may_be_closed_and_messages_where_some_wait() {
    let db = Database::new().await;
    let client = db.client().await;
    let many = "insert into integration.data_staging (source_app, target_app, record_type, data, status) \
        select 'shop', 'target' || n, 'n', '1', case when n % 100 = 0 then 'pending' else 'completed' end \
          from generate_series(1, 2000) n; \
        insert into integration.targets (target_app, max_retries) select 'target' || n, 5 from generate_series(1, 2000) n; \
        update integration.targets set paused_at = now(), paused_by = 'me' where target_app in ('target1', 'target100'); \
        update integration.targets set max_in_flight = 1 where target_app in ('target2', 'target200'); \
        update integration.data_staging set status = 'processing' where target_app = 'target200'; \
        select integration.open_breaker('target3', 'why'); select integration.fold()";
    client.batch_execute(many).await.unwrap();
    let closed = client
        .query(
            "select target_app, gate_codes from integration.target_states() where gate_codes <> '{}' order by target_app",
            &[],
        )
        .await
        .unwrap();
    let closed: Vec<(String, Vec<String>)> = closed.iter().map(|row| (row.get(0), row.get(1))).collect();
    let gates =
        [("target1", "paused"), ("target100", "paused"), ("target200", "in_flight_limit"), ("target3", "breaker_open")];
    assert_eq!(closed, gates.map(|(target, code)| (target.to_owned(), vec![code.to_owned()])));
    let question = "select * from integration.target_states()";
    // Each of the four asks a table once or twice; the rest is asked of it for all targets together.
    for table in ["targets", "breakers"] {
        let (scans, _) = asked(&client, table, question).await;
        assert!(scans <= 20, "{table} was asked {scans} times");
    }
    // The nineteen fronts, and what the gates count; once for the highest priority, once for the next.
    let (scans, rows) = asked(&client, "data_staging", question).await;
    assert!(scans <= 50 && rows <= 50, "{rows} messages were read in {scans} looks");
    // Where the planner knows nothing of the tables as where it does.
    client.batch_execute("analyze integration.counters, integration.targets, integration.data_staging").await.unwrap();
    let (scans, rows) = asked(&client, "data_staging", question).await;
    assert!(scans <= 50 && rows <= 50, "{rows} messages were read in {scans} looks");
    assert_eq!(count(&client, "select count(*) from integration.target_states('target100')").await, 1);
}
