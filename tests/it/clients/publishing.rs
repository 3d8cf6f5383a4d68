//! What else the clients promise: publishing through anybody's connection, and types.

use std::{path::PathBuf, process::Stdio};

use tokio::process::Command;

use super::languages;
use crate::support::{Database, soon};

/// Runs a program in the repository to its end, and returns what it printed.
async fn run(program: PathBuf, arguments: &[&str], url: &str) -> String {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).env("DATABASE_URL", url);
    command
        .env("PYTHONPATH", concat!(env!("CARGO_MANIFEST_DIR"), "/clients/python/src"))
        .env("PYTHONIOENCODING", "utf-8");
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = soon(&format!("{arguments:?} ends"), command.output()).await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{arguments:?}: {said}{}", String::from_utf8_lossy(&output.stderr));
    said
}

#[tokio::test(flavor = "multi_thread")]
async fn the_python_client_publishes_through_every_connection_it_promises_to_take() {
    let Some(python) = languages::python_and("psycopg2, pg8000, asyncpg, sqlalchemy, greenlet, django").await else {
        return;
    };
    let db = Database::new().await;
    let published = run(python, &["clients/conformance/publishing.py"], &db.url).await;
    let stored = "select record_type from integration.data_staging order by id";
    let rows = db.client().await.query(stored, &[]).await.unwrap();
    let stored: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(stored, published.lines().collect::<Vec<_>>());
    assert_eq!(stored.len(), 9);
    let data = "select count(*) from integration.data_staging where data ->> '%s' = ':message $1' and data ->> 'grüße' = 'it''s \"quoted\"'";
    assert_eq!(crate::support::count(&db.client().await, data).await, 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_typescript_client_publishes_and_completes_in_transactions_of_every_driver_it_names() {
    let Some(node) = languages::node_and(&["pg", "postgres", "kysely", "drizzle-orm"]).await else { return };
    let db = Database::new().await;
    let published = run(node, &["clients/typescript/tests/publishing.mjs"], &db.url).await;
    let client = db.client().await;
    let stored = client.query("select record_type from integration.data_staging order by id", &[]).await.unwrap();
    let stored: Vec<String> = stored.iter().map(|row| row.get(0)).collect();
    assert_eq!(stored, published.lines().collect::<Vec<_>>());
    assert_eq!(stored.len(), 5);
    // At the second attempt where transactions are serializable, and one is told to try again; each effect is there once.
    let whole = "select count(*) from integration.data_staging where status = 'completed' \
        and data ->> '%s' = ':message $1 ?' and data ->> 'grüße' = 'it''s \"quoted\"' and headers = '{\"a\": \"b\"}'";
    assert_eq!(crate::support::count(&client, whole).await, 5);
    let effects = "select count(*) from (select record_type from effects group by 1 having count(*) = 2) e";
    assert_eq!(crate::support::count(&client, effects).await, 4, "one with the publish and one with the completion");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_types_of_the_python_client_are_right() {
    let Some(python) = languages::python_and("mypy").await else { return };
    let mypy = [
        "-m",
        "mypy",
        "--cache-dir",
        "target/mypy",
        "--config-file",
        "clients/python/pyproject.toml",
        "clients/python/src",
    ];
    run(python, &mypy, "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_types_of_the_typescript_client_are_right() {
    let Some(node) = languages::node().await else { return };
    let tsc = ["clients/typescript/node_modules/typescript/bin/tsc", "--project", "clients/typescript"];
    run(node, &tsc, "").await;
}
