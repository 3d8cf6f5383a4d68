//! `doorbell consume --exec`: a program per message.

use crate::program::*;

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
    // Before any message is there.
    for program in ["./missing", "no-such-program-anywhere", "/"] {
        let output = ended(doorbell(&db, &["consume", "nobody", "--exec", program])).await;
        ends_with(&output, 2);
        assert!(err(&output).contains(&format!("cannot run {program}: ")), "{}", err(&output));
    }
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
async fn a_program_gets_only_the_named_part_of_the_environment_when_told_so() {
    let db = Database::new().await;
    publish(&db, "1\n").await;
    let arguments = ["consume", "billing", "--exec", "/usr/bin/env", "--count", "1", "--env-clear", "--env", "WANTED"];
    let mut command = doorbell(&db, &[&arguments[..], &["--env", "PGAPPNAME", "--env", "UNSET"]].concat());
    command.env("WANTED", "a").env("SECRET", "hunter2").env("PGAPPNAME", "b").env("PGUSER", "postgres");
    let output = ended(command).await;
    ends_with(&output, 0);
    let said = out(&output);
    let others: Vec<&str> = said.lines().filter(|line| !line.starts_with("DOORBELL_")).collect();
    assert_eq!(others, ["PGAPPNAME=b", "WANTED=a"]);
    assert!(said.contains("DOORBELL_ID=1") && !said.contains("DATABASE_URL"), "{said}");
    let refused = ended(doorbell(&db, &["consume", "billing", "--exec", "env", "--env", "A=b"])).await;
    ends_with(&refused, 2);
}

/// The program as an account for which files have owners, which they have not for root: that of the private server.
#[cfg(target_os = "linux")]
fn as_somebody(db: &Database, arguments: &[&str]) -> (Command, tempfile::TempDir) {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let place = tempfile::tempdir().unwrap();
    let mut command = doorbell(db, arguments);
    if nix::unistd::geteuid().is_root() {
        let sockets = db.url.split(' ').find_map(|pair| pair.strip_prefix("host=")).unwrap();
        let program = place.path().join("doorbell");
        std::fs::copy(env!("CARGO_BIN_EXE_doorbell"), &program).unwrap();
        std::fs::set_permissions(place.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let mut copied = Command::new(program);
        copied.args(arguments).kill_on_drop(true).env("DOORBELL_DATABASE_URL", &db.url).current_dir("/");
        copied.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let server = std::fs::metadata(sockets).unwrap();
        copied.uid(server.uid()).gid(server.gid());
        command = copied;
    }
    (command, place)
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn a_program_cannot_read_the_password_from_the_process_that_started_it() {
    let db = Database::new().await;
    publish(&db, "1\n2\n").await;
    let look = "cat /proc/$PPID/environ; tr '\\0' ' ' < /proc/$PPID/cmdline";
    let arguments = ["consume", "billing", "--shell", "--exec", look, "--count", "1"];
    let (mut command, _place) = as_somebody(&db, &arguments);
    command.env("DOORBELL_DATABASE_URL", format!("{} password=hunter2", db.url));
    let url = format!("{} password=hunter3", db.url);
    let (named, _another) = as_somebody(&db, &[&["--database-url", &url], &arguments[..]].concat());
    for command in [command, named] {
        let output = ended(command).await;
        ends_with(&output, 0);
        let (said, complained) = (out(&output), err(&output));
        assert!(said.contains("consume billing --shell") && !said.contains("hunter"), "{said}");
        assert!(complained.contains("/environ: Permission denied"), "{complained}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_whose_message_was_cancelled_is_ended_with_its_children_and_the_next_one_runs() {
    let db = Database::new().await;
    publish(&db, "1\n2\n").await;
    // The child holds a pipe open that the test reads: it closes when all of the group have ended.
    let directory = Directory::new("cancelled");
    let pipe = directory.join("pipe");
    nix::unistd::mkfifo(pipe.as_str(), Mode::S_IRWXU).unwrap();
    let program =
        format!("if [ $DOORBELL_ID = 1 ]; then exec 3>{pipe}; sleep 1000 & echo started >&3; wait; else echo next; fi");
    let arguments = ["consume", "billing", "--shell", "--exec", &program, "--concurrency", "1", "--timeout", "0"];
    let mut running = Running::start(doorbell(&db, &arguments));
    let mut file = soon("the program runs", tokio::fs::File::open(&pipe)).await.unwrap();
    let mut started = [0; 8];
    soon("it says so", file.read_exact(&mut started)).await.unwrap();
    ends_with(&ended(doorbell(&db, &["cancel", "1", "--reason", "hangs"])).await, 0);
    assert_eq!(running.line().await, "next");
    let mut rest = Vec::new();
    soon("all of the group have ended", file.read_to_end(&mut rest)).await.unwrap();
    running.signal(Signal::SIGTERM);
    assert_eq!(running.ended().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_end_with_their_consumer_also_when_it_is_killed() {
    let db = Database::new().await;
    publish(&db, "1\n2\n").await;
    let program = "sleep 1000 & echo started; wait";
    let mut running = Running::start(doorbell(&db, &["consume", "billing", "--shell", "--exec", program]));
    assert_eq!((running.line().await.as_str(), running.line().await.as_str()), ("started", "started"));
    running.signal(Signal::SIGKILL);
    // Programs and their children hold stdout: it ends with the last of them.
    soon("all of them end", async { while running.stdout.next_line().await.unwrap().is_some() {} }).await;
    soon("it is gone", running.child.wait()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bridge_in_the_guide_passes_messages_on_and_each_is_one_there() {
    let guide = doorbell_testing::repository("docs/operations.md");
    let begin = guide.find("doorbell consume billing --shell").expect("the guide has a bridge");
    let bridge = guide[begin..].split_once("\n```").expect("a block ends").0.replace("\\\n", "");
    let (here, there) = (Database::new().await, Database::new().await);
    publish(&here, "1\n2\n").await;
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_doorbell")).parent().unwrap();
    let path = format!("{}:{}", program.display(), std::env::var("PATH").unwrap());
    let client = here.client().await;
    for handled in [2, 4] {
        let words = shell_words::split(&format!("{bridge} --count 2")).unwrap();
        let words: Vec<&str> = words.iter().skip(1).map(String::as_str).collect();
        let mut command = doorbell(&here, &words);
        command.env("PATH", &path).env("THERE", &there.url);
        let output = ended(command).await;
        ends_with(&output, 0);
        let events = "select count(*) from integration.audit_log where action = 'completed'";
        assert_eq!(count(&client, events).await, handled);
        // As if it had died before it could say so.
        client.batch_execute("update integration.data_staging set status = 'pending'").await.unwrap();
    }
    let passed = "select string_agg(concat_ws(' ', source_app, record_type, data), ', ' order by data) from integration.data_staging";
    let passed: String = there.client().await.query_one(passed, &[]).await.unwrap().get(0);
    assert_eq!(passed, "shop n 1, shop n 2");
}
