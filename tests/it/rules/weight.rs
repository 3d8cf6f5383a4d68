//! What the library costs those who add it to theirs.

use std::{collections::BTreeSet, process::Command};

use serde_json::Value;

/// The crates that a service builds for this machine's kind, ourselves among them, as `cargo tree` has them.
fn crates(features: &[&str]) -> BTreeSet<String> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["tree", "--locked", "--package", "doorbell", "--edges", "normal", "--prefix", "none"]).args(features);
    let listed = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).output().expect("cargo runs");
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    let listed = String::from_utf8(listed.stdout).expect("text");
    // Name and version; what follows says where it is, and whether it was listed before.
    listed.lines().map(|line| line.split(' ').take(2).collect::<Vec<_>>().join(" ")).collect()
}

#[test]
fn a_service_builds_at_most_100_crates_and_90_without_tls() {
    let (usual, plain) = (crates(&[]), crates(&["--no-default-features"]));
    assert!(usual.iter().any(|name| name.starts_with("rustls ")), "TLS is what everybody gets: {usual:?}");
    assert!(!plain.iter().any(|name| name.starts_with("rustls ")), "{plain:?}");
    assert!(usual.len() <= 100, "{} crates: {usual:?}", usual.len());
    assert!(plain.len() <= 90, "{} crates without TLS: {plain:?}", plain.len());
    println!("{} crates, {} without TLS", usual.len(), plain.len());
}

#[test]
fn at_the_root_cargo_means_every_package() {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["metadata", "--locked", "--no-deps", "--format-version", "1"]);
    let listed = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).output().expect("cargo runs");
    let metadata: Value = serde_json::from_slice(&listed.stdout).expect("JSON");
    let packages = |what: &str| -> BTreeSet<String> { serde_json::from_value(metadata[what].clone()).expect("names") };
    let (all, meant) = (packages("workspace_members"), packages("workspace_default_members"));
    assert!(all.len() > 1);
    assert_eq!(meant, all, "`cargo test` at the root is to run everything");
}
