//! What `--json` prints: one name for an idea in all commands, and those that their help says.

use std::collections::{BTreeMap, BTreeSet};

use crate::{names::commands, program::*};

/// Commands that need no database, measure for seconds, serve until they are ended, wait for somebody else, or say nothing in
/// JSON.
const OTHERS: [&str; 10] = ["request", "demo", "up", "down", "bench", "latency", "ui", "completions", "man", "help"];

/// Each of the others, in an order in which all find something. A command that has more to say in another form is run in
/// both.
const RUNS: [&str; 64] = [
    "publish the-target --source the-source --type the-type --data 1 --header the=header --key the-key",
    "consume the-target --complete --count 1",
    "peek the-target",
    "keys the-target",
    "unblock the-target the-key --redrive --dry-run",
    "unblock the-target the-key --cancel",
    "subscribe the-topic the-target --type the-type --source the-source",
    "topics",
    "topics the-topic the-type --source the-source",
    "replay the-topic --since 1h --dry-run",
    "replay the-topic --since 1h",
    "unsubscribe the-topic the-target",
    "schedule add the-schedule the-target the-type --every 1h",
    "schedule fire the-schedule",
    "schedule pause the-schedule",
    "schedules",
    "schedule remove the-schedule",
    "capture the_table the-target --source the-source --type the-type",
    "captures",
    "uncapture the_table",
    "extract run once the-target --table the_table --source the-source --type the-type",
    "extract add again the-target --table the_table --watermark id",
    "extract pause again",
    "extracts",
    "extract remove again",
    "contract set another-target the-type --rule $",
    "contracts",
    "contract forget another-target the-type",
    "stats",
    "stats --traffic 1h",
    "top --every 100ms",
    "pause the-target --reason the-reason",
    "targets",
    "targets --trouble",
    "explain 42424242",
    "resume the-target",
    "target show the-target",
    "target set the-target max_in_flight=20",
    "backlog",
    "errors",
    "list",
    "list --status processing",
    "show 42424242 --data",
    "show 42424246",
    "audit 42424242",
    "audit --target the-target",
    "follow",
    "processes",
    "retry 42424244 --dry-run",
    "retry 42424244",
    "redrive 42424243 --dry-run",
    "redrive 42424243",
    "cancel 42424243 --dry-run",
    "cancel 42424243",
    "move 42424242 --to the-target --dry-run",
    "breaker open the-target --reason the-reason",
    "grant the_role --app the-target --consume",
    "rights",
    "revoke the_role --app the-target",
    "evict the-owner",
    "doctor",
    "maintain --dry-run",
    "maintain --once",
    "migrate --check",
];

/// Values whose keys are no names of ours: payloads, what steps returned, headers, what an event says beside its columns, counts and settings by
/// name, and what a process accepts, by target.
const BY_KEY: [&str; 7] = ["data", "output", "headers", "details", "actions", "settings", "targets"];

/// What the prepared database has, and by which names it may be called: alone, or among others of its kind.
const IDEAS: [(&str, &[&str]); 7] = [
    ("the-target", &["target", "targets", "app", "breaker"]),
    ("the-source", &["source", "sources"]),
    ("the-type", &["type", "types"]),
    ("the-owner", &["owner"]),
    ("the-key", &["ordering_key", "key"]),
    ("the-reason", &["reason", "reason_like", "pause_reason"]),
    ("the-service", &["application"]),
];

/// Beside `id` and what was done with those: where messages have such ids.
const IDS: [&str; 11] = [
    "id",
    "last_id",
    "ids",
    "example_id",
    "retried",
    "would_be_retried",
    "redriven",
    "would_be_redriven",
    "cancelled",
    "would_be_cancelled",
    "would_be_moved",
];

/// Of a process and of the schema; whether a message was, and how many were.
const TWO_KINDS: [&str; 2] = ["version", "archived"];

/// Names in help that are printed only in situations which no run above is in.
const NOW_AND_THEN: [&str; 7] = ["applied", "moved", "p50_ms", "p95_ms", "p99_ms", "samples", "verb"];

async fn prepared() -> Database {
    let db = Database::new().await;
    let client = db.client().await;
    let prepare = r#"
        create table the_table (id bigint primary key);
        select setval('integration.data_staging_id_seq', 42424242, false), integration.set_audit_level('all'),
               integration.register('the-owner', 'the-host', 77, 'the-service', '1.0',
                   '{"the-target": {"types": ["the-type"], "capacity": 8}}', 600000);
        insert into integration.data_staging
            (source_app, target_app, record_type, data, headers, status, error_message, available_at)
        select 'the-source', 'the-target', 'the-type', '1', '{"the": "header"}', s, r,
               case s when 'scheduled' then now() + interval '1 h' end
          from (values ('pending', null), ('failed', 'the-reason'), ('scheduled', 'the-reason'), ('pending', null)) v (s, r);
        select integration.claim('the-target', 'the-owner', 1);
        select integration.save_step(42424242, 1, 'the-owner', 'the-step', '{"the": "output"}')"#;
    client.batch_execute(prepare).await.unwrap();
    db
}

/// What a run says, by name. Where a thing has a name of its own, its members are not.
fn fields<'a>(said: &'a Value, into: &mut Vec<(&'a str, &'a Value)>) {
    match said {
        Value::Array(all) => all.iter().for_each(|one| fields(one, into)),
        Value::Object(all) => {
            for (name, value) in all {
                into.push((name, value));
                match (BY_KEY.contains(&name.as_str()), value) {
                    (true, Value::Object(by_key)) if name == "targets" => by_key.values().for_each(|v| fields(v, into)),
                    (true, Value::Object(_)) => {}
                    _ => fields(value, into),
                }
            }
        }
        _ => {}
    }
}

