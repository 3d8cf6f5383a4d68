//! What operators ask of a large table is answered from its indexes.

use doorbell_testing::until;
use tokio_postgres::Client;

use crate::program::*;

/// Triggers as they are. Every hundredth failed; few are being handled.
const MANY: &str = "insert into integration.data_staging \
    (source_app, target_app, record_type, data, status, priority, created_at, updated_at, processed_at, available_at, \
     attempt, retry_count, error_message) \
    select 'shop', (array['billing', 'shipping', 'mail', 'ledger'])[1 + n % 4], 'order.placed', '{\"n\": 1}', s.status, n % 3, \
           now() - (100000 - n) * interval '1 s', now(), case when s.status = 'completed' then now() end, \
           case when s.status = 'scheduled' then now() + n * interval '1 s' end, 1, (n % 10 = 1)::int, \
           case when s.status = 'failed' then 'no such card' end \
      from generate_series(1, 100000) n \
     cross join lateral (select case when n % 100 = 0 then 'failed' when n % 10 = 1 then 'scheduled' \
         when n % 10 < 5 then 'pending' when n % 1000 = 999 then 'processing' else 'completed' end as status) s";

/// The server's own upkeep reads, too, and summarizing a part of a large table counts as a scan of it.
const NO_UPKEEP: &str = "alter table integration.data_staging set (autovacuum_enabled = off); \
    alter index integration.data_staging_created set (autosummarize = off)";

/// Blocks of the table and its indexes that were asked for until now, and its sequential scans.
async fn asked_for(client: &Client) -> (i64, i64) {
    let others =
        "select count(*) = 0 from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()";
    // A backend reports when it ends, or, as ours, when it is told to.
    client.execute("select pg_stat_force_next_flush()", &[]).await.unwrap();
    until(client, "the program's connection is gone", others).await;
    let blocks = "select heap_blks_read + heap_blks_hit + idx_blks_read + idx_blks_hit from pg_statio_user_tables \
        where schemaname = 'integration' and relname = 'data_staging'";
    let scans =
        "select seq_scan from pg_stat_user_tables where schemaname = 'integration' and relname = 'data_staging'";
    (count(client, blocks).await, count(client, scans).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_question_reads_a_small_part_of_a_large_table() {
    let db = Database::new().await;
    let client = db.client().await;
    // Its own reading is not what is measured.
    client.batch_execute(NO_UPKEEP).await.unwrap();
    client.batch_execute(MANY).await.unwrap();
    client.batch_execute("analyze integration.data_staging").await.unwrap();
    let pages = count(&client, "select pg_relation_size('integration.data_staging') / 8192").await;
    assert!(pages > 1000, "{pages}");
    let questions = [
        "list",
        "list --order oldest",
        "list --status pending",
        "list --status pending --target billing --limit 50",
        "list --status scheduled",
        "list --status scheduled --target billing",
        "list --status processing",
        "list --status failed --target mail --order oldest",
        "list --status failed",
        "list --status completed",
        "show 50000 --data",
        "explain 100000000",
        "explain 99999",
        "explain 99994",
        "explain 100",
        "explain 51",
        "explain 5",
        "audit 50000",
        "processes",
        "stats",
        "targets",
        "top --every 100ms",
        "cancel --status pending --target billing --limit 100 --dry-run",
        "redrive --target mail --limit 100 --yes",
        "retry --status scheduled --limit 100 --yes",
        "cancel 3 4 --reason large",
    ];
    for question in questions {
        let (blocks_before, scans_before) = asked_for(&client).await;
        let mut command = doorbell(&db, &question.split(' ').collect::<Vec<_>>());
        command.arg("--json");
        let output = ended(command).await;
        assert!(matches!(output.status.code(), Some(0 | 3)), "{question}: {}", err(&output));
        let (blocks, scans) = asked_for(&client).await;
        assert_eq!(scans, scans_before, "{question} scans the table");
        // Changing a message touches its row and every index, and once more for what the hand-edit guard completes.
        let few = if question.contains("--yes") { 100 * 60 } else { pages / 8 };
        assert!(
            blocks - blocks_before < few,
            "{question} asks for {} blocks; {few} would be few",
            blocks - blocks_before
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn following_reads_only_the_end_of_a_large_table() {
    let db = Database::new().await;
    let client = db.client().await;
    client.batch_execute(NO_UPKEEP).await.unwrap();
    client.batch_execute(MANY).await.unwrap();
    client.batch_execute("analyze integration.data_staging").await.unwrap();
    let (blocks_before, scans_before) = asked_for(&client).await;
    let broker = db.broker().await;
    let mut follower = broker.operator().follow(None);
    for _ in 0..10 {
        follower.events().await.unwrap();
    }
    broker.close().await;
    let (blocks, scans) = asked_for(&client).await;
    assert_eq!(scans, scans_before);
    assert!(blocks - blocks_before < 200, "{} blocks", blocks - blocks_before);
}

/// A message for each of ten thousand targets, and what else there may be to say of one.
const TARGETS: &str = "insert into integration.data_staging (source_app, target_app, record_type, data) \
        select 'shop', 'target ' || n, 'order.placed', '1' from generate_series(1, 10000) n; \
    insert into integration.targets (target_app, max_retries) \
        select 'target ' || n, 5 from generate_series(1, 10000, 10) n; \
    select integration.pause('target 7', 'moving')";

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_targets_are_answered_for_and_each_costs_a_few_blocks() {
    let db = Database::new().await;
    let client = db.client().await;
    client.batch_execute(NO_UPKEEP).await.unwrap();
    client.batch_execute(TARGETS).await.unwrap();
    client.batch_execute("analyze integration.data_staging; select integration.fold()").await.unwrap();
    for question in
        ["stats", "targets", "backlog", "errors", "peek target 7", "explain 7", "top --every 100ms", "doctor"]
    {
        let (blocks_before, scans_before) = asked_for(&client).await;
        let mut arguments: Vec<&str> = question.splitn(2, ' ').collect();
        if question.starts_with("top") {
            arguments = question.split(' ').collect();
        }
        let mut command = doorbell(&db, &arguments);
        command.arg("--json");
        let output = ended(command).await;
        // The server of the tests has settings that the doctor does not like.
        assert!(matches!(output.status.code(), Some(0 | 3 | 4)), "{question}: {}", err(&output));
        let told = json_of(&output);
        if let "stats" | "targets" = question {
            let rows = told["targets"].as_array().unwrap();
            assert_eq!(rows.len(), 10_000, "{question}");
            let pending = |row: &Value| row["pending"] == 1 || row["stats"]["pending"] == 1;
            assert!(rows.iter().all(pending), "{question}: {}", rows[0]);
        }
        let (blocks, scans) = asked_for(&client).await;
        // These read whatever has not ended, or compare all of it with the counters, and say so.
        let may_scan = ["backlog", "errors", "doctor"].contains(&question);
        assert!(scans == scans_before || may_scan, "{question} scans the table");
        let each = (blocks - blocks_before) / 10_000;
        assert!(each < 20, "{question} asks for {each} blocks a target");
    }
}
