//! The interpreters of other languages, with what the clients need. Where they cannot be had, the tests say that they did
//! not run; in CI that is a failure, because there `.ci/run` has installed them.

use std::{
    env,
    path::{Path, PathBuf},
    process::Stdio,
};

use tokio::process::Command;

/// A Python with psycopg 3: the one that is named, that of `.ci/run`, or any.
pub(super) async fn python() -> Option<PathBuf> {
    let of_ci = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/ci-python/bin/python");
    let named = env::var_os("DOORBELL_TEST_PYTHON").filter(|named| !named.is_empty()).map(PathBuf::from);
    let python = named.unwrap_or_else(|| if of_ci.exists() { of_ci } else { "python3".into() });
    let needs = "import asyncio, psycopg; asyncio.timeout, psycopg.AsyncConnection.add_notify_handler";
    there(python, &["-c", needs], "Python 3.11 or newer with psycopg 3").await
}

/// The same with what else the tests of the client need.
pub(crate) async fn python_and(modules: &str) -> Option<PathBuf> {
    there(python().await?, &["-c", &format!("import {modules}")], &format!("Python with {modules}")).await
}

/// A Node with `pg` beside the client.
pub(super) async fn node() -> Option<PathBuf> {
    let needs =
        "import(process.cwd() + '/clients/typescript/node_modules/pg/esm/index.mjs').catch(() => process.exit(1))";
    there("node".into(), &["-e", needs], "Node, and `npm install` in clients/typescript").await
}

/// The same with what else the tests of the client need.
pub(super) async fn node_and(packages: &[&str]) -> Option<PathBuf> {
    let node = node().await?;
    let beside = |package: &&str| {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/typescript/node_modules").join(package).exists()
    };
    let needs = if packages.iter().all(beside) { "0" } else { "process.exit(1)" };
    there(node, &["-e", needs], &format!("Node with {}; `npm install` in clients/typescript", packages.join(", ")))
        .await
}

async fn there(program: PathBuf, arguments: &[&str], what: &str) -> Option<PathBuf> {
    let mut command = Command::new(&program);
    command.args(arguments).current_dir(env!("CARGO_MANIFEST_DIR"));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    if matches!(crate::support::soon(what, command.status()).await, Ok(status) if status.success()) {
        return Some(program);
    }
    assert!(env::var("CI").as_deref() != Ok("true"), "there is no {what}; .ci/run installs it");
    println!("DID NOT RUN: there is no {what}; .ci/run installs it");
    None
}
