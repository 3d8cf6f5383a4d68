//! What we tell people to type does what it says, and nothing else: every fix of `explain` and the doctor on a database
//! with living consumers, every command in an error or a hint, every example of `--help` and of the guide.

use std::collections::{BTreeMap, BTreeSet};

use doorbell::{Broker, Consumer, ConsumerConfig, Outcome};
use doorbell_testing::{bells_only, plain_insert, seen};
use tokio_postgres::Client;

use crate::program::*;

/// The codes of `explain` that come with advice, with what it may change: nothing, the message it is about, the messages
/// of dead owners, or the gates of its target.
const ADVICE: [(&str, Changes); 16] = [
    ("gone", Changes::Nothing),
    ("failed", Changes::Message),
    ("cancelled", Changes::Message),
    ("scheduled", Changes::Message),
    ("due", Changes::Message),
    ("owner_dead", Changes::Orphans),
    ("foreign_claim", Changes::Message),
    ("locked", Changes::Nothing),
    ("paused", Changes::Gates),
    ("breaker_open", Changes::Gates),
    ("breaker_half_open", Changes::Gates),
    ("in_flight_limit", Changes::Nothing),
    ("no_consumer", Changes::Nothing),
    ("type_not_accepted", Changes::Nothing),
    ("set_aside", Changes::Message),
    ("not_visible", Changes::Nothing),
];

/// Those without: nothing needs to be done.
const NO_ADVICE: [&str; 9] =
    ["not_found", "archived", "completed", "processing", "held", "suspect", "busy", "queued", "ready"];

#[derive(Clone, Copy, Debug, PartialEq)]
enum Changes {
    Nothing,
    Message,
    Orphans,
    Gates,
}

/// What advice must not touch: every message, by target and id; what is said of targets and breakers; who is registered.
#[derive(Debug, PartialEq)]
struct State {
    messages: BTreeMap<(String, i64), String>,
    gates: BTreeMap<String, String>,
    owners: BTreeSet<String>,
    audited: BTreeSet<String>,
}

impl State {
    async fn of(client: &Client) -> Self {
        let text = async |sql: &str| client.query(sql, &[]).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        let messages = "select target_app, id, concat_ws(' ', status, attempt, owner, priority, md5(data::text), \
                        retry_count, redrive_count, error_message) from integration.data_staging";
        let gates = "select 'target ' || target_app, to_jsonb(t)::text from integration.targets t \
            union all select 'breaker ' || breaker_key, to_jsonb(b)::text from integration.breakers b";
        let owners = "select owner from integration.processes where lease_until > now()";
        let audited = "select concat_ws(' ', staging_id, action, target_app) from integration.audit_log";
        Self {
            messages: text(messages).await.iter().map(|row| ((row.get(0), row.get(1)), row.get(2))).collect(),
            gates: text(gates).await.iter().map(|row| (row.get(0), row.get(1))).collect(),
            owners: text(owners).await.iter().map(|row| row.get(0)).collect(),
            audited: text(audited).await.iter().map(|row| row.get(0)).collect(),
        }
    }

    /// The ids of messages that are otherwise than they were, and the gates.
    fn changed_since(&self, before: &Self) -> (BTreeSet<i64>, BTreeSet<String>) {
        let all = |state: &Self| state.messages.keys().cloned().collect::<BTreeSet<_>>();
        let ids = all(self).union(&all(before)).cloned().collect::<Vec<_>>();
        let ids = ids.into_iter().filter(|key| self.messages.get(key) != before.messages.get(key));
        let gates: BTreeSet<&String> = self.gates.keys().chain(before.gates.keys()).collect();
        let gates = gates.into_iter().filter(|key| self.gates.get(*key) != before.gates.get(*key));
        (ids.map(|(_, id)| id).collect(), gates.cloned().collect())
    }
}

/// Two consumers that live and have messages in hand, each with a backlog of messages that nobody else may take.
struct Living {
    consumers: Vec<Consumer>,
    in_hand: BTreeSet<i64>,
}

