//! Names and payloads are anybody's: a terminal shows them and obeys none of them.

use crate::program::*;

/// DEL, the 8-bit form of `ESC [`, and a mark that turns what follows around.
const STEERING: [char; 3] = ['\u{7f}', '\u{9b}', '\u{202e}'];

/// A message with all of them, pending for `billing`.
async fn publish_steering(db: &Database) {
    let steering: String = STEERING.iter().collect();
    let client = db.client().await;
    let sql = "insert into integration.data_staging (source_app, target_app, record_type, data, headers)
               values ('shop', 'billing', $1, jsonb_build_object('name', $1::text), jsonb_build_object('name', $1::text))";
    client.execute(sql, &[&steering]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_is_not_steered_by_what_is_in_a_message_and_json_stays_json() {
    let db = Database::new().await;
    publish_steering(&db).await;
    for command in [
        "list",
        "list --json",
        "show 1 --data",
        "show 1 --data --json",
        "explain 1",
        "targets",
        "consume billing --complete --count 1",
    ] {
        let arguments: Vec<&str> = command.split(' ').collect();
        let mut program = doorbell(&db, &arguments);
        program.env("RUST_LOG", "off").env("NO_COLOR", "1");
        let shown = Terminal::start(program).all().await;
        assert!(!shown.contains(STEERING), "{command}: {shown:?}");
        if command.contains("--json") || command.starts_with("consume") {
            assert!(shown.contains(r"\u007f\u009b\u202e"), "{command}: {shown:?}");
            serde_json::from_str::<Value>(&shown).unwrap_or_else(|error| panic!("{command}: {error}: {shown:?}"));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_reads_json_gets_every_character_as_it_is() {
    let db = Database::new().await;
    publish_steering(&db).await;
    let steering: String = STEERING.iter().collect();
    let printed = ended(doorbell(&db, &["consume", "billing", "--complete", "--count", "1"])).await;
    assert!(String::from_utf8(printed.stdout).unwrap().contains(&format!("{{\"name\": \"{steering}\"}}")));
}
