//! The program and the library call the same things by the same names.

use std::collections::BTreeSet;

use crate::program::*;

/// What only the program does.
const ITS_OWN: [&str; 10] = ["demo", "up", "down", "top", "bench", "latency", "ui", "completions", "man", "help"];

/// What services do, by the name of the command.
const OF_SERVICES: [(&str, &str); 4] =
    [("migrate", "migrate"), ("producer", "publish"), ("producer", "request"), ("consumer", "consume")];

/// Operations that are a part of a command with another name.
const PARTS: [(&str, &str); 40] = [
    ("act", "redrive"),
    ("overview", "top"),
    ("traffic", "stats"),
    ("traffic_of_each", "stats"),
    ("error_rates", "errors"),
    ("settings", "target"),
    ("audit_list", "audit"),
    ("change", "redrive"),
    ("change_each", "redrive"),
    ("redrive_over", "redrive"),
    ("replay_part", "replay"),
    ("waiting_requests", "request"),
    ("count_waiting_requests", "request"),
    ("steps", "show"),
    ("find_ids", "redrive"),
    ("grant_app", "grant"),
    ("revoke_app", "revoke"),
    ("redrive_in", "redrive"),
    ("is_drained", "consume"),
    ("breakers", "top"),
    ("open_breaker", "breaker"),
    ("close_breaker", "breaker"),
    ("maintenance", "maintain"),
    ("move_to", "move"),
    ("set_target", "target"),
    ("target_state", "targets"),
    ("forget_target", "target"),
    ("nearest_target", "target"),
    ("maintenance_due", "maintain"),
    ("routes", "topics"),
    ("unschedule", "schedule"),
    ("pause_schedule", "schedule"),
    ("fire_schedule", "schedule"),
    ("next_ticks", "schedules"),
    ("extract_more", "extract"),
    ("pause_extract", "extract"),
    ("forget_extract", "extract"),
    ("forget_contract", "contract"),
    ("blocked_keys", "keys"),
    ("count_blocked_keys", "keys"),
];

#[tokio::test(flavor = "multi_thread")]
async fn commands_are_named_as_the_operations_of_the_library() {
    let commands = commands(&out(&ended(bare(&["--help"])).await));
    let mut operations = public_functions("operate/mod.rs");
    operations.extend(public_functions("operate/topics.rs"));
    operations.extend(public_functions("operate/schedules.rs"));
    operations.extend(public_functions("operate/keys.rs"));
    operations.extend(public_functions("operate/captures.rs"));
    operations.extend(public_functions("operate/extracts.rs"));
    operations.extend(public_functions("operate/contracts.rs"));
    operations.extend(public_functions("operate/summed.rs"));
    operations.extend(public_functions("operate/requests.rs"));
    operations.extend(public_functions("operate/steps.rs"));
    let broker = public_functions("broker.rs");
    for (function, command) in OF_SERVICES {
        assert!(broker.contains(function), "Broker has no {function} for {command}");
    }
    for (operation, command) in PARTS {
        assert!(operations.contains(operation) && commands.contains(command), "{operation} is no part of {command}");
    }
    let explained: BTreeSet<&str> =
        ITS_OWN.into_iter().chain(OF_SERVICES.map(|(_, command)| command)).chain(["breaker", "move"]).collect();
    let commands: BTreeSet<&str> =
        commands.iter().map(String::as_str).filter(|name| !explained.contains(name)).collect();
    let parts = PARTS.map(|(operation, _)| operation);
    let operations: BTreeSet<&str> =
        operations.iter().map(String::as_str).filter(|name| !parts.contains(name)).collect();
    assert_eq!(commands, operations);
}

pub(crate) fn commands(help: &str) -> BTreeSet<String> {
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    lines.filter(|line| !line.starts_with("   ")).map(|line| first_word(line).to_owned()).collect()
}

/// The methods that a file of the library has for others.
fn public_functions(file: &str) -> BTreeSet<String> {
    let source = std::fs::read_to_string(format!("{}/../../src/{file}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let signatures = source.lines().filter_map(|line| {
        let line = line.trim();
        line.strip_prefix("pub async fn ").or_else(|| line.strip_prefix("pub fn "))
    });
    signatures.map(|line| line.split(['(', '<']).next().unwrap_or_default().to_owned()).collect()
}

fn first_word(line: &str) -> &str {
    line.split_whitespace().next().unwrap_or_default()
}