impl Living {
    async fn on(broker: &Broker, client: &Client) -> Self {
        let mut consumers = Vec::new();
        let (tell, mut told) = seen();
        for target in ["living", "busy"] {
            for _ in 0..5 {
                plain_insert(client, target, "1").await;
            }
            let config = ConsumerConfig { concurrency: 2, prefetch: Some(0), handler_timeout: None, ..bells_only() };
            let tell = tell.clone();
            let consumer = broker.consumer(target).config(config).fallback(move |delivery| {
                let _ = tell.send(delivery.id);
                std::future::pending::<Result<Outcome, doorbell::HandlerError>>()
            });
            consumers.push(consumer.start().await.unwrap());
        }
        let config = ConsumerConfig { record_types: Some(vec!["other".to_owned()]), ..bells_only() };
        let picky = broker.consumer("picky").config(config).fallback(|_| async { Ok(Outcome::Done) });
        consumers.push(picky.start().await.unwrap());
        Self { consumers, in_hand: told.take(4).await.into_iter().collect() }
    }

    async fn end(self) {
        for consumer in self.consumers {
            consumer.shutdown_within(Duration::ZERO).await.unwrap();
        }
    }
}

/// What a fix has to type: all of it, or what comes after its conditions. `None`: it is words.
fn command_of(fix: &str) -> Option<&str> {
    let types = |text: &str| {
        let verbs = [
            "doorbell ",
            "select ",
            "update ",
            "insert ",
            "delete ",
            "alter ",
            "create ",
            "drop ",
            "grant ",
            "begin",
            "reindex ",
            "vacuum ",
            "truncate ",
            "revoke ",
            "set ",
        ];
        verbs.iter().any(|verb| text.starts_with(verb))
    };
    let conditional = fix.rsplit_once(": ").map(|(_, command)| command).filter(|command| types(command));
    if types(fix) { Some(fix) } else { conditional }
}

/// Types it. Nothing to do any more (exit code 3) is fine: living consumers look after much by themselves.
async fn typed(db: &Database, client: &Client, command: &str) {
    match command.starts_with("doorbell ") {
        true => {
            let words = shell_words::split(command).unwrap();
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let output = ended(doorbell(db, &words[1..])).await;
            assert!(matches!(output.status.code(), Some(0 | 3)), "{command}: {}{}", out(&output), err(&output));
        }
        false => client.batch_execute(command).await.unwrap_or_else(|error| panic!("{command}: {error:?}")),
    }
}

/// A situation: what brings it about, given a target of its own, and the code that `explain` has for its message first.
const SITUATIONS: [(&str, &str); 14] = [
    ("delete from integration.data_staging where id = $id", "gone"),
    ("update integration.data_staging set status = 'failed', error_message = 'no such card' where id = $id", "failed"),
    ("select integration.cancel(array[$id], 'withdrawn')", "cancelled"),
    (
        "update integration.data_staging set status = 'scheduled', available_at = now() + interval '1 h' where id = $id",
        "scheduled",
    ),
    ("update integration.data_staging set status = 'scheduled', available_at = now() where id = $id", "due"),
    ("select integration.claim('$target', 'ghost', 1, p_lease => '-1 s')", "owner_dead"),
    ("update integration.data_staging set status = 'processing' where id = $id", "foreign_claim"),
    ("select integration.pause('$target', 'moving')", "paused"),
    ("select integration.open_breaker('$target', 'cards are down')", "breaker_open"),
    (
        "select integration.open_breaker('$target', 'cards are down', '0 s'); \
         update integration.breakers set state = 'half_open', canaries_left = 0, changed_at = integration.clock() \
          where breaker_key = '$target'",
        "breaker_half_open",
    ),
    (
        "insert into integration.targets (target_app, max_in_flight) values ('$target', 0 + 1); \
         insert into integration.data_staging (source_app, target_app, record_type, data, status) \
             values ('shop', '$target', 'n', '2', 'processing')",
        "in_flight_limit",
    ),
    ("", "no_consumer"),
    ("update integration.data_staging set target_app = 'picky' where id = $id", "type_not_accepted"),
    ("lock", "locked"),
];