/// Names that the help of a command has where it tells of JSON, and those with the names in the help that it refers to.
async fn told(command: &str) -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut own, mut all, mut seen, mut left) = (None, BTreeSet::new(), BTreeSet::new(), vec![command.to_owned()]);
    while let Some(command) = left.pop() {
        if !seen.insert(command.clone()) {
            continue;
        }
        let help = out(&ended(bare(&[&command, "--help"])).await);
        let about = help.lines().skip_while(|line| !line.starts_with("JSON") && !line.starts_with("Lines"));
        let about = about.take_while(|line| !line.is_empty()).collect::<Vec<_>>().join(" ");
        // What follows a colon or a bar is a value.
        let is_name = |before: &str| !before.ends_with(": ") && !before.ends_with("| ");
        let parts: Vec<&str> = about.split('"').collect();
        let quoted = parts.chunks_exact(2).filter(|part| is_name(part[0])).map(|part| part[1].to_owned());
        all.extend(quoted);
        own.get_or_insert_with(|| all.clone());
        let referred = about.split("`doorbell ").skip(1);
        left.extend(referred.map(|rest| rest.split([' ', '`']).next().unwrap_or_default().to_owned()));
    }
    (own.unwrap_or_default(), all)
}

/// How a value is written: a number and a list of one name say how many there are and which; null says nothing.
fn kind(value: &Value) -> Option<&'static str> {
    match value {
        Value::Null => None,
        Value::Bool(_) => Some("yes or no"),
        Value::String(_) => Some("text"),
        Value::Number(_) | Value::Array(_) | Value::Object(_) => Some("how many, or which"),
    }
}

/// What is wrong with a field, seen alone.
fn fault(name: &str, value: &Value) -> Option<String> {
    let parts: Vec<&Value> = value.as_array().map_or_else(|| vec![value], |all| all.iter().collect());
    let is_time = |text: &str| text.len() == 27 && text.ends_with('Z') && text.as_bytes()[10] == b'T';
    let names_time = name == "at" || name == "since" || name.ends_with("_at") || name.ends_with("_until");
    for part in parts {
        let fault = match part {
            Value::String(text) => IDEAS
                .iter()
                .find(|(idea, names)| idea == text && !names.contains(&name))
                .map(|(idea, _)| format!("is no name for {idea}"))
                .or_else(|| (is_time(text) != names_time).then(|| format!("{text}: a time and its name"))),
            Value::Number(number) => {
                let is_id = number.as_i64().is_some_and(|n| (42424242..42424250).contains(&n));
                (is_id && !IDS.contains(&name)).then(|| format!("{number}: is no name for an id"))
            }
            _ => None,
        };
        if fault.is_some() {
            return fault;
        }
    }
    let is_snake = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    (!is_snake).then(|| "is not written like the others".to_owned())
}

/// The columns that the table of words has for a message, its target, source and type: JSON has shorter names for them.
fn columns() -> Vec<String> {
    let architecture = doorbell_testing::repository("ARCHITECTURE.md");
    let row = architecture.lines().find(|line| line.starts_with("| message, its target")).expect("the table of words");
    row.split('|').nth(2).expect("SQL").split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_field_of_json_has_one_name_and_one_kind_in_all_commands_and_the_help_says_it() {
    let db = prepared().await;
    db.client().await.batch_execute("create role the_role").await.unwrap();
    let (mut faults, columns) = (Vec::new(), columns());
    let (mut kinds, mut printed): (BTreeMap<String, _>, BTreeMap<&str, BTreeSet<String>>) = Default::default();
    for run in RUNS {
        let arguments: Vec<&str> = run.split(' ').chain(["--json"]).collect();
        let said = match run {
            // It does not end by itself.
            "follow" => {
                let mut program = Running::start(doorbell(&db, &[&arguments[..], &["--every", "20ms"]].concat()));
                program.logs("following").await;
                publish(&db, "1\n").await;
                vec![serde_json::from_str(&program.line().await).unwrap()]
            }
            _ => lines_of(&ended(doorbell(&db, &arguments)).await),
        };
        assert!(!said.is_empty(), "{run} says nothing");
        let command = run.split(' ').next().unwrap_or_default();
        let mut all = Vec::new();
        said.iter().for_each(|said| fields(said, &mut all));
        for (name, value) in all {
            printed.entry(command).or_default().insert(name.to_owned());
            faults.extend(fault(name, value).map(|fault| format!("{run}: {name} {fault}")));
            let Some(kind) = kind(value) else { continue };
            let (before, of) = *kinds.entry(name.to_owned()).or_insert((kind, run));
            if before != kind && !TWO_KINDS.contains(&name) {
                faults.push(format!("{name} is {before} in {of}, and {kind} in {run}"));
            }
        }
    }
    faults.extend(kinds.keys().filter(|name| columns.contains(name)).map(|name| format!("{name} is a column")));
    for (command, printed) in &printed {
        let (own, all) = told(command).await;
        faults.extend(printed.difference(&all).map(|name| format!("{command}: its help does not tell of {name}")));
        let unseen = own.difference(printed).filter(|name| !NOW_AND_THEN.contains(&name.as_str()));
        faults.extend(unseen.map(|name| format!("{command}: its help tells of {name}, and it was not printed")));
    }
    let all = commands(&out(&ended(bare(&["--help"])).await));
    let run: BTreeSet<String> = printed.keys().copied().chain(OTHERS).map(str::to_owned).collect();
    faults.extend(all.symmetric_difference(&run).map(|name| format!("{name} is not run, or is no command")));
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
