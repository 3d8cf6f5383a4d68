//! The program, as scripts and people use it: what it prints, how it ends, and what it leaves in the database.

use std::{
    path::PathBuf,
    process::{Output, Stdio},
    time::Duration,
};

use nix::{
    sys::{signal::Signal, stat::Mode},
    unistd::Pid,
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStderr, ChildStdout, Command},
};

use crate::support::{Database, count, soon};

/// The demo takes about ten seconds by design, and shares the machine with all other tests.
const DEMO_MAX: Duration = Duration::from_secs(120);

/// The program with this test's database and nothing else of the environment that it would heed.
pub(crate) fn doorbell(db: &Database, arguments: &[&str]) -> Command {
    let mut command = bare(arguments);
    command.env("DOORBELL_DATABASE_URL", &db.url);
    command
}

fn bare(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_doorbell"));
    for (name, _) in std::env::vars_os() {
        let bytes = name.as_encoded_bytes();
        let kept = bytes == b"DOORBELL_PG_BINDIR" || bytes == b"DOORBELL_PG_ARCHIVE" || bytes == b"DOORBELL_FETCH_PG";
        if !kept && (bytes.starts_with(b"PG") || bytes.starts_with(b"DOORBELL_") || bytes == b"DATABASE_URL") {
            command.env_remove(name);
        }
    }
    command.env_remove("RUST_LOG").args(arguments).kill_on_drop(true);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

pub(crate) async fn ended(mut command: Command) -> Output {
    soon("the program ends", command.output()).await.unwrap()
}

async fn fed(mut command: Command, input: &str) -> Output {
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // A program that found a bad line does not read on.
    let _ = stdin.write_all(input.as_bytes()).await;
    drop(stdin);
    soon("the program ends", child.wait_with_output()).await.unwrap()
}

pub(crate) fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub(crate) fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// The program's exit code; with what it said, should it be another one.
#[track_caller]
pub(crate) fn ends_with(output: &Output, code: i32) {
    assert_eq!(output.status.code(), Some(code), "{}{}", out(output), err(output));
}

pub(crate) fn json_of(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", out(output)))
}

fn lines_of(output: &Output) -> Vec<Value> {
    out(output).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

const PUBLISH: [&str; 6] = ["publish", "billing", "--source", "shop", "--type", "n"];

async fn publish(db: &Database, payloads: &str) -> Output {
    let output = fed(doorbell(db, &[&PUBLISH[..], &["-"]].concat()), payloads).await;
    ends_with(&output, 0);
    output
}

/// A program that runs, and what it says.
pub(crate) struct Running {
    child: Child,
    stdout: Lines<BufReader<ChildStdout>>,
    stderr: Lines<BufReader<ChildStderr>>,
}

impl Running {
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap()).lines();
        let stderr = BufReader::new(child.stderr.take().unwrap()).lines();
        Self { child, stdout, stderr }
    }

    async fn line(&mut self) -> String {
        soon("a line on stdout", self.stdout.next_line()).await.unwrap().expect("stdout is open")
    }

    async fn logs(&mut self, what: &str) {
        self.log_line(what).await;
    }

    /// Waits for a line of log that contains this, and returns it.
    pub(crate) async fn log_line(&mut self, what: &str) -> String {
        soon(what, async {
            loop {
                let line = self.stderr.next_line().await.unwrap().expect("stderr is open");
                if line.contains(what) {
                    return line;
                }
            }
        })
        .await
    }

    pub(crate) fn signal(&self, signal: Signal) {
        nix::sys::signal::kill(Pid::from_raw(self.child.id().unwrap() as i32), signal).unwrap();
    }

    /// Waits for its end, and for the end of everybody who could still write to its stdout.
    pub(crate) async fn ended(mut self) -> i32 {
        soon("stdout ends", async { while self.stdout.next_line().await.unwrap().is_some() {} }).await;
        soon("the program ends", self.child.wait()).await.unwrap().code().expect("no signal ended it")
    }
}

