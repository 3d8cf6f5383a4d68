//! `doorbell consume` without a program: lines of JSON.

use crate::program::*;

#[tokio::test(flavor = "multi_thread")]
async fn consume_prints_each_message_once_and_completes_it() {
    let db = Database::new().await;
    publish(&db, "{\"n\": 1.50}\n12345678901234567890.125\n").await;
    let output = ended(doorbell(&db, &["consume", "billing", "--complete", "--exit-when-empty"])).await;
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
    let output = ended(doorbell(&db, &["consume", "billing", "--complete", "--exit-when-empty"])).await;
    ends_with(&output, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_leaves_takes_nothing_with_it() {
    let db = Database::new().await;
    publish(&db, &"\"a payload\"\n".repeat(3000)).await;
    let mut running = Running::start(doorbell(&db, &["consume", "billing", "--complete"]));
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

/// Where nothing can be said on stderr, work goes on without a word. A stdout that is closed is none that cannot be written:
/// programs in Rust have /dev/null there.
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_written_is_not_completed_and_stderr_is_not_needed() {
    let db = Database::new().await;
    let client = db.client().await;
    publish(&db, "1\n2\n3\n").await;
    let pending = "select count(*) from integration.data_staging where status = 'pending'";
    let sh = |script: &str| {
        let mut command = bare(&[]);
        let program = command.as_std().get_program().to_owned();
        command = Command::new("sh");
        command.args(["-c", script]).arg(program).env("DOORBELL_DATABASE_URL", &db.url).kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    };
    let full = ended(sh("\"$0\" consume billing --complete --exit-when-empty > /dev/full")).await;
    assert!(!full.status.success(), "{}", err(&full));
    assert_eq!(count(&client, pending).await, 3, "{}", err(&full));
    for look in ["stats", "list --json", "show 1 --data", "targets"] {
        let looked = ended(sh(&format!("\"$0\" {look} > /dev/full"))).await;
        assert_eq!(looked.status.code(), Some(1), "{look}: {}", err(&looked));
    }
    for to in ["2> /dev/full", "2>&-"] {
        let ended = ended(sh(&format!("\"$0\" consume billing --complete --count 1 {to}"))).await;
        ends_with(&ended, 0);
        assert_eq!(lines_of(&ended).len(), 1, "{to}");
    }
    assert_eq!(count(&client, pending).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn not_one_message_more_than_asked_for_is_taken() {
    let db = Database::new().await;
    publish(&db, &"1\n".repeat(50)).await;
    for extra in [&["--complete"][..], &["--complete", "--concurrency", "8"], &["--exec", "cat"]] {
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
    let output =
        ended(doorbell(&db, &["consume", "billing", "--complete", "--type", "other", "--exit-when-empty"])).await;
    ends_with(&output, 3);
    let output = ended(doorbell(
        &db,
        &["consume", "billing", "--complete", "--type", "other", "--type", "n", "--exit-when-empty"],
    ))
    .await;
    assert_eq!(lines_of(&output).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_program_nothing_is_taken_unless_that_is_said() {
    let db = Database::new().await;
    let client = db.client().await;
    publish(&db, "1\n2\n3\n").await;
    let refused = ended(doorbell(&db, &["consume", "it's billing"])).await;
    ends_with(&refused, 2);
    assert!(err(&refused).contains(r"doorbell peek 'it'\''s billing'"), "{}", err(&refused));
    ends_with(&ended(doorbell(&db, &["consume", "billing", "--complete", "--exec", "cat"])).await, 2);
    ends_with(&ended(doorbell(&db, &["peek", "nobody"])).await, 3);
    let peeked = ended(doorbell(&db, &["peek", "billing", "--limit", "2"])).await;
    let lines = lines_of(&peeked);
    assert_eq!(lines.iter().map(|line| &line["data"]).collect::<Vec<_>>(), [&json!(1), &json!(2)]);
    assert_eq!(out(&ended(doorbell(&db, &["peek", "billing", "-n", "2"])).await), out(&peeked), "they stay");
    assert_eq!(out(&ended(doorbell(&db, &["peek", "billing", "--type", "other"])).await), "");
    let untouched = "select count(*) from integration.data_staging where status = 'pending' and attempt = 0";
    assert_eq!(count(&client, untouched).await, 3);
    let completed = ended(doorbell(&db, &["consume", "billing", "--complete", "--count", "1"])).await;
    let (mut was, mut is) = (lines[0].clone(), lines_of(&completed)[0].clone());
    assert_eq!((was["attempt"].take(), is["attempt"].take()), (json!(0), json!(1)));
    assert_eq!(was, is, "the same line");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_tick_of_a_schedule_is_fired_once_by_processes_that_are_killed_one_after_the_other() {
    let db = Database::new().await;
    let client = db.client().await;
    let schedule = "select integration.schedule('poll', 'billing', 'n', p_every => '1 s', p_missed => 'all')";
    client.batch_execute(schedule).await.unwrap();
    let consume = ["consume", "billing", "--shell", "--exec", "exit 0"];
    let four: Vec<Running> = (0..4).map(|_| Running::start(doorbell(&db, &consume))).collect();
    for (fired, process) in (1..).zip(four) {
        let more = format!("select fired >= {fired} from integration.schedules");
        doorbell_testing::until(&client, "a tick is fired", &more).await;
        process.signal(Signal::SIGKILL);
        drop(process.child);
    }
    // Each tick from the first to the last, however many there were: times are as far apart as the interval.
    let once = "select (count(*) = (select fired from integration.schedules) \
            and count(distinct t.tick) = count(*) \
            and extract(epoch from max(t.tick) - min(t.tick))::bigint = count(*) - 1)::integer::bigint \
        from (select (d.headers ->> 'tick')::timestamptz as tick from integration.data_staging d) t";
    assert_eq!(count(&client, once).await, 1);
}
