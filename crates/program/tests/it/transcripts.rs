//! The transcripts in the guide are what the program prints.

use crate::program::*;
use doorbell_testing::stop_the_clock;

/// Runs a page: its commands on a terminal, one after the other, and between them what its comments prepare. Returns the page
/// as it should be.
async fn played(db: &Database, page: &str) -> String {
    let client = db.client().await;
    stop_the_clock(&client, 0).await;
    let mut real = String::new();
    let mut in_transcript = false;
    for line in page.lines() {
        let comment =
            |name| line.strip_prefix("<!-- ").and_then(|line: &str| line.strip_prefix(name)?.strip_suffix(" -->"));
        if let Some(sql) = comment("sql: ") {
            client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        } else if let Some(second) = comment("clock: ") {
            stop_the_clock(&client, second.parse().unwrap()).await;
        }
        if line.starts_with("```") {
            in_transcript = line == "```console";
        }
        let command = line.strip_prefix("$ ");
        if in_transcript && command.is_none() && line != "```console" {
            continue;
        }
        real += line;
        real += "\n";
        if let Some(command) = command.filter(|_| in_transcript) {
            real += &said(db, command).await;
        }
    }
    real
}

/// What a command prints on a terminal.
async fn said(db: &Database, command: &str) -> String {
    let arguments = shell_words::split(command).unwrap();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    assert_eq!(arguments[0], "doorbell", "{command}");
    let mut program = doorbell(db, &arguments[1..]);
    program.env("PGAPPNAME", "anna").env("RUST_LOG", "off");
    Terminal::start(program).all().await.replace('\r', "")
}

/// To accept a change, run the test with `DOORBELL_ACCEPT=1` and review the difference.
async fn is_what_happens(name: &str) {
    let path = format!("{}/../../docs/{name}", env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(&path).unwrap();
    let real = played(&Database::new().await, &page).await;
    if std::env::var_os("DOORBELL_ACCEPT").is_some() {
        std::fs::write(path, &real).unwrap();
        return;
    }
    for (at, (written, happens)) in page.lines().zip(real.lines()).enumerate() {
        assert_eq!(written, happens, "{name}, line {}; accept with DOORBELL_ACCEPT=1", at + 1);
    }
    assert_eq!(page.lines().count(), real.lines().count(), "{name}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_guide_to_messages_that_do_not_move_is_what_happens() {
    is_what_happens("messages-do-not-move.md").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operations_guide_is_what_happens() {
    is_what_happens("operations.md").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_about_deploying_is_what_happens() {
    is_what_happens("deploy.md").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_about_the_command_line_is_what_happens() {
    is_what_happens("command-line.md").await;
}
