//! The commands of a night: what went wrong, what waits, who does it, and what is to be done about it.

use doorbell::ConsumerConfig;
use doorbell_testing::{bells_only, plain_insert, seen, stop_the_clock, until, until_status};

use crate::program::*;

/// Failed and waiting messages as a night leaves them.
async fn a_bad_night(db: &Database) -> tokio_postgres::Client {
    let client = db.client().await;
    stop_the_clock(&client, 0).await;
    client
        .batch_execute(
            "insert into integration.data_staging (source_app, target_app, record_type, data, status, error_message, updated_at, \
                 headers, ordering_key, dedup_key) \
             select 'shop', 'billing', 'order.placed', jsonb_build_object('order', n), 'failed', \
                    format('connect to 10.0.0.%s:5432 (a1b2c%s): refused 100%% of the time', n, n), \
                    timestamptz '2026-03-01 02:00Z' + n * interval '10 min', jsonb_build_object('tenant', n::text), 'k' || n, 'd' || n \
               from generate_series(1, 5) n; \
             insert into integration.data_staging (source_app, target_app, record_type, data, status, error_message) \
                 values ('crm', 'billing', 'refund', '{}', 'failed', null), ('crm', 'mailer', 'mail', '{}', 'failed', 'no such user'); \
             insert into integration.data_staging (source_app, target_app, record_type, data, status, error_message, available_at) \
                 values ('crm', 'mailer', 'mail', '{}', 'scheduled', 'no such user', '2026-03-02Z')",
        )
        .await
        .unwrap();
    client
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_are_grouped_and_a_group_is_put_back_by_its_pattern() {
    let db = Database::new().await;
    let client = a_bad_night(&db).await;
    let errors = json_of(&ended(doorbell(&db, &["errors", "--json"])).await);
    let groups: Vec<_> = errors["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|group| (group["target"].as_str().unwrap(), group["failed"].as_i64(), group["retrying"].as_i64()))
        .collect();
    assert_eq!(groups, [("billing", Some(5), Some(0)), ("mailer", Some(1), Some(1)), ("billing", Some(1), Some(0))]);
    assert_eq!(errors["errors"][0]["since"], "2026-03-01T02:10:00.000000Z");
    let pattern = errors["errors"][0]["reason_like"].as_str().unwrap();
    assert_eq!(pattern, r"connect to %.%.%.%:% (%): refused %\% of the time");
    let said = ended(doorbell(&db, &["errors", "--target", "billing"])).await;
    assert!(err(&said).contains("doorbell redrive --target billing --reason-like 'connect to"), "{}", err(&said));
    let redrive = ["redrive", "--target", "billing", "--reason-like", pattern, "--yes"];
    assert_eq!(out(&ended(doorbell(&db, &redrive)).await).lines().count(), 5);
    assert_eq!(count(&client, "select count(*) from integration.data_staging where status = 'failed'").await, 2);
    ends_with(&ended(doorbell(&db, &["errors", "--target", "nobody"])).await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_are_found_by_when_they_failed_by_key_header_and_payload() {
    let db = Database::new().await;
    a_bad_night(&db).await;
    let ids = async |filter: &[&str]| {
        let output = ended(doorbell(&db, &[&["list", "--json", "--order", "oldest"], filter].concat())).await;
        let ids = json_of(&output)["messages"].as_array().unwrap().iter().map(|m| m["id"].as_i64().unwrap()).collect();
        let ids: Vec<i64> = ids;
        ids
    };
    assert_eq!(ids(&["--failed-since", "2026-03-01T02:20Z", "--failed-until", "2026-03-01 02:40"]).await, [2, 3]);
    // The clock stands at noon, and these are its own.
    assert_eq!(ids(&["--failed-since", "02:20", "--failed-until", "02:40"]).await, [2, 3]);
    assert_eq!(ids(&["--since", "9h40m", "--until", "09:00"]).await, [2, 3, 4, 5]);
    assert_eq!(ids(&["--since", "13:00", "--until", "02:20"]).await, [1]);
    assert_eq!(ids(&["--where", "$.order == 4"]).await, [4]);
    assert_eq!(ids(&["--header", "tenant=5"]).await, [5]);
    assert_eq!(ids(&["--ordering-key", "k1", "--dedup-key", "d1"]).await, [1]);
    for (wrong, says) in [
        (&["--since", "yesterday"][..], "is no time"),
        (&["--older-than", "-5m"], "is no duration"),
        (&["--where", "order is 4"], "jsonpath"),
    ] {
        let refused = ended(doorbell(&db, &[&["list"], wrong].concat())).await;
        assert!(refused.status.code() != Some(0) && err(&refused).contains(says), "{wrong:?}: {}", err(&refused));
    }
    let dry = ["redrive", "--failed-since", "2026-03-01T02:40Z", "--where", "$.order > 4", "--dry-run"];
    assert_eq!(out(&ended(doorbell(&db, &dry)).await), "5\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_nothing_knows_is_said_with_the_one_that_may_be_meant() {
    let db = Database::new().await;
    let client = a_bad_night(&db).await;
    for command in ["pause biling", "target set biling max_in_flight=3", "breaker open biling", "move --to biling 1"] {
        let refused = ended(doorbell(&db, &command.split(' ').collect::<Vec<_>>())).await;
        ends_with(&refused, 2);
        assert!(err(&refused).contains("did you mean billing?"), "{command}: {}", err(&refused));
    }
    for command in
        ["list --target biling", "peek biling", "errors -t biling", "backlog -t biling", "target show biling"]
    {
        let nothing = ended(doorbell(&db, &command.split(' ').collect::<Vec<_>>())).await;
        ends_with(&nothing, 3);
        assert!(err(&nothing).contains("did you mean billing?"), "{command}: {}", err(&nothing));
    }
    assert_eq!(count(&client, "select count(*) from integration.targets").await, 0);
    let published = ended(doorbell(&db, &["publish", "biling", "--source", "s", "--type", "n", "--data", "1"])).await;
    ends_with(&published, 0);
    assert!(err(&published).contains("did you mean billing?"), "{}", err(&published));
    ends_with(&ended(doorbell(&db, &["pause", "brand", "--new"])).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_for_a_misspelt_target_are_moved_and_the_name_is_forgotten() {
    let db = Database::new().await;
    let client = a_bad_night(&db).await;
    let id = plain_insert(&client, "biling", "1").await;
    let moved = ended(doorbell(&db, &["move", "--to", "billing", "--target", "biling", "--yes"])).await;
    assert_eq!(out(&moved), format!("{id}\n"));
    assert_eq!(out(&ended(doorbell(&db, &["peek", "billing"])).await).lines().count(), 1);
    let told =
        "select count(*) from integration.audit_log where action = 'rewritten' and details ->> 'target_app' = 'biling'";
    assert_eq!(count(&client, told).await, 1);
    ends_with(&ended(doorbell(&db, &["target", "forget", "billing"])).await, 1);
    ends_with(&ended(doorbell(&db, &["target", "forget", "biling"])).await, 0);
    assert_eq!(count(&client, "select count(*) from integration.stats where target_app = 'biling'").await, 0);
    let faults = "select count(*) from integration.check_counters()";
    assert_eq!(count(&client, faults).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_of_a_target_are_shown_changed_and_audited_and_a_pause_ends_by_itself() {
    let db = Database::new().await;
    let client = a_bad_night(&db).await;
    plain_insert(&client, "billing", "1").await;
    let untouched = json_of(&ended(doorbell(&db, &["target", "show", "billing", "--json"])).await);
    assert_eq!((&untouched["settings"]["bell"], &untouched["own"]), (&json!("on_demand"), &json!([])));
    let set = ["target", "set", "billing", "max_in_flight=20", "failed_retention=90 days", "--json"];
    let now = json_of(&ended(doorbell(&db, &set)).await);
    assert_eq!(
        (&now["settings"]["max_in_flight"], &now["settings"]["failed_retention"]),
        (&json!(20), &json!("90 days"))
    );
    assert_eq!(now["own"], json!(["max_in_flight", "failed_retention"]));
    let shown = out(&ended(doorbell(&db, &["target", "show", "billing"])).await);
    assert!(shown.contains("* max_in_flight        20\n") && shown.contains("  max_retries          3\n"), "{shown}");
    let back = json_of(&ended(doorbell(&db, &["target", "set", "billing", "max_in_flight=", "--json"])).await);
    assert_eq!(back["own"], json!(["failed_retention"]));
    for wrong in ["max_inflight=3", "max_in_flight=many", "max_in_flight=0"] {
        let refused = ended(doorbell(&db, &["target", "set", "billing", wrong])).await;
        assert_ne!(refused.status.code(), Some(0), "{wrong}");
    }
    let audited = "select count(*) from integration.audit_log where action = 'set' and target_app = 'billing'";
    assert_eq!(count(&client, audited).await, 2);
    ends_with(&ended(doorbell(&db, &["pause", "billing", "--for", "10m"])).await, 0);
    let claim = "select count(*) from integration.claim('billing', 'me', 1, p_lease => '1 h')";
    assert_eq!(count(&client, claim).await, 0);
    let explained = out(&ended(doorbell(&db, &["explain", "9"])).await);
    assert!(explained.contains("it goes on in 10 min"), "{explained}");
    stop_the_clock(&client, 601).await;
    assert_eq!(count(&client, claim).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_handles_what_is_shown_and_an_evicted_process_lets_go_and_lives() {
    let db = Database::new().await;
    let (client, broker) = (db.client().await, db.broker().await);
    let id = plain_insert(&client, "billing", "1").await;
    let (tell, mut told) = seen();
    let config = ConsumerConfig { handler_timeout: None, ..bells_only() };
    let consumer = broker.consumer("billing").config(config).fallback(move |delivery| {
        let _ = tell.send(delivery.attempt);
        async move {
            if delivery.attempt == 1 {
                std::future::pending::<()>().await;
            }
            Ok(doorbell::Outcome::Done)
        }
    });
    let consumer = consumer.start().await.unwrap();
    assert_eq!(told.next().await, 1);
    let owner: String = client.query_one("select owner from integration.data_staging", &[]).await.unwrap().get(0);
    let listed = out(&ended(doorbell(&db, &["list", "--status", "processing"])).await);
    assert!(listed.starts_with("ID\tTARGET\tTYPE\tSOURCE\tPRIORITY\tATTEMPT\tSINCE\tOWNER\n"), "{listed}");
    assert!(listed.contains(&owner), "{listed}");
    let backlog = json_of(&ended(doorbell(&db, &["backlog", "--json"])).await);
    assert_eq!(
        (&backlog["backlog"][0]["status"], &backlog["backlog"][0]["messages"]),
        (&json!("processing"), &json!(1))
    );
    let evicted = json_of(&ended(doorbell(&db, &["evict", &owner, "--json"])).await);
    assert_eq!(evicted["put_back"], 1);
    assert_eq!(told.next().await, 2);
    let completed = until_status(&client, id, "completed").await;
    assert_eq!((completed.crash_count, completed.retry_count), (0, 0));
    until(&client, "it goes on", "select count(*) = 1 from integration.processes where targets ? 'billing'").await;
    ends_with(&ended(doorbell(&db, &["evict", &owner])).await, 3);
    // And what it completed under its new name can be done again, and nothing else.
    plain_insert(&client, "other", "1").await;
    let new: String = client
        .query_one("select owner from integration.processes where targets ? 'billing'", &[])
        .await
        .unwrap()
        .get(0);
    let dry = ended(doorbell(&db, &["redrive", "--completed-by", &new, "--dry-run"])).await;
    assert_eq!(out(&dry), format!("{id}\n"), "{}", err(&dry));
    soon("it ends", consumer.shutdown()).await.unwrap();
    broker.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_fit_the_terminal_they_are_shown_on() {
    let db = Database::new().await;
    let client = a_bad_night(&db).await;
    client
        .batch_execute(
            "select integration.pause('billing', 'the ledger is being moved to another machine'); \
             select integration.register('a-host-with-a-name-4242-5f0a9c', 'host', 4242, 'billing-service', '0.1.0', \
                 '{\"billing\": {\"types\": [\"order.placed\", \"refund\"], \"capacity\": 8}}', 15000); \
             select integration.cancel('{8}', 'withdrawn')",
        )
        .await
        .unwrap();
    for command in
        ["stats", "targets", "list", "list --status failed", "processes", "audit 8", "show 8", "errors", "backlog"]
    {
        let shown = async |no_color: &str| {
            let mut program = doorbell(&db, &command.split(' ').collect::<Vec<_>>());
            program.env("RUST_LOG", "off").env("NO_COLOR", no_color);
            Terminal::of_width(program, 80).all().await.replace('\r', "")
        };
        let screen = shown("1").await;
        // What is said beside a table is words, which a terminal wraps.
        let words = |line: &&str| line.starts_with("to put") || line.starts_with("billing was paused");
        for line in screen.lines().filter(|line| !words(line)) {
            assert!(line.chars().count() <= 80, "{command}: {} {line}", line.chars().count());
        }
        for word in ["order.placed", "PROCESSING", "scheduled", "paused"] {
            let whole = screen.matches(word).count();
            assert_eq!(whole, screen.matches(&word[..word.len() - 2]).count(), "{command} breaks {word}: {screen}");
        }
        let coloured = shown("").await;
        assert_eq!(
            coloured != screen,
            ["stats", "targets", "list", "list --status failed", "errors"].contains(&command),
            "{coloured:?}"
        );
        let plain = without_colours(&coloured);
        assert!(plain.lines().map(str::trim_end).eq(screen.lines()), "{command}: {coloured:?}");
    }
}

fn without_colours(screen: &str) -> String {
    let mut parts = screen.split("\x1b[");
    let first = parts.next().unwrap_or_default();
    parts.fold(first.to_owned(), |plain, part| plain + part.split_once('m').unwrap().1)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_completed_is_done_again_only_where_that_is_said() {
    let db = Database::new().await;
    let client = a_bad_night(&db).await;
    client.batch_execute("update integration.data_staging set status = 'completed' where id = 1").await.unwrap();
    let one = ended(doorbell(&db, &["redrive", "1", "2"])).await;
    assert_eq!(
        (out(&one), err(&one).contains("message 1 was not redriven: it is completed")),
        ("2\n".to_owned(), true)
    );
    ends_with(&ended(doorbell(&db, &["redrive", "1"])).await, 3);
    assert_eq!(out(&ended(doorbell(&db, &["redrive", "1", "--completed"])).await), "1\n");
    let nothing = ended(doorbell(&db, &["redrive"])).await;
    ends_with(&nothing, 2);
    assert!(err(&nothing).contains("Give ids, a filter"), "{}", err(&nothing));
    let scheduled = ended(doorbell(&db, &["redrive", "8"])).await;
    assert!(err(&scheduled).contains("message 8 was not redriven: it is scheduled"), "{}", err(&scheduled));
}

#[tokio::test(flavor = "multi_thread")]
async fn where_only_known_targets_are_published_to_a_misspelt_one_is_refused_and_the_right_one_named() {
    let db = Database::new().await;
    let client = a_bad_night(&db).await;
    client.batch_execute("update integration.settings set known_targets_only = true").await.unwrap();
    let publish = async |target: &str| {
        ended(doorbell(&db, &["publish", target, "--source", "s", "--type", "n", "--data", "1"])).await
    };
    let refused = publish("biling").await;
    ends_with(&refused, 65);
    let said = err(&refused);
    assert!(said.contains("nothing knows the target \"biling\"") && said.contains("did you mean billing?"), "{said}");
    let insert = "insert into integration.data_staging (source_app, target_app, record_type, data) \
        values ('s', 'billing', 'n', '1'), ('s', 'biling', 'n', '1')";
    let refused = client.batch_execute(insert).await.unwrap_err();
    let refused = refused.as_db_error().unwrap();
    assert_eq!((refused.code().code(), refused.column()), ("23514", Some("target_app")));
    ends_with(&publish("billing").await, 0);
    // Named by an operator, or by who consumes it.
    ends_with(&publish("brand").await, 65);
    client.batch_execute("select integration.set_target('brand', '{}')").await.unwrap();
    ends_with(&publish("brand").await, 0);
    ends_with(&publish("fresh").await, 65);
    let register = "select integration.register('me', 'host', 1, '', '1', '{\"fresh\": {\"capacity\": 1}}', 60000)";
    client.batch_execute(register).await.unwrap();
    ends_with(&publish("fresh").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn when_a_backlog_will_be_empty_is_said_at_the_rate_of_the_last_minutes() {
    let db = Database::new().await;
    let client = db.client().await;
    client
        .batch_execute(
            "insert into integration.data_staging (source_app, target_app, record_type, data, created_at) \
                 select 'shop', t, 'n', '1', now() - interval '1 h' from unnest('{billing, mailer}'::text[]) t, \
                     generate_series(1, 600); \
             insert into integration.traffic (minute, target_app, action, messages) \
                 select date_trunc('minute', integration.clock()), 'billing', a, 600 from unnest('{completed, failed}'::text[]) a",
        )
        .await
        .unwrap();
    // 600 came, and 1,200 went.
    let stats = ended(doorbell(&db, &["stats"])).await;
    assert!(err(&stats).contains("billing: 600 pending, empty in about 5m"), "{}", err(&stats));
    assert!(err(&stats).contains("mailer: 600 pending, not becoming less"), "{}", err(&stats));
    let stats = json_of(&ended(doorbell(&db, &["stats", "--json"])).await);
    assert_eq!(stats["targets"][0]["empty_in_seconds"], 300.0);
    assert!(stats["targets"][1]["empty_in_seconds"].is_null(), "{stats}");
    let backlog = ended(doorbell(&db, &["backlog", "--target", "billing"])).await;
    assert!(err(&backlog).contains("billing: 600 pending, empty in about 5m") && !err(&backlog).contains("mailer"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_negative_duration_is_refused_with_an_example_wherever_there_is_one() {
    let mut found = 0;
    for command in commands().await {
        let words: Vec<&str> = command.split(' ').collect();
        let help = out(&ended(bare(&[&words[..], &["--help"]].concat())).await);
        let usage = help.lines().find_map(|line| line.strip_prefix("Usage: doorbell ")).unwrap();
        // What has to be given stands there without square brackets; of a choice, the first.
        let needed = usage.split(' ').filter_map(|word| match word.trim_start_matches('<') {
            name if name.starts_with("--") => Some(name),
            "COMMAND>" | "FILE>|->" => None,
            // The others of a choice.
            other if other.contains(">|") || other.ends_with(">>") => None,
            "SCENARIOS>..." => Some("wake"),
            _ => word.starts_with('<').then_some("1"),
        });
        let options = help.lines().filter(|line| !line.starts_with("Usage: "));
        for option in options.filter(|line| line.contains(" <DURATION>") || line.contains(" <TIME>")) {
            let option = option.split_whitespace().find(|word| word.starts_with("--")).unwrap();
            let refused =
                ended(bare(&words.iter().copied().chain(needed.clone()).chain([option, "-5m"]).collect::<Vec<_>>()))
                    .await;
            ends_with(&refused, 2);
            let said = err(&refused);
            assert!(said.contains("\"-5m\" is no ") && said.contains("; write "), "{command} {option}: {said}");
            found += 1;
        }
    }
    assert!(found > 25, "{found}");
}

/// Every command, with those it has below it: `target set`.
async fn commands() -> Vec<String> {
    let listed = async |command: &[&str]| -> Vec<String> {
        let help = out(&ended(bare(&[command, &["--help"]].concat())).await);
        let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
        let names = lines.filter(|line| !line.starts_with("   ")).filter_map(|line| line.split_whitespace().next());
        names.filter(|name| *name != "help").map(|name| [command, &[name]].concat().join(" ")).collect()
    };
    let mut commands = Vec::new();
    for command in listed(&[]).await {
        let below = listed(&[&command]).await;
        commands.extend(if below.is_empty() { vec![command] } else { below });
    }
    commands
}
