//! The recipes in `packaging/`, as far as they can be run without the machines they are for; manual pages.

use std::path::Path;

use doorbell_testing::repository;
use yaml_rust2::{Yaml, YamlLoader};

use crate::program::*;

/// The program understands what it would be started with; it is asked for help, so that it starts nothing.
async fn is_understood(arguments: &[&str]) {
    let output = ended(bare(&[arguments, &["--help"]].concat())).await;
    ends_with(&output, 0);
    assert!(out(&output).contains(&format!("doorbell {}", arguments[0])), "{arguments:?}");
}

/// Whether a tool that only some machines have is here.
async fn is_here(tool: &str) -> bool {
    let mut asked = Command::new(tool);
    asked.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let here = asked.status().await.is_ok_and(|status| status.success());
    if !here {
        println!("skipped: {tool} is not here");
    }
    here
}

fn seconds(span: &str) -> u64 {
    span.trim_end_matches('s').parse().unwrap()
}

/// What follows an option in a list of arguments.
fn value<'a>(arguments: &[&'a str], option: &str) -> &'a str {
    let at = arguments.iter().position(|argument| *argument == option).expect(option);
    arguments[at + 1]
}

#[tokio::test(flavor = "multi_thread")]
async fn the_unit_starts_a_consumer_that_may_drain_before_it_is_killed() {
    let unit = repository("packaging/doorbell-consume@.service");
    let setting = |name: &str| unit.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('=')).expect(name);
    let start: Vec<&str> = setting("ExecStart").split(' ').collect();
    let arguments: Vec<&str> =
        start[1..].iter().map(|word| if *word == "${METRICS}" { "9187" } else { word }).collect();
    is_understood(&arguments).await;
    assert!(seconds(setting("TimeoutStopSec")) > seconds(value(&arguments, "--drain")));
    if !is_here("systemd-analyze").await {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("doorbell-consume@.service");
    std::fs::write(&path, unit.replace(start[0], env!("CARGO_BIN_EXE_doorbell"))).unwrap();
    let mut verify = Command::new("systemd-analyze");
    // The manual page is not installed here.
    verify.args(["verify", "--man=no"]).arg(&path).stdin(Stdio::null());
    let output = soon("it is verified", verify.output()).await.unwrap();
    let complaints = String::from_utf8_lossy(&output.stderr);
    // Units of the machine itself are none of ours.
    let ours: Vec<&str> = complaints.lines().filter(|line| line.contains("doorbell")).collect();
    assert!(ours.is_empty(), "{complaints}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pods_are_started_as_the_program_can_be_and_probed_where_it_answers() {
    let documents = YamlLoader::load_from_str(&repository("packaging/kubernetes.yaml")).unwrap();
    assert_eq!(documents.len(), 2);
    for document in &documents {
        let pod = &document["spec"]["template"]["spec"];
        let container = &pod["containers"][0];
        let arguments: Vec<&str> =
            container["args"].as_vec().unwrap().iter().map(|arg| arg.as_str().unwrap()).collect();
        is_understood(&arguments).await;
        assert_eq!(container["env"][0]["name"].as_str(), Some("DATABASE_URL"));
        if arguments[0] != "consume" {
            continue;
        }
        let port = &container["ports"][0];
        let listens = value(&arguments, "--metrics").rsplit_once(':').unwrap().1;
        assert_eq!(port["containerPort"].as_i64().unwrap().to_string(), listens);
        for (probe, path) in [("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")] {
            let asks = &container[probe]["httpGet"];
            assert_eq!((asks["path"].as_str(), asks["port"].as_str()), (Some(path), port["name"].as_str()));
        }
        let grace = pod["terminationGracePeriodSeconds"].as_i64().unwrap() as u64;
        assert!(grace > seconds(value(&arguments, "--drain")));
        assert_eq!(document["spec"]["selector"]["matchLabels"], document["spec"]["template"]["metadata"]["labels"]);
    }
}

#[test]
fn the_image_is_built_of_what_is_there_and_copies_what_was_built() {
    let recipe = repository("packaging/Containerfile");
    let recipe = recipe.replace("\\\n", "");
    let instructions = recipe.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let known = ["FROM", "WORKDIR", "COPY", "RUN", "USER", "ENTRYPOINT"];
    let (mut built, mut copied) = (false, false);
    for line in instructions {
        let (instruction, rest) = line.split_once(' ').unwrap();
        assert!(known.contains(&instruction), "{line}");
        built |= instruction == "RUN" && rest.contains(&format!("--package {}", env!("CARGO_PKG_NAME")));
        copied |= rest.contains("--from=build /source/target/release/doorbell ");
    }
    assert!(built && copied);
}

#[test]
fn the_rules_for_alerts_are_rules_and_their_expressions_promql() {
    let documents = YamlLoader::load_from_str(&repository("packaging/alerts.yml")).unwrap();
    let rules = documents[0]["groups"][0]["rules"].as_vec().unwrap();
    assert!(rules.len() >= 8);
    let mut names = std::collections::BTreeSet::new();
    for rule in rules {
        let name = rule["alert"].as_str().unwrap();
        assert!(names.insert(name), "{name} is there twice");
        let expression = rule["expr"].as_str().unwrap();
        promql_parser::parser::parse(expression).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(matches!(rule["labels"]["severity"].as_str(), Some("page" | "look")), "{name}");
        assert!(rule["annotations"]["summary"].as_str().is_some(), "{name}");
        for key in rule.as_hash().unwrap().keys().filter_map(Yaml::as_str) {
            assert!(["alert", "expr", "for", "labels", "annotations"].contains(&key), "{name}: {key}");
        }
    }
    assert!(promql_parser::parser::parse("max by (target (doorbell_processes)").is_err(), "it would say so");
}

#[tokio::test(flavor = "multi_thread")]
async fn alerts_fire_where_they_are_to_and_nowhere_else() {
    let named = std::env::var("DOORBELL_TEST_PROMTOOL").ok().filter(|named| !named.is_empty());
    let promtool = named.unwrap_or_else(|| "promtool".to_owned());
    if !is_here(&promtool).await {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("alerts.yml"), repository("packaging/alerts.yml")).unwrap();
    let tests = directory.path().join("alerts.test.yml");
    std::fs::write(&tests, repository("crates/program/tests/it/alerts.test.yml")).unwrap();
    let mut test = Command::new(promtool);
    test.args(["test", "rules"]).arg(&tests).stdin(Stdio::null());
    let output = soon("the rules are tested", test.output()).await.unwrap();
    assert!(output.status.success(), "{}{}", out(&output), err(&output));
    for rule in repository("packaging/alerts.yml").lines().filter_map(|line| line.split_once("- alert: ")) {
        assert!(
            repository("crates/program/tests/it/alerts.test.yml").contains(&format!("alertname: {}\n", rule.1)),
            "{}",
            rule.1
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_that_help_shows_has_a_manual_page_that_can_be_set() {
    let directory = tempfile::tempdir().unwrap();
    ends_with(&ended(bare(&["man", directory.path().to_str().unwrap()])).await, 0);
    let help = out(&ended(bare(&["--help"])).await);
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let commands = commands.filter(|line| !line.starts_with("   "));
    let commands: Vec<&str> = commands.filter_map(|line| line.split_whitespace().next()).collect();
    assert!(commands.contains(&"consume"));
    let page = |name: &str| directory.path().join(format!("{name}.1"));
    for command in commands.iter().filter(|command| **command != "help") {
        let path = page(&format!("doorbell-{command}"));
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(text.contains("Examples:"), "{command}");
    }
    assert!(!page("doorbell-demo-consumer").exists() && page("doorbell").exists());
    let nowhere = Path::new("/nowhere").join("else");
    let refused = ended(bare(&["man", nowhere.to_str().unwrap()])).await;
    ends_with(&refused, 1);
    assert!(err(&refused).contains("cannot write to /nowhere/else"), "{}", err(&refused));
    if is_here("groff").await {
        let mut groff = Command::new("groff");
        groff.args(["-man", "-ww", "-Tutf8", "-K", "utf8"]).arg(page("doorbell-consume")).stdin(Stdio::null());
        let output = soon("it is set", groff.output()).await.unwrap();
        ends_with(&output, 0);
        assert_eq!(err(&output), "");
        assert!(out(&output).contains("--exit-when-empty") || out(&output).contains("exit-when-empty"));
    }
}