/// A directory of this test that any account may enter.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        use std::os::unix::fs::PermissionsExt;
        let path = std::env::temp_dir().join(format!("doorbell-cli-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        Self(path)
    }

    fn join(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn publish_prints_the_id_of_a_message_that_is_as_it_was_asked_for() {
    let db = Database::new().await;
    let options =
        ["--header", "traceparent=00-1", "--header", "a=b=c", "--priority", "-3", "--key", "k", "--delay", "5m"];
    let output = ended(doorbell(&db, &[&PUBLISH[..], &options, &["--data", " {\"n\": 1.50} "]].concat())).await;
    ends_with(&output, 0);
    assert_eq!((out(&output).as_str(), err(&output).as_str()), ("1\n", ""));
    let row = db
        .client()
        .await
        .query_one(
            "select source_app, target_app, record_type, data::text, priority, status, headers::text, ordering_key, \
             available_at - created_at between '299 s' and '301 s' from integration.data_staging where id = 1",
            &[],
        )
        .await
        .unwrap();
    let texts: Vec<&str> = [0, 1, 2, 3, 5, 6, 7].map(|at| row.get(at)).to_vec();
    let headers = r#"{"a": "b=c", "traceparent": "00-1"}"#;
    assert_eq!(texts, ["shop", "billing", "n", r#"{"n": 1.50}"#, "scheduled", headers, "k"]);
    assert_eq!((row.get::<_, i32>(4), row.get(8)), (-3, true));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dedup_key_that_was_used_answers_with_the_first_id() {
    let db = Database::new().await;
    for _ in 0..2 {
        let output = ended(doorbell(&db, &[&PUBLISH[..], &["--dedup-key", "k", "--data", "1"]].concat())).await;
        assert_eq!(out(&output), "1\n");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_line_of_a_file_is_published_in_order() {
    let db = Database::new().await;
    let directory = Directory::new("file");
    let file = directory.join("numbers.ndjson");
    std::fs::write(&file, (1..=5000).map(|n| format!("{n}\n")).collect::<String>()).unwrap();
    let output = ended(doorbell(&db, &[&PUBLISH[..], &["--json", "--file", &file]].concat())).await;
    ends_with(&output, 0);
    let report = json_of(&output);
    assert_eq!((&report["published"], report["ids"].as_array().unwrap().len()), (&json!(5000), 5000));
    let in_order = "select count(*) from (select data::text::bigint - row_number() over (order by id) as off \
        from integration.data_staging) n where off = 0";
    assert_eq!(count(&db.client().await, in_order).await, 5000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_line_is_named_and_nothing_of_its_input_is_published() {
    let db = Database::new().await;
    let late = (1..5001).map(|n| format!("{n}\n")).collect::<String>() + "\"\\u0000\"\n";
    for (input, line, column) in
        [("1\n\n{\"a\": tru}\n4\n", "line 3", "column 10"), (late.as_str(), "line 5001", "u0000")]
    {
        let output = fed(doorbell(&db, &[&PUBLISH[..], &["-"]].concat()), input).await;
        ends_with(&output, 65);
        let said = err(&output);
        assert!(said.contains(line) && said.contains(column) && said.contains("nothing is published"), "{said}");
        assert_eq!(out(&output), "");
    }
    // What the server alone refuses: a number that JSON allows and its own type does not.
    let output = fed(doorbell(&db, &[&PUBLISH[..], &["-"]].concat()), "1\n1e999999\n").await;
    ends_with(&output, 65);
    assert!(err(&output).contains("lines 1 to 2"), "{}", err(&output));
    assert_eq!(count(&db.client().await, "select count(*) from integration.data_staging").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn data_that_is_not_json_is_bad_data_and_a_command_without_any_is_wrong_usage() {
    let db = Database::new().await;
    ends_with(&ended(doorbell(&db, &[&PUBLISH[..], &["--data", "{"]].concat())).await, 65);
    ends_with(&ended(doorbell(&db, &PUBLISH)).await, 2);
    ends_with(&ended(doorbell(&db, &[&PUBLISH[..], &["--data", "1", "-"]].concat())).await, 2);
    ends_with(&ended(doorbell(&db, &[&PUBLISH[..], &["--dedup-key", "k", "-"]].concat())).await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn consume_prints_each_message_once_and_completes_it() {
    let db = Database::new().await;
    publish(&db, "{\"n\": 1.50}\n12345678901234567890.125\n").await;
    let output = ended(doorbell(&db, &["consume", "billing", "--exit-when-empty"])).await;
    ends_with(&output, 0);
    let lines = lines_of(&output);
    assert_eq!(lines.len(), 2);
    let start = r#"{"id":1,"attempt":1,"source":"shop","target":"billing","type":"n","priority":0,"headers":{},"created_at":"2"#;
    assert!(out(&output).starts_with(start), "{}", out(&output));
    assert!(lines[0]["created_at"].as_str().unwrap().ends_with('Z'));
    let data: Vec<&str> =
        std::str::from_utf8(&output.stdout).unwrap().lines().filter_map(|l| l.split("\"data\":").nth(1)).collect();
    assert_eq!(data, [r#"{"n": 1.50}}"#, "12345678901234567890.125}"]);
    let completed = "select count(*) from integration.data_staging where status = 'completed'";
    assert_eq!(count(&db.client().await, completed).await, 2);
    // Nothing is left.
    let output = ended(doorbell(&db, &["consume", "billing", "--exit-when-empty"])).await;
    ends_with(&output, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_leaves_takes_nothing_with_it() {
    let db = Database::new().await;
    publish(&db, &"\"a payload\"\n".repeat(3000)).await;
    let mut running = Running::start(doorbell(&db, &["consume", "billing"]));
    running.line().await;
    // Its buffer holds more lines, but by far not all.
    let Running { mut child, stdout, .. } = running;
    drop(stdout);
    let status = soon("the program ends", child.wait()).await.unwrap();
    assert_eq!(status.code(), Some(0));
    let client = db.client().await;
    let states = "select count(*) filter (where status = 'completed') between 1 and 2999 \
        and count(*) filter (where status = 'pending') between 1 and 2999 \
        and count(*) filter (where status not in ('completed', 'pending')) = 0 from integration.data_staging";
    assert!(client.query_one(states, &[]).await.unwrap().get::<_, bool>(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn not_one_message_more_than_asked_for_is_taken() {
    let db = Database::new().await;
    publish(&db, &"1\n".repeat(50)).await;
    for extra in [&[][..], &["--concurrency", "8"], &["--exec", "cat"]] {
        let output = ended(doorbell(&db, &[&["consume", "billing", "--count", "3"], extra].concat())).await;
        ends_with(&output, 0);
    }
    let client = db.client().await;
    assert_eq!(count(&client, "select count(*) from integration.data_staging where status = 'completed'").await, 9);
    assert_eq!(count(&client, "select count(*) from integration.data_staging where attempt > 0").await, 9);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_of_some_types_leaves_the_others() {
    let db = Database::new().await;
    publish(&db, "1\n").await;
    let output = ended(doorbell(&db, &["consume", "billing", "--type", "other", "--exit-when-empty"])).await;
    ends_with(&output, 3);
    let output =
        ended(doorbell(&db, &["consume", "billing", "--type", "other", "--type", "n", "--exit-when-empty"])).await;
    assert_eq!(lines_of(&output).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_settles_its_message_by_its_exit_code() {
    let db = Database::new().await;
    let client = db.client().await;
    // An hour, so that what is retried stays to be looked at.
    let policy = "insert into integration.targets (target_app, backoff_base_ms, backoff_cap_ms) values ('billing', 36000000000, 36000000000)";
    client.batch_execute(policy).await.unwrap();
    publish(&db, "0\n65\n75\n1\n").await;
    let program = r#"read code; echo "this is $code" >&2; printf '\377\n' >&2; exit $code"#;
    let output = ended(doorbell(&db, &["consume", "billing", "--shell", "--exec", program, "--count", "4"])).await;
    ends_with(&output, 0);
    let rows =
        client.query("select status, error_message from integration.data_staging order by id", &[]).await.unwrap();
    let became: Vec<(String, Option<String>)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    let said = |what: &str, code: u8| Some(format!("{what} with exit code {code}: this is {code}\n\u{fffd}"));
    assert_eq!(became[0], ("completed".to_owned(), None));
    assert_eq!(became[1], ("failed".to_owned(), said("rejected", 65)));
    assert_eq!(became[2], ("scheduled".to_owned(), said("put off", 75)));
    assert_eq!(became[3], ("scheduled".to_owned(), said("failed", 1)));
    // It is passed on as well.
    assert!(String::from_utf8_lossy(&output.stderr).contains("this is 65"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_runs_out_of_time_is_killed_with_its_children() {
    let db = Database::new().await;
    publish(&db, "1\n").await;
    let program = "sleep 1000 & echo started; wait";
    let arguments = ["consume", "billing", "--shell", "--exec", program, "--timeout", "200ms", "--count", "1"];
    let mut running = Running::start(doorbell(&db, &arguments));
    assert_eq!(running.line().await, "started");
    // The child holds stdout as well: it ends with the child.
    assert_eq!(running.ended().await, 0);
    let reason = "select error_message = 'timed out after 0.2 s' and retry_count = 1 from integration.data_staging";
    assert!(db.client().await.query_one(reason, &[]).await.unwrap().get::<_, bool>(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_knows_its_message_and_not_the_database() {
    let db = Database::new().await;
    let header = ["--header", "traceparent=00-abc-1", "--header", "k=ü"];
    ends_with(&ended(doorbell(&db, &[&PUBLISH[..], &header, &["--data", "1", "--priority", "7"]].concat())).await, 0);
    let mut command = doorbell(&db, &["consume", "billing", "--exec", "env", "--count", "1"]);
    command.env("DATABASE_URL", "postgres://elsewhere").env("PGPASSWORD", "hunter2").env("PGHOST", "elsewhere");
    let output = ended(command).await;
    ends_with(&output, 0);
    let said = out(&output);
    let environment: Vec<&str> = said.lines().collect();
    for line in [
        "DOORBELL_ID=1",
        "DOORBELL_ATTEMPT=1",
        "DOORBELL_SOURCE=shop",
        "DOORBELL_TARGET=billing",
        "DOORBELL_TYPE=n",
        "DOORBELL_PRIORITY=7",
        "DOORBELL_RETRY_COUNT=0",
        "DOORBELL_HEADERS={\"k\":\"ü\",\"traceparent\":\"00-abc-1\"}",
        "TRACEPARENT=00-abc-1",
    ] {
        assert!(environment.contains(&line), "{line} is missing in {said}");
    }
    assert!(!environment.iter().any(|line| line.starts_with("PG") || line.contains("DATABASE_URL")), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_shell_reads_the_command_or_the_payload() {
    let db = Database::new().await;
    let directory = Directory::new("shell");
    let trap = directory.join("trap");
    let payload = json!({ "a": format!("$(touch {trap}); `touch {trap}` | touch {trap}\n' \" &") }).to_string();
    publish(&db, &format!("{payload}\n{payload}\n")).await;
    let program = format!("echo '$(touch {trap})' ; touch {trap}");
    let output = ended(doorbell(&db, &["consume", "billing", "--exec", &program, "--count", "1"])).await;
    assert_eq!(out(&output), format!("$(touch {trap}) ; touch {trap}\n"));
    // With a shell, the payload is still nothing but input.
    let output = ended(doorbell(&db, &["consume", "billing", "--shell", "--exec", "cat", "--count", "1"])).await;
    assert_eq!(json_of(&output), serde_json::from_str::<Value>(&payload).unwrap());
    assert!(!std::fs::exists(&trap).unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_is_not_there_costs_no_retry() {
    let db = Database::new().await;
    publish(&db, "1\n").await;
    let output = ended(doorbell(&db, &["consume", "billing", "--exec", "/no/such/program"])).await;
    ends_with(&output, 2);
    assert!(err(&output).contains("/no/such/program"));
    let untouched = "select status = 'pending' and retry_count = 0 from integration.data_staging";
    assert!(db.client().await.query_one(untouched, &[]).await.unwrap().get::<_, bool>(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payload_that_the_program_does_not_read_is_no_failure() {
    let db = Database::new().await;
    publish(&db, &format!("\"{}\"\n", "x".repeat(500_000))).await;
    let output = ended(doorbell(&db, &["consume", "billing", "--exec", "true", "--count", "1"])).await;
    ends_with(&output, 0);
    assert_eq!(
        count(&db.client().await, "select count(*) from integration.data_staging where status = 'completed'").await,
        1
    );
}

/// A consumer whose program runs until somebody writes to the pipe.
async fn held_up(db: &Database, directory: &Directory) -> (Running, String) {
    let pipe = directory.join("pipe");
    nix::unistd::mkfifo(pipe.as_str(), Mode::S_IRWXU).unwrap();
    publish(db, "1\n2\n").await;
    let program = format!("echo started; cat {pipe}");
    let arguments = ["consume", "billing", "--shell", "--exec", &program, "--concurrency", "1"];
    let mut running = Running::start(doorbell(db, &arguments));
    assert_eq!(running.line().await, "started");
    (running, pipe)
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_lets_the_running_program_finish_and_starts_no_other() {
    let db = Database::new().await;
    let directory = Directory::new("drain");
    let (mut running, pipe) = held_up(&db, &directory).await;
    running.signal(Signal::SIGTERM);
    running.logs("draining").await;
    soon("the pipe is open", tokio::fs::write(pipe, "done\n")).await.unwrap();
    assert_eq!(running.line().await, "done");
    assert_eq!(running.ended().await, 0);
    let states = "select string_agg(status, ' ' order by id) = 'completed pending' from integration.data_staging";
    assert!(db.client().await.query_one(states, &[]).await.unwrap().get::<_, bool>(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_it_at_once_and_its_programs_with_it() {
    let db = Database::new().await;
    let directory = Directory::new("twice");
    let (mut running, _pipe) = held_up(&db, &directory).await;
    running.signal(Signal::SIGINT);
    running.logs("draining").await;
    running.signal(Signal::SIGINT);
    // Ends only when the program, which holds stdout as well, has been killed.
    assert_eq!(running.ended().await, 130);
}

#[tokio::test(flavor = "multi_thread")]
async fn migrate_brings_an_empty_database_up_and_its_check_says_by_exit_code_whether_it_is() {
    let db = Database::empty().await;
    let output = ended(doorbell(&db, &["migrate", "--check", "--json"])).await;
    ends_with(&output, 4);
    assert_eq!(json_of(&output)["version"], 0);
    let missing = ended(doorbell(&db, &["publish", "a", "--source", "b", "--type", "c", "--data", "1"])).await;
    ends_with(&missing, 1);
    assert!(err(&missing).contains("doorbell migrate"), "{}", err(&missing));
    for _ in 0..2 {
        ends_with(&ended(doorbell(&db, &["migrate"])).await, 0);
    }
    let output = ended(doorbell(&db, &["migrate", "--check"])).await;
    ends_with(&output, 0);
    assert_eq!(out(&output), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_printed_script_makes_the_schema_without_the_program() {
    let output = ended(bare(&["migrate", "--sql"])).await;
    ends_with(&output, 0);
    let db = Database::empty().await;
    db.client().await.batch_execute(&out(&output)).await.unwrap();
    ends_with(&ended(doorbell(&db, &["migrate", "--check"])).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn stats_count_the_messages_of_every_target() {
    let db = Database::new().await;
    publish(&db, "1\n2\n").await;
    ends_with(&ended(doorbell(&db, &["consume", "billing", "--count", "1"])).await, 0);
    let mut stats = json_of(&ended(doorbell(&db, &["stats", "--json"])).await);
    let age = stats["targets"][0]["oldest_age_seconds"].take();
    assert!(age.as_f64().is_some_and(|age| age >= 0.0), "{age}");
    let billing = json!({
        "target": "billing", "pending": 1, "scheduled": 0, "processing": 0, "completed": 1, "failed": 0, "cancelled": 0,
        "oldest_age_seconds": null,
    });
    assert_eq!(stats, json!({ "targets": [billing] }));
    let plain = out(&ended(doorbell(&db, &["stats"])).await);
    let fields: Vec<Vec<&str>> = plain.lines().map(|line| line.split('\t').collect()).collect();
    assert_eq!((fields.len(), fields[0][0], fields[0].len()), (2, "TARGET", 8));
    assert_eq!(fields[1][..5], ["billing", "1", "0", "0", "1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_cancel_redrive_pause_and_resume() {
    let db = Database::new().await;
    publish(&db, "1\n").await;
    let output = ended(doorbell(&db, &["cancel", "1", "99", "--reason", "withdrawn"])).await;
    ends_with(&output, 0);
    assert_eq!(out(&output), "1\n");
    assert!(err(&output).contains("99"));
    ends_with(&ended(doorbell(&db, &["cancel", "1"])).await, 3);
    assert_eq!(json_of(&ended(doorbell(&db, &["redrive", "1", "--json"])).await), json!({ "redriven": [1] }));
    ends_with(&ended(doorbell(&db, &["pause", "billing"])).await, 0);
    let mut running = Running::start(doorbell(&db, &["consume", "billing", "--count", "1"]));
    running.logs("consuming").await;
    let consumers = json_of(&ended(doorbell(&db, &["consumers", "--json"])).await);
    assert_eq!(consumers["consumers"][0]["targets"]["billing"]["types"], Value::Null);
    assert_eq!(consumers["consumers"][0]["alive"], true);
    let resumed = json_of(&ended(doorbell(&db, &["resume", "billing", "--json"])).await);
    assert_eq!(resumed, json!({ "target": "billing", "paused": false, "was_paused": true }));
    assert!(running.line().await.starts_with("{\"id\":1,"));
    assert_eq!(running.ended().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_cannot_be_reached_is_69_and_its_password_is_never_said() {
    let url = "postgres://bob:hunter2@/db?host=/no/such/directory&connect_timeout=2";
    for (command, exit) in [(["stats", "-vvv"], 69), (["consumers", "--json"], 69)] {
        let mut given = bare(&command);
        given.args(["--database-url", url]);
        let mut inherited = bare(&command);
        inherited.env("DATABASE_URL", url);
        for command in [given, inherited] {
            let output = ended(command).await;
            ends_with(&output, exit);
            assert!(!(err(&output) + &out(&output)).contains("hunter2"), "{}", err(&output));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn payloads_are_never_logged_whatever_the_level() {
    let db = Database::new().await;
    let mut command = doorbell(&db, &[&PUBLISH[..], &["--data", "\"a secret payload\"", "-vvv"]].concat());
    command.env("RUST_LOG", "trace,tokio_postgres=trace");
    let output = ended(command).await;
    ends_with(&output, 0);
    assert!(!err(&output).contains("secret"), "{}", err(&output));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_up_starts_is_found_by_every_command_until_down() {
    let directory = Directory::new("up");
    let state = directory.join("state");
    let program = |arguments: &[&str]| {
        let mut command = bare(arguments);
        command.env("DOORBELL_STATE_DIRECTORY", &state);
        command
    };
    let output = ended(program(&["stats"])).await;
    ends_with(&output, 69);
    assert!(err(&output).contains("doorbell up"), "{}", err(&output));
    let up = ended(program(&["up"])).await;
    ends_with(&up, 0);
    let again = json_of(&ended(program(&["up", "--json"])).await);
    assert_eq!(again["connection_string"], out(&up).trim_end());
    ends_with(&ended(program(&[&PUBLISH[..], &["--data", "1"]].concat())).await, 0);
    let down = ended(program(&["down", "--json"])).await;
    assert_eq!(json_of(&down), json!({ "stopped": true }));
    assert_eq!(json_of(&ended(program(&["down", "--json"])).await), json!({ "stopped": false }));
}

#[tokio::test(flavor = "multi_thread")]
async fn help_teaches_and_completions_complete() {
    let help = out(&ended(bare(&["--help"])).await);
    for code in
        ["0  done", "1  failed", "2  wrong", "3  found", "4  a check", "65  bad", "69  no", "75  failed", "130  int"]
    {
        assert!(help.contains(code), "{code} is missing in {help}");
    }
    for command in [
        "demo",
        "up",
        "down",
        "migrate",
        "publish",
        "consume",
        "stats",
        "redrive",
        "cancel",
        "pause",
        "resume",
        "consumers",
        "completions",
    ] {
        assert!(help.contains(&format!("\n  {command} ")), "{command} is missing in {help}");
        let help = out(&ended(bare(&[command, "--help"])).await);
        assert!(help.contains("Examples:"), "{command} has no examples");
    }
    assert!(!help.contains("demo-consumer"));
    assert!(out(&ended(bare(&["completions", "bash"])).await).contains("--exit-when-empty"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_loses_nothing_and_says_so_in_one_line_of_json() {
    let mut child = bare(&["demo", "--json"]).spawn().unwrap();
    let mut said = String::new();
    let end = async {
        child.stdout.take().unwrap().read_to_string(&mut said).await.unwrap();
        child.wait().await.unwrap()
    };
    let status = tokio::time::timeout(DEMO_MAX, end).await.expect("the demo ends");
    assert_eq!(status.code(), Some(0), "{said}");
    let summary: Value = serde_json::from_str(&said).unwrap();
    let number = |name: &str| summary[name].as_f64().unwrap_or_else(|| panic!("no {name} in {said}"));
    assert!(number("published") > 3000.0);
    assert_eq!((number("failed"), number("lost")), (1.0, 0.0));
    assert_eq!(number("completed"), number("published") - 1.0);
    assert!(number("wake_p50_ms") <= number("wake_p99_ms"));
    assert!(summary["handled_twice"].is_u64());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_demo_takes_its_server_along() {
    let mut running = Running::start(bare(&["demo", "-v"]));
    running.logs("wake-ups").await;
    let its_own = processes(&format!("--ppid {}", running.child.id().unwrap())).await;
    assert!(!its_own.is_empty(), "the server is a child of the demo");
    running.signal(Signal::SIGINT);
    assert_eq!(running.ended().await, 130);
    for pid in its_own {
        assert_eq!(processes(&format!("-p {pid}")).await, [] as [String; 0]);
    }
}

/// The living processes that `ps` selects.
async fn processes(selection: &str) -> Vec<String> {
    let listing = Command::new("sh").args(["-c", &format!("ps -o pid=,state= {selection}")]).output().await.unwrap();
    let listing = out(&listing);
    let living = listing.lines().filter(|line| !line.trim_end().ends_with('Z'));
    living.filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}
