//! What released programs call: it stays for one minor version, because they run beside newer ones while a fleet is renewed.

use std::path::{Path, PathBuf};

use tokio_postgres::Client;

use crate::support::Database;

/// A function as its callers see it.
const FUNCTIONS: &str = "select p.proname::text, p.proname || '(' || pg_get_function_arguments(p.oid) || ') returns ' \
        || coalesce(pg_get_function_result(p.oid), 'what its parameters say') \
    from pg_proc p where p.pronamespace = 'integration'::regnamespace order by 2";

fn recorded() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/schema/called")
}

fn minor(version: &str) -> Vec<u32> {
    version.split('.').take(2).map(|number| number.parse().unwrap()).collect()
}

/// The functions that the sources name.
fn called() -> Vec<String> {
    let mut names = Vec::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut pending = vec![root.join("src"), root.join("crates/program/src")];
    while let Some(path) = pending.pop() {
        if path.is_dir() {
            pending.extend(std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            for after in std::fs::read_to_string(&path).unwrap().split("integration.").skip(1) {
                let name: String = after.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
                if after[name.len()..].starts_with('(') && !names.contains(&name) {
                    names.push(name);
                }
            }
        }
    }
    names
}

async fn there(client: &Client) -> Vec<(String, String)> {
    client.batch_execute("set intervalstyle = postgres").await.unwrap();
    client.query(FUNCTIONS, &[]).await.unwrap().iter().map(|row| (row.get(0), row.get(1))).collect()
}

/// To record what this version calls, run the test with `DOORBELL_ACCEPT=1`; the file of a released version is not touched.
#[tokio::test(flavor = "multi_thread")]
async fn what_this_version_calls_is_recorded_for_the_next() {
    let version = minor(env!("CARGO_PKG_VERSION")).iter().map(u32::to_string).collect::<Vec<_>>().join(".");
    let path = recorded().join(version + ".txt");
    let called = called();
    let there = there(&Database::new().await.client().await).await;
    let lines: String =
        there.iter().filter(|(name, _)| called.contains(name)).map(|(_, line)| format!("{line}\n")).collect();
    if std::env::var_os("DOORBELL_ACCEPT").is_some() {
        std::fs::write(&path, &lines).unwrap();
    }
    assert!(std::fs::read_to_string(&path).unwrap_or_default() == lines, "accept with DOORBELL_ACCEPT=1: {lines}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_last_version_calls_is_still_there() {
    let ours = minor(env!("CARGO_PKG_VERSION"));
    let there = there(&Database::new().await.client().await).await;
    for entry in std::fs::read_dir(recorded()).unwrap() {
        let path = entry.unwrap().path();
        let theirs = minor(path.file_stem().unwrap().to_str().unwrap());
        if theirs[0] != ours[0] || theirs[1] + 1 < ours[1] {
            continue;
        }
        for line in std::fs::read_to_string(&path).unwrap().lines() {
            assert!(
                there.iter().any(|(_, now)| now == line),
                "{} is called by {theirs:?}; see migrations/code/kept.sql",
                line
            );
        }
    }
}

#[test]
fn nothing_is_kept_for_longer_than_it_is_called() {
    let (_, kept) = doorbell::migrate::CODE.iter().find(|(name, _)| *name == "code/kept").unwrap();
    let until: Vec<_> = kept.lines().filter_map(|line| line.strip_prefix("-- Until ")).collect();
    assert_eq!(until.len(), kept.matches("\ncreate or replace ").count(), "each says until when it is kept");
    for version in until {
        assert!(minor(version) > minor(env!("CARGO_PKG_VERSION")), "remove what was kept until {version}");
    }
}
