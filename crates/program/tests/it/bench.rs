//! The benchmarks of the program, at sizes at which their figures mean nothing: that they run, and what they print.

use std::process::Output;

use doorbell_testing::plain_insert;
use tokio::time::timeout;

use crate::program::*;

/// Two seconds' work, which shares the machine with all other tests.
const ENDS_WITHIN: Duration = Duration::from_secs(120);

/// As little as possible of everything.
const TINY: [&str; 13] = [
    "--seconds",
    "0.05",
    "--rounds",
    "1",
    "--messages",
    "50",
    "--deep",
    "500",
    "--processes",
    "4",
    "--consumers",
    "20",
    "--json",
];

/// On this test's database, which benchmarks take only from the command line.
async fn bench(db: &Database, arguments: &[&str]) -> Output {
    let mut command = bare(arguments);
    command.args(["--database-url", &db.url]);
    timeout(ENDS_WITHIN, command.output()).await.expect("the program ends").unwrap()
}

/// Runs scenarios; each must print one object with what was promised of it.
async fn measured(scenarios: &[&str]) -> Vec<Value> {
    measured_in(&Database::new().await, scenarios).await
}

async fn measured_in(db: &Database, scenarios: &[&str]) -> Vec<Value> {
    let command = if scenarios == ["latency"] { &[][..] } else { &["bench"][..] };
    let output = bench(db, &[command, scenarios, &TINY].concat()).await;
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    let text = String::from_utf8(output.stdout).unwrap();
    let results: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let names: Vec<&str> = results.iter().map(|result| result["scenario"].as_str().unwrap()).collect();
    assert_eq!(names, scenarios, "{said}");
    for result in &results {
        for case in std::iter::once(result).chain(result["cases"].as_array().unwrap()) {
            for number in ["figure", "floor", "ratio"] {
                assert!(case[number].is_number(), "{number}: {case}");
            }
            assert!(
                !case["unit"].as_str().unwrap().is_empty() && !case["floor_is"].as_str().unwrap().is_empty(),
                "{case}"
            );
        }
        // An acknowledgement may come after the handler was entered; what counts from before publishing cannot.
        let mut positive = result["cases"].as_array().unwrap().iter().filter(|case| {
            result["scenario"] != "latency" || case["case"].as_str().unwrap().starts_with("before publishing")
        });
        assert!(positive.any(|case| case["ratio"].as_f64().unwrap() > 0.0), "{result}");
        assert!(result["settings"].is_object() && result["server"]["settings"]["fsync"].is_string(), "{result}");
    }
    results
}

#[tokio::test(flavor = "multi_thread")]
async fn publishing_is_measured_against_the_same_rows_without_triggers() {
    let results = measured(&["publish", "bulk"]).await;
    let cases = results[0]["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 12, "publish() and INSERT; busy and idle; 1, 8 and 32 producers");
    assert_eq!(results[0]["case"], "publish(), 32 producers, consumers busy");
}

#[tokio::test(flavor = "multi_thread")]
async fn draining_is_measured_against_raw_claimers_and_completes_everything() {
    let results = measured(&["drain", "held-drain", "tx-drain"]).await;
    // The better of the two floors is the one that counts.
    let floors = results[0]["cases"].as_array().unwrap().iter().filter(|case| case["also"]["payload_bytes"] == 100.0);
    let best = floors.map(|case| case["floor"].as_f64().unwrap()).fold(0.0, f64::max);
    assert_eq!(results[0]["floor"].as_f64(), Some(best));
}

#[tokio::test(flavor = "multi_thread")]
async fn claims_are_measured_with_deep_backlogs_and_a_pinned_horizon() {
    let results = measured(&["backlog", "pinned"]).await;
    assert_eq!(results[0]["unit"], "buffers");
    assert_eq!(results[1]["unit"], "buffers");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_measured_beside_none_pinned_and_not() {
    let results = measured(&["keys"]).await;
    let cases = results[0]["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 6 + 4 + 3, "three numbers of keys, twice beside none; all four pinned; drains");
    assert_eq!((&results[0]["case"], &results[0]["target"]), (&json!("1 key, a message"), &json!(2.0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_captures_and_requests_are_measured() {
    let results = measured(&["fanout", "capture", "request"]).await;
    let units: Vec<&str> = results.iter().map(|result| result["unit"].as_str().unwrap()).collect();
    assert_eq!(units, ["events/s", "statements/s", "ms"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn fleets_and_idle_consumers_are_measured_in_processes_of_their_own() {
    let results = measured(&["fleet", "idle"]).await;
    let sizes = results[0]["cases"].as_array().unwrap().iter().filter_map(|case| case["also"]["processes"].as_f64());
    assert_eq!(sizes.collect::<Vec<f64>>(), [1.0, 4.0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_are_measured_also_while_minutes_end() {
    let db = Database::new().await;
    let minutes = "create sequence public.minutes; grant usage on public.minutes to public; \
        create or replace function integration.clock() returns timestamptz language sql volatile parallel unsafe \
        as $$ select pg_catalog.clock_timestamp() + nextval('public.minutes') * interval '1 min' $$";
    db.client().await.batch_execute(minutes).await.unwrap();
    let results = measured_in(&db, &["reads"]).await;
    assert_eq!(results[0]["cases"].as_array().unwrap().len(), 3);
    assert!(results[0]["cases"][0]["also"]["fold_10000_ms"].is_number(), "{}", results[0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn wake_ups_are_measured_idle_and_under_load() {
    let results = measured(&["latency"]).await;
    let loads = results[0]["cases"].as_array().unwrap().iter().filter_map(|case| case["also"]["load_percent"].as_f64());
    assert_eq!(loads.collect::<Vec<f64>>(), [10.0, 50.0, 90.0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_measured_and_the_audit_level_is_put_back() {
    let db = Database::new().await;
    let client = db.client().await;
    client.execute("select integration.set_audit_level('all')", &[]).await.unwrap();
    let output = bench(&db, &[&["bench", "schema", "wake"][..], &TINY].concat()).await;
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let level = "select count(*) from pg_trigger where tgname = 'data_staging_audit_published'";
    assert_eq!(count(&client, level).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_with_messages_is_not_measured_unless_told_so() {
    let db = Database::new().await;
    let client = db.client().await;
    plain_insert(&client, "billing", "1").await;
    let output = bench(&db, &[&["bench", "wake"][..], &TINY].concat()).await;
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--yes-use-this-database"));
    assert_eq!(count(&client, "select count(*) from integration.data_staging").await, 1);
    let output = bench(&db, &[&["bench", "wake", "--yes-use-this-database"][..], &TINY].concat()).await;
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
}