#[tokio::test(flavor = "multi_thread")]
async fn what_explain_says_to_type_changes_what_it_says_and_nothing_else() {
    let db = Database::new().await;
    let (client, broker) = (db.client().await, db.broker().await);
    client.batch_execute("select integration.set_audit_level('all')").await.unwrap();
    let living = Living::on(&broker, &client).await;
    let mut seen = BTreeSet::new();
    for (at, (sql, code)) in SITUATIONS.iter().enumerate() {
        let target = format!("target {at}");
        let holder = db.client().await;
        // Asked in the transaction that makes it so: living processes look after some of it at once.
        client.batch_execute("begin").await.unwrap();
        let id = plain_insert(&client, &target, "1").await;
        if *sql == "lock" {
            client.batch_execute("commit; begin").await.unwrap();
            holder
                .batch_execute(&format!("begin; select from integration.data_staging where id = {id} for update"))
                .await
                .unwrap();
        } else {
            let sql = sql.replace("$id", &id.to_string()).replace("$target", &target);
            client.batch_execute(&sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        }
        let explain = "select code, fix from integration.explain($1)";
        let causes: Vec<(String, Option<String>)> =
            client.query(explain, &[&id]).await.unwrap().iter().map(|row| (row.get(0), row.get(1))).collect();
        client.batch_execute("commit").await.unwrap();
        assert_eq!(causes[0].0, *code, "{causes:?}");
        for (code, fix) in causes {
            let Some((_, changes)) = ADVICE.iter().find(|(known, _)| *known == code) else {
                assert!(NO_ADVICE.contains(&code.as_str()) && fix.is_none(), "{code}: {fix:?}");
                continue;
            };
            seen.insert(code.clone());
            let fix = fix.unwrap_or_else(|| panic!("{code} has no advice"));
            let Some(command) = command_of(&fix) else { continue };
            is_all_that_changes(&db, &client, &living, command, *changes, Some((id, &target))).await;
        }
        holder.batch_execute("rollback").await.unwrap();
    }
    let known: BTreeSet<String> = ADVICE.iter().map(|(code, _)| (*code).to_owned()).collect();
    let elsewhere = BTreeSet::from(["not_visible".to_owned(), "set_aside".to_owned()]);
    assert_eq!(seen.union(&elsewhere).cloned().collect::<BTreeSet<_>>(), known);
    living.end().await;
    broker.close().await;
}

/// Types a command, and compares what is there before and after.
async fn is_all_that_changes(
    db: &Database,
    client: &Client,
    living: &Living,
    command: &str,
    changes: Changes,
    about: Option<(i64, &str)>,
) {
    let before = State::of(client).await;
    typed(db, client, command).await;
    let after = State::of(client).await;
    let (ids, gates) = after.changed_since(&before);
    let orphans = "select id from integration.data_staging where id = any ($1) and target_app like 'target %'";
    let all: Vec<i64> = ids.iter().copied().collect();
    let of_nobody = client.query(orphans, &[&all]).await.unwrap().len();
    assert_eq!(of_nobody, all.len(), "{command} changed messages of living consumers: {before:#?} {after:#?}");
    let own = about.map(|(id, _)| id).into_iter().collect::<BTreeSet<i64>>();
    match changes {
        Changes::Nothing => assert!(ids.is_empty() && gates.is_empty(), "{command}: {ids:?}, {gates:?}"),
        Changes::Message => assert!(ids.is_subset(&own) && gates.is_empty(), "{command}: {ids:?}, {gates:?}"),
        Changes::Orphans => assert!(gates.is_empty(), "{command}: {gates:?}"),
        Changes::Gates => {
            let of_target = |gate: &String| about.is_some_and(|(_, target)| gate.ends_with(target));
            assert!(ids.is_empty() && gates.iter().all(of_target), "{command}: {ids:?}, {gates:?}");
        }
    }
    assert!(before.owners.is_subset(&after.owners), "{command} ended a process: {before:#?} {after:#?}");
    let in_hand: Vec<i64> = living.in_hand.iter().copied().collect();
    let held = "select count(*) from integration.data_staging where id = any ($1) and status = 'processing'";
    assert_eq!(client.query_one(held, &[&in_hand]).await.unwrap().get::<_, i64>(0), 4, "{command}");
    let told = after.audited.difference(&before.audited);
    let strange: Vec<_> = told.filter(|event| event.contains("living") || event.contains("busy")).collect();
    assert!(strange.is_empty(), "{command}: {strange:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_doctor_says_to_type_changes_what_it_says_and_nothing_else() {
    let db = Database::new().await;
    let (client, broker) = (db.client().await, db.broker().await);
    let living = Living::on(&broker, &client).await;
    // Handlers that have been running for two hours, and claims of nobody knows whom that have as well; dead letters, a
    // pause, a breaker, a target that nobody consumes; an illness of every kind that leaves the server as it is.
    client
        .batch_execute(
            "insert into integration.data_staging (source_app, target_app, record_type, data, status, updated_at) \
                 select 'psql', 'target 0', 'n', '1', 'processing', now() - interval '2 h' from generate_series(1, 20); \
             update integration.data_staging set updated_at = now() - interval '2 h' where status = 'processing'; \
             insert into integration.data_staging (source_app, target_app, record_type, data, status, error_message) \
                 values ('psql', 'target 1', 'n', '1', 'failed', 'no such card'); \
             insert into integration.data_staging (source_app, target_app, record_type, data, created_at) \
                 select 'psql', t, 'n', '1', now() - interval '1 h' from unnest('{target 2, picky, living}'::text[]) t; \
             select integration.pause('target 3', 'moving'); select integration.open_breaker('target 4', 'down'); \
             insert into integration.processes (owner, host, pid, application, version, targets, beat_at, lease_until) \
                 values ('ghost', 'host', 1, 'app', '0', '{}', now() - interval '1 h', now() - interval '1 h'); \
             alter table integration.data_staging disable trigger data_staging_published; \
             alter table integration.data_staging set (autovacuum_enabled = false); \
             drop index integration.data_staging_requeued; \
             create or replace function integration.step_down(p_name text) returns void language sql as ''",
        )
        .await
        .unwrap();
    let waiting = ["doctor", "--json"];
    let report = json_of(&ended(doorbell(&db, &waiting)).await);
    let findings = report["findings"].as_array().unwrap();
    let fixes: Vec<(&str, &str)> =
        findings.iter().filter_map(|finding| Some((finding["check"].as_str()?, finding["fix"].as_str()?))).collect();
    for check in ["targets", "stuck", "drift", "tables"] {
        assert!(fixes.iter().any(|(of, _)| *of == check), "no fix of {check}: {report:#}");
    }
    for (check, fix) in fixes {
        // The server of the tests is not this database's alone.
        let Some(command) = command_of(fix).filter(|_| !["settings", "server", "connections"].contains(&check)) else {
            continue;
        };
        let command = command.strip_suffix(", or start any consumer: each rescues for all").unwrap_or(command);
        let changes = match check {
            "stuck" | "processes" => Changes::Orphans,
            "targets" if command.contains("resume") || command.contains("breaker") => Changes::Gates,
            _ => Changes::Nothing,
        };
        let target = if command.contains("resume") { "target 3" } else { "target 4" };
        is_all_that_changes(&db, &client, &living, command, changes, Some((0, target))).await;
    }
    let report = json_of(&ended(doorbell(&db, &waiting)).await);
    let healed = |check: &str| {
        let findings = report["findings"].as_array().unwrap().iter();
        findings.filter(|finding| finding["check"] == check).all(|finding| finding["level"] == "ok")
    };
    for check in ["stuck", "drift", "tables", "processes"] {
        assert!(healed(check), "{check}: {report:#}");
    }
    living.end().await;
    broker.close().await;
}

/// What the program starts itself with.
const HIDDEN: [&str; 3] = ["demo-consumer", "bench-consumer", "exec-guard"];

/// Commands in the text of fixes, hints and errors: each one that there is, and none that takes messages to look at them.
#[tokio::test(flavor = "multi_thread")]
async fn every_command_that_our_texts_name_is_one_and_can_be_used_so() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    let mut files = Vec::new();
    for directory in ["src", "migrations", "crates/program/src", "crates/server/src", "docs"] {
        all_files(format!("{root}/{directory}").as_ref(), &mut files);
    }
    files.push(format!("{root}/README.md").into());
    let commands = out(&ended(bare(&["--help"])).await);
    let commands: BTreeSet<&str> = commands
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    let mut named = 0;
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        for line in text.lines() {
            // A command stands at the beginning of a text, of code, of a line of a transcript, or after what it is for.
            let parts = line.match_indices("doorbell ").filter_map(|(at, word)| {
                let before = line[..at].chars().next_back();
                let starts = before.is_none_or(|c| "\"'`:(".contains(c))
                    || ["$ ", ": ", "  "].iter().any(|s| line[..at].ends_with(s));
                starts.then(|| &line[at + word.len()..])
            });
            for rest in parts {
                let verb: String = rest.chars().take_while(|c| c.is_ascii_lowercase() || *c == '-').collect();
                if verb.is_empty() || verb.starts_with('-') || line.trim_start().starts_with("//!") {
                    continue;
                }
                named += 1;
                let place = format!("{}: {line}", file.display());
                assert!(commands.contains(verb.as_str()) || HIDDEN.contains(&&*verb), "{place}");
                if verb == "consume" && rest.contains(' ') && !rest.starts_with("consume`") {
                    let says = ["--exec", "--complete", "--help", "(`consume", "COMMAND"];
                    assert!(says.iter().any(|word| line.contains(word)), "it would take what it looks at: {place}");
                }
            }
        }
    }
    assert!(named > 100, "{named}");
}

