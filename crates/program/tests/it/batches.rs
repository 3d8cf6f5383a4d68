//! `doorbell consume --exec --batch`: a program that lives, and is given one batch after the other.

use crate::program::*;

/// Runs `sh` with this program for batches of the messages of billing, until so many are handled.
fn consuming(db: &Database, program: &str, batch: &str, more: &[&str]) -> Command {
    let arguments = ["consume", "billing", "--shell", "--exec", program, "--batch", batch];
    doorbell(db, &[&arguments[..], more].concat())
}

/// What is retried there stays to be looked at, for hours.
async fn prepared() -> Database {
    let db = Database::new().await;
    let policy = "insert into integration.targets (target_app, backoff_base_ms, backoff_cap_ms) values ('billing', 36000000000, 36000000000)";
    db.client().await.batch_execute(policy).await.unwrap();
    db
}

async fn became(db: &Database) -> String {
    let became = "select string_agg(format('%s %s %s %s', status, attempt, retry_count, left(error_message, 60)), ', ' order by id) from integration.data_staging";
    db.client().await.query_one(became, &[]).await.unwrap().get(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_lives_reads_batch_after_batch_and_says_of_which_messages_it_is_not_done() {
    let db = prepared().await;
    publish(&db, "1\n2\n3\n4\n5\n").await;
    // What it prints between the lines of two batches, and before it has read any, harms nobody.
    let program = r#"echo "started for $DOORBELL_TARGET, $DOORBELL_BATCH at a time" >&2; echo
        sed -unE -e 's/^.*"id":([0-9]+),.*"data":2.$/{"id": \1, "outcome": "reject", "reason": "two"}/p' \
            -e 's/^.*"id":([0-9]+),.*"data":3.$/{"id": \1, "outcome": "snooze", "after": "1h"}/p' \
            -e '/^."batch":/{G;p;}'; echo 'its stdin has ended' >&2"#;
    let output = ended(consuming(&db, program, "2", &["--count", "5"])).await;
    ends_with(&output, 0);
    assert_eq!(became(&db).await, "completed 1 0 , failed 1 1 two, scheduled 1 0 , completed 1 0 , completed 1 0 ");
    let said = err(&output);
    let said: Vec<&str> =
        said.lines().filter(|line| line.starts_with("started for") || line.starts_with("its")).collect();
    assert_eq!(said, ["started for billing, 2 at a time", "its stdin has ended"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_ends_with_a_batch_is_started_again_for_each_message_which_pays_alone() {
    let db = prepared().await;
    publish(&db, "1\n2\n3\n4\n5\n").await;
    let program = r#"while IFS= read -r line; do case $line in
            *'"data":1}' | *'"data":5}') ;;
            *'"data":2}') echo two >&2; exit 65;;
            *'"data":3}') echo '{"id": 99, "outcome": "done"}';;
            *'"data":4}') exit 0;;
            '{"batch":'*) echo "$line";;
        esac; done"#;
    let output = ended(consuming(&db, program, "10", &["--count", "5"])).await;
    ends_with(&output, 0);
    assert_eq!(
        became(&db).await,
        "completed 1 0 , failed 1 1 rejected with exit code 65: two, \
         scheduled 1 1 line 1 of the program: there is no message 99 in its batch, \
         scheduled 1 1 the program ended before it had ended its batch by printing , completed 1 0 "
    );
    assert!(err(&output).contains("the program has failed a batch"), "{}", err(&output));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_may_end_between_two_batches_and_its_messages_are_nobodys_loss() {
    let db = prepared().await;
    publish(&db, "1\n2\n3\n4\n").await;
    let directory = Directory::new("between");
    let starts = directory.join("starts");
    // Whether it is already gone when it would be given the next batch, nobody knows.
    let program = format!(
        r#"echo >> {starts}; while IFS= read -r line; do case $line in '{{"batch":'*) echo "$line"; exit;; esac; done"#
    );
    ends_with(&ended(consuming(&db, &program, "2", &["--count", "4"])).await, 0);
    assert_eq!(became(&db).await, ["completed 1 0 "; 4].join(", "));
    assert!(std::fs::read_to_string(starts).unwrap().lines().count() >= 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_mark_of_another_batch_ends_none() {
    let db = prepared().await;
    publish(&db, "1\n2\n").await;
    let program = r#"while IFS= read -r line; do case $line in '{"batch":'*) echo '{"batch": 1}';; esac; done"#;
    let output = ended(consuming(&db, program, "1", &["--count", "2"])).await;
    ends_with(&output, 0);
    assert_eq!(became(&db).await, "completed 1 0 , scheduled 1 1 it ends batch 1 and was given 2");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_hangs_with_its_batch_is_killed_with_its_children() {
    let db = prepared().await;
    publish(&db, "1\n").await;
    let program = "sleep 1000 & wait";
    let mut running = Running::start(consuming(&db, program, "10", &["--count", "1", "--timeout", "200ms"]));
    running.logs("it has never ended a batch by printing its mark").await;
    // The child of the program holds stderr as well.
    soon("all of them end", async { while running.stderr.next_line().await.unwrap().is_some() {} }).await;
    assert_eq!(running.ended().await, 0);
    assert_eq!(became(&db).await, "scheduled 1 1 timed out after 0.2 s");
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_pipe_waits_for_the_other_however_much_is_in_them() {
    let db = prepared().await;
    let payload = format!("\"{}\"\n", "x".repeat(40_000));
    publish(&db, &payload.repeat(40)).await;
    // Prints as much as it reads, while it reads.
    let program = r#"sed -unE -e 's/^.*"id":([0-9]+),.*"data":(".*").$/{"id":\1,"outcome":"reject","reason":\2}/p' -e '/^."batch":/p'"#;
    ends_with(&ended(consuming(&db, program, "40", &["--count", "40"])).await, 0);
    let rejected =
        "select count(*) from integration.data_staging where status = 'failed' and error_message like 'xxx%'";
    assert_eq!(count(&db.client().await, rejected).await, 40);
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_lets_the_program_finish_its_batch_and_the_end_of_its_stdin_tells_it_to_end() {
    let db = prepared().await;
    let directory = Directory::new("batch-drain");
    let pipe = directory.join("pipe");
    nix::unistd::mkfifo(pipe.as_str(), Mode::S_IRWXU).unwrap();
    publish(&db, "1\n2\n").await;
    let program = format!(
        r#"while IFS= read -r line; do case $line in
            '{{"batch":'*) echo started >&2; cat {pipe} >&2; echo "$line";;
        esac; done; echo 'put away' >&2"#
    );
    let mut running = Running::start(consuming(&db, &program, "2", &[]));
    running.logs("started").await;
    running.signal(Signal::SIGTERM);
    running.logs("draining").await;
    soon("the pipe is open", tokio::fs::write(pipe, "done\n")).await.unwrap();
    running.logs("put away").await;
    assert_eq!(running.ended().await, 0);
    assert_eq!(became(&db).await, "completed 1 0 , completed 1 0 ");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_programs_of_the_guide_handle_batches() {
    let guide = doorbell_testing::repository("docs/handling.md");
    let shown = |language: &str| {
        let (_, rest) = guide.split_once(&format!("```{language}\n")).expect("the guide has a program");
        rest.split_once("```").expect("a block ends").0.to_owned()
    };
    let python = Command::new("python3").arg("--version").output().await.is_ok_and(|output| output.status.success());
    if !python {
        println!("skipped: there is no python3");
    }
    for (interpreter, language) in [("sh", "sh"), ("python3", "python")].into_iter().take(1 + usize::from(python)) {
        let db = prepared().await;
        publish(&db, "{\"cents\": 990}\n{\"cents\": 0}\n{\"cents\": 250}\n").await;
        let directory = Directory::new(language);
        let path = directory.join("load");
        std::fs::write(&path, shown(language)).unwrap();
        let exec = format!("{interpreter} {path}");
        let mut command = doorbell(&db, &["consume", "billing", "--exec", &exec, "--batch", "2", "--count", "3"]);
        command.current_dir(&directory.0);
        ends_with(&ended(command).await, 0);
        assert_eq!(became(&db).await, "completed 1 0 , failed 1 1 an order of nothing, completed 1 0 ", "{language}");
        assert_eq!(std::fs::read_to_string(directory.join("orders.ndjson")).unwrap().lines().count(), 2);
    }
}
