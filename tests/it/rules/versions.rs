//! The page about versions says what the manifests say.

use std::collections::BTreeSet;

use crate::support::repository;

const PACKAGES: [&str; 5] = ["", "crates/bench/", "crates/connection/", "crates/program/", "crates/server/"];

/// What stands in a part of a manifest, line by line.
fn part<'a>(manifest: &'a str, name: &str) -> Vec<&'a str> {
    let lines = manifest.lines().skip_while(|line| *line != format!("[{name}]")).skip(1);
    lines.take_while(|line| !line.starts_with('[')).filter(|line| !line.starts_with('#')).collect()
}

#[test]
fn every_feature_is_in_the_table_and_those_that_one_gets_unasked_are_marked() {
    let mut features = BTreeSet::new();
    for package in PACKAGES {
        let manifest = repository(&format!("{package}Cargo.toml"));
        let name = part(&manifest, "package").iter().find_map(|line| line.strip_prefix("name = ")).unwrap();
        let lines = part(&manifest, "features").into_iter().filter_map(|line| line.split_once(" = "));
        let lines: Vec<(&str, &str)> = lines.collect();
        let usual = lines.iter().find(|(feature, _)| *feature == "default").map_or("", |(_, usual)| *usual);
        for (feature, _) in lines.iter().filter(|(feature, _)| *feature != "default") {
            let mark = if usual.contains(&format!("\"{feature}\"")) { " (default)" } else { "" };
            features.insert(format!("{}: {feature}{mark}", name.trim_matches('"')));
        }
    }
    let page = repository("docs/versions.md");
    let table = page.split("## Features").nth(1).unwrap().split("\n## ").next().unwrap();
    let (mut package, mut written) = (String::new(), BTreeSet::new());
    for line in table.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| package")) {
        let cells: Vec<String> = line.split('|').map(|cell| cell.trim().replace('`', "")).collect();
        if !cells[1].is_empty() {
            package.clone_from(&cells[1]);
        }
        written.insert(format!("{package}: {}", cells[2]));
    }
    assert_eq!(written, features);
}

#[test]
fn the_page_names_the_oldest_rust_that_the_manifest_promises() {
    let page = repository("docs/versions.md");
    let promised = env!("CARGO_PKG_RUST_VERSION");
    assert!(page.contains(&format!("`rust-version` in `Cargo.toml`, now {promised}.")), "it is {promised}");
}