fn all_files(directory: &std::path::Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        match path.extension().and_then(|extension| extension.to_str()) {
            None if path.is_dir() => all_files(&path, files),
            Some("rs" | "sql" | "md") => files.push(path),
            _ => {}
        }
    }
}

/// The commands that an example of `--help` or a line of the guide types, without what a shell does with their output.
fn examples_in(text: &str) -> Vec<Vec<String>> {
    let lines = text.lines().map(str::trim_start);
    let lines = lines.filter_map(|line| line.strip_prefix("$ ").unwrap_or(line).strip_prefix("doorbell "));
    let words = lines.filter_map(|line| {
        let line = line.split("   ").next().unwrap_or(line);
        let mut words = shell_words::split(line).ok()?;
        let end = words.iter().position(|word| ["|", "||", "&&", ">"].contains(&word.as_str()) || word.ends_with(';'));
        words.truncate(end.unwrap_or(words.len()));
        Some(words)
    });
    words.collect()
}

/// What looks: examples of it must leave everything as it is.
const LOOKS: [&str; 10] =
    ["stats", "targets", "list", "show", "peek", "explain", "audit", "processes", "doctor", "rights"];
/// What starts servers or a measurement, before any database is asked for.
const STARTS: [&str; 7] = ["demo", "up", "down", "bench", "latency", "completions", "exec-guard"];

