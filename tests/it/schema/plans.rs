//! How the server is told to run our functions.

use crate::support::{Database, count};

#[tokio::test]
async fn no_function_that_forbids_scans_lets_the_server_compile() {
    let db = Database::new().await;
    let client = db.client().await;
    let forbidding = "select count(*) from pg_proc where pronamespace = 'integration'::regnamespace and 'enable_seqscan=off' = any (proconfig)";
    assert!(count(&client, forbidding).await > 5);
    assert_eq!(count(&client, &format!("{forbidding} and 'jit=off' <> all (proconfig)")).await, 0);
}

/// What a fleet has in flight may be much, and each process looks for its own.
#[tokio::test]
async fn who_looks_for_messages_of_one_process_calls_nothing_for_those_of_all_others() {
    let db = Database::new().await;
    let mut client = db.client().await;
    let processes = "insert into integration.data_staging (source_app, target_app, record_type, data)
            select 'shop', 'billing', 'order.placed', '1' from generate_series(1, 509);
        select integration.register(o, 'host', 1, 'app', '1', '{}', 60000) from unnest('{me, gone, leaving, others}'::text[]) o;
        select count(c.*) from unnest('{me, gone, leaving}'::text[]) o cross join lateral integration.claim('billing', o, 3) c;
        select count(*) from integration.claim('billing', 'others', 500);
        delete from integration.processes where owner = 'gone';
        set track_functions = 'all'";
    client.batch_execute(processes).await.unwrap();
    let calls = "select coalesce(sum(calls), 0)::bigint from pg_stat_xact_user_functions
        where funcname in ('is_owed', 'is_set_aside', 'lost_because')";
    for (looks, of_them) in [
        ("integration.rescue()", 3),
        ("integration.give_back('me', '{}', '{}', '{}')", 3),
        ("integration.deregister('leaving')", 3),
    ] {
        let tx = client.transaction().await.unwrap();
        let found: i32 = tx.query_one(&format!("select {looks}"), &[]).await.unwrap().get(0);
        let calls: i64 = tx.query_one(calls, &[]).await.unwrap().get(0);
        assert!(found == of_them && calls <= 30, "{looks}: {found} messages, {calls} calls");
        tx.commit().await.unwrap();
    }
}
