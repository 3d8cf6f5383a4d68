//! What texts, `--help` and the guide name and type.

use std::collections::BTreeSet;

use doorbell_testing::plain_insert;

use super::{Living, State};
use crate::program::*;

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
/// What starts servers or a measurement or writes files, before any database is asked for.
const STARTS: [&str; 9] = ["demo", "up", "down", "bench", "latency", "completions", "man", "ui", "exec-guard"];

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
        if *verb == "maintain" && !words.contains(&"--once") {
            // Which would wait for one.
            program.arg("--once");
        }
        program.env("DATABASE_URL", format!("host={} connect_timeout=1", directory.join("none")));
        let output = ended(program).await;
        // The programs of examples are the reader's.
        let is_his = err(&output).contains("cannot run ./");
        assert!(output.status.code() != Some(2) || is_his, "{words:?}: {}", err(&output));
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