#[tokio::test(flavor = "multi_thread")]
async fn every_example_can_be_typed_and_those_that_look_change_nothing() {
    let db = Database::new().await;
    let (client, broker) = (db.client().await, db.broker().await);
    let living = Living::on(&broker, &client).await;
    for _ in 0..3 {
        plain_insert(&client, "target 0", "1").await;
    }
    let help = out(&ended(bare(&["--help"])).await);
    let mut texts = vec![help.clone()];
    for line in help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty()) {
        let command = line.split_whitespace().next().unwrap();
        texts.push(out(&ended(bare(&[command, "--help"])).await));
    }
    for page in ["README.md", "docs/command-line.md", "docs/operations.md", "docs/deploy.md", "docs/metrics.md"] {
        texts.push(std::fs::read_to_string(format!("{}/../../{page}", env!("CARGO_MANIFEST_DIR"))).unwrap());
    }
    let (mut typed, mut looked) = (0, 0);
    let before = State::of(&client).await;
    let directory = Directory::new("nowhere");
    for words in texts.iter().flat_map(|text| examples_in(text)) {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let verb = words.first().filter(|verb| verb.starts_with(|c: char| c.is_ascii_lowercase()));
        let Some(verb) = verb.filter(|verb| !STARTS.contains(verb)) else { continue };
        // Without a server: what cannot be used so says so before it looks for one.
        let mut program = bare(&words);
        program.env("DATABASE_URL", format!("host={} connect_timeout=1", directory.join("none")));
        let output = ended(program).await;
        assert_ne!(output.status.code(), Some(2), "{words:?}: {}", err(&output));
        typed += 1;
        if LOOKS.contains(verb) && !words.contains(&"--watch") {
            let output = ended(doorbell(&db, &words)).await;
            assert!(matches!(output.status.code(), Some(0 | 3 | 4)), "{words:?}: {}", err(&output));
            looked += 1;
        }
    }
    assert!(typed > 60 && looked > 20, "{typed}, {looked}");
    assert_eq!(State::of(&client).await, before);
    living.end().await;
    broker.close().await;
}
