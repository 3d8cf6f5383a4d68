//! The rules of the house, as far as a program can read them from the sources, and clippy (see `clippy.toml`) cannot.

use std::path::{Path, PathBuf};

/// Where our programs and libraries are.
pub(crate) const SOURCES: [&str; 7] = [
    "src",
    "crates/bench/src",
    "crates/connection/src",
    "crates/program/src",
    "crates/schema/src",
    "crates/server/src",
    "crates/ui/src",
];

pub(crate) fn sources(directory: &str) -> Vec<(PathBuf, String)> {
    files(directory, "rs")
}

pub(crate) fn files(directory: &str, extension: &str) -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut pending = vec![root.join(directory)];
    let mut files = Vec::new();
    while let Some(directory) = pending.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                // A module's unit tests.
                if !path.ends_with("tests") {
                    pending.push(path);
                }
            } else if path.extension().is_some_and(|its| its == extension) {
                let text = std::fs::read_to_string(&path).unwrap();
                files.push((path.strip_prefix(root).unwrap().to_owned(), text));
            }
        }
    }
    assert!(!files.is_empty());
    files
}

/// What stands before the unit tests, without comments.
pub(crate) fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut lines = text.lines().chain([""]);
    let mut next = lines.next();
    let before_tests = std::iter::from_fn(move || {
        let line = next?;
        next = lines.next();
        let tests = line.starts_with("#[cfg(") && line.contains("test") && next.is_some_and(|next| next.ends_with('{'));
        (!tests).then_some(line)
    });
    before_tests.enumerate().map(|(at, line)| (at + 1, line)).filter(|(_, line)| !line.trim_start().starts_with("//"))
}

/// The lines of code below directories that a rule refuses, outside of the paths where it does not hold.
fn breaches(directories: &[&str], except: &[&str], refused: impl Fn(&str) -> bool) -> Vec<String> {
    let mut all = Vec::new();
    for (path, text) in directories.iter().copied().flat_map(sources) {
        if !except.iter().any(|except| path.starts_with(except)) {
            all.extend(
                code(&text)
                    .filter(|(_, line)| refused(line))
                    .map(|(at, line)| format!("{}:{at}: {}", path.display(), line.trim())),
            );
        }
    }
    all
}

pub(crate) fn none(rule: &str, breaches: Vec<String>) {
    assert!(breaches.is_empty(), "{rule}:\n{}", breaches.join("\n"));
}

#[test]
fn state_is_changed_by_sql_in_migrations_only() {
    let changes = |line: &str| {
        let line = line.to_lowercase();
        [
            "insert into integration.",
            "update integration.",
            "delete from integration.",
            "copy integration.",
            "truncate integration.",
        ]
        .iter()
        .any(|verb| line.contains(verb))
    };
    let except = [
        // COPY, the tables of migrations themselves, what the doctor tells people to type.
        "src/store/publish.rs",
        "src/migrate",
        "src/doctor",
        // The demo's own server: how its targets are to retry.
        "crates/program/src/demo/ledger.rs",
        // Floors, and what is measured beside them.
        "crates/bench/src/floor.rs",
        "crates/bench/src/lab.rs",
        "crates/bench/src/scenario/reads.rs",
        "crates/bench/src/scenario/backlog.rs",
        "crates/bench/src/scenario/schema.rs",
        "crates/bench/src/scenario/wake.rs",
    ];
    none("SQL that changes state belongs into migrations/", breaches(&SOURCES, &except, changes));
}

/// Clippy has one list for a package, and what the library may do tests may not.
#[test]
fn tests_wait_for_events_and_not_for_time() {
    let sleeps = |line: &str| line.contains("sleep(") && !line.contains("line.contains");
    // The proxy delays, the nemesis and the lab pace themselves: there, time is part of the fault.
    let except = [
        "crates/testing/src/lib.rs",
        "crates/testing/src/proxy.rs",
        "tests/it/failure/torture/pace.rs",
        "tests/it/failover/pace.rs",
        "tests/lab",
    ];
    let tests = ["tests", "crates/program/tests", "crates/server/tests", "crates/testing"];
    none("wait for an event (doorbell-testing has `soon` and `until`)", breaches(&tests, &except, sleeps));
}

#[test]
fn files_can_be_read_in_one_go() {
    let tests = ["tests", "crates/program/tests", "crates/server/tests", "crates/testing", "benches", "examples"];
    let long: Vec<String> = SOURCES
        .into_iter()
        .chain(tests)
        .flat_map(sources)
        .map(|(path, text)| (path, text.lines().count()))
        .filter(|(_, lines)| *lines > 450)
        .map(|(path, lines)| format!("{}: {lines} lines", path.display()))
        .collect();
    none("at most 450 lines a file", long);
}
