//! What newcomers meet first: links that lead somewhere, recipes that run, a promise of the oldest Rust.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// All pages of the repository.
fn pages() -> Vec<PathBuf> {
    let mut pages = Vec::new();
    let mut pending = vec![root()];
    while let Some(directory) = pending.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            // What tools put there is not ours.
            if path.is_dir() && !matches!(&*name, "target" | "node_modules") && !name.starts_with('.') {
                pending.push(path);
            } else if name.ends_with(".md") {
                pages.push(path);
            }
        }
    }
    assert!(pages.contains(&root().join("README.md")));
    pages
}

/// A page without its blocks of code.
fn prose(page: &str) -> String {
    let mut code = false;
    let lines = page.lines().filter(|line| {
        let fence = line.starts_with("```");
        code ^= fence;
        !code && !fence
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// What is between `](` and `)`.
fn links(prose: &str) -> impl Iterator<Item = &str> {
    prose.split("](").skip(1).filter_map(|rest| rest.split(')').next())
}

/// The anchors that a page's headings have on the sites that render it.
fn anchors(prose: &str) -> BTreeSet<String> {
    let mut times = BTreeMap::<String, usize>::new();
    let headings = prose.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    headings
        .map(|heading| {
            let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
            let anchor = kept.collect::<String>().to_lowercase().replace(' ', "-");
            let seen = times.entry(anchor.clone()).or_default();
            *seen += 1;
            if *seen == 1 { anchor } else { format!("{anchor}-{}", *seen - 1) }
        })
        .collect()
}

#[test]
fn every_link_of_a_page_leads_to_a_file_and_a_heading_that_exist() {
    let mut dead = Vec::new();
    for page in pages() {
        let prose = prose(&text(&page));
        for link in links(&prose).filter(|link| !link.contains("://")) {
            let (file, anchor) = link.split_once('#').map_or((link, None), |(file, anchor)| (file, Some(anchor)));
            let target = if file.is_empty() { page.clone() } else { page.with_file_name("").join(file) };
            let found =
                target.exists() && anchor.is_none_or(|anchor| anchors(&self::prose(&text(&target))).contains(anchor));
            if !found {
                dead.push(format!("{}: {link}", page.display()));
            }
        }
    }
    assert!(dead.is_empty(), "links that lead nowhere:\n{}", dead.join("\n"));
}

#[test]
fn every_page_of_docs_is_in_its_index() {
    let index = root().join("docs/README.md");
    let listed = text(&index);
    let listed: BTreeSet<&str> = links(&listed).collect();
    for entry in std::fs::read_dir(root().join("docs")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let is_page = name.ends_with(".md") && name != "README.md";
        assert!(!is_page || listed.contains(name.as_str()), "docs/README.md does not mention {name}");
    }
}

#[test]
fn the_readme_and_the_architecture_can_be_read_in_one_go() {
    for (page, most) in [("README.md", 250), ("ARCHITECTURE.md", 230)] {
        let lines = text(&root().join(page)).lines().count();
        assert!(lines <= most, "{page} has {lines} lines, and at most {most} are read");
    }
}

#[test]
fn every_file_that_the_architecture_names_is_there() {
    let all: Vec<String> = ["", "migrations", "src", "crates", "tests"].into_iter().flat_map(paths).collect();
    let page = prose(&text(&root().join("ARCHITECTURE.md")));
    let named = page.split('`').skip(1).step_by(2);
    let files = named.filter(|name| [".rs", ".sql", ".md", "/"].iter().any(|end| name.ends_with(end)));
    let missing: Vec<&str> = files
        .filter(|name| !name.contains("NNNN"))
        .filter(|name| !all.iter().any(|path| path.ends_with(&format!("/{name}"))))
        .collect();
    assert!(missing.is_empty(), "ARCHITECTURE.md names what is not there: {missing:?}");
}

/// The files below a folder, each with a slash in front, and folders, with one behind as well; of the root only what is in it.
fn paths(folder: &str) -> Vec<String> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(root().join(folder)).unwrap() {
        let entry = entry.unwrap();
        let path = format!("{folder}/{}", entry.file_name().to_string_lossy());
        let is_folder = entry.path().is_dir();
        if is_folder && !folder.is_empty() {
            all.extend(paths(&path));
        }
        all.push(format!("/{path}{}", if is_folder { "/" } else { "" }));
    }
    all
}

#[test]
fn the_recipes_of_the_justfile_are_the_checks_of_the_gate() {
    let listed = Command::new(root().join(".ci/run")).arg("--list").output().expect(".ci/run runs");
    let checks = String::from_utf8(listed.stdout).unwrap();
    let justfile = text(&root().join("justfile"));
    let recipes: Vec<&str> = justfile.lines().filter_map(|line| line.strip_prefix("    .ci/run ")).collect();
    assert_eq!(recipes, checks.lines().collect::<Vec<_>>());
    for recipe in recipes {
        assert!(justfile.contains(&format!("\n{recipe}:\n    .ci/run {recipe}\n")), "{recipe} is named otherwise");
    }
}

#[test]
fn every_package_that_goes_to_a_registry_says_there_what_it_is() {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["metadata", "--no-deps", "--format-version", "1", "--locked"]);
    let listed = cargo.current_dir(root()).output().unwrap();
    let metadata: Value = serde_json::from_slice(&listed.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let published: Vec<&Value> = packages.iter().filter(|package| package["publish"].is_null()).collect();
    assert!(published.len() >= 5, "{published:?}");
    for package in &published {
        for said in ["description", "license", "documentation", "rust_version"] {
            assert!(package[said].is_string(), "{} has no {said}", package["name"]);
        }
        // As many as registries take.
        let keywords = package["keywords"].as_array().unwrap().len();
        assert!((1..=5).contains(&keywords) && package["categories"][0].is_string(), "{}", package["name"]);
        let repository = &published[0]["repository"];
        assert_eq!(
            &package["repository"], repository,
            "{} is elsewhere than {}",
            package["name"], published[0]["name"]
        );
    }
}

/// A version as numbers; what is not given counts as 0.
fn version(text: &str) -> Vec<u32> {
    let mut parts: Vec<u32> = text.split('.').map(|part| part.parse().unwrap()).collect();
    parts.resize(3, 0);
    parts
}

#[test]
fn no_dependency_needs_a_newer_rust_than_is_promised() {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["metadata", "--format-version", "1", "--locked", "--all-features", "--filter-platform", "host-tuple"]);
    let listed = cargo.current_dir(root()).output().unwrap();
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    let metadata: Value = serde_json::from_slice(&listed.stdout).unwrap();
    let by_id = |list: &Value| -> BTreeMap<String, Value> {
        list.as_array().unwrap().iter().map(|one| (one["id"].as_str().unwrap().to_owned(), one.clone())).collect()
    };
    let (packages, nodes) = (by_id(&metadata["packages"]), by_id(&metadata["resolve"]["nodes"]));
    let promised = version(env!("CARGO_PKG_RUST_VERSION"));
    let mut pending: Vec<String> = serde_json::from_value(metadata["workspace_members"].clone()).unwrap();
    let mut seen: BTreeSet<String> = pending.iter().cloned().collect();
    while let Some(id) = pending.pop() {
        let package = &packages[&id];
        if let Some(needed) = package["rust_version"].as_str() {
            assert!(version(needed) <= promised, "{} {} needs Rust {needed}", package["name"], package["version"]);
        }
        for dependency in nodes[&id]["deps"].as_array().unwrap() {
            let built = dependency["dep_kinds"].as_array().unwrap().iter().any(|kind| kind["kind"] != "dev");
            let next = dependency["pkg"].as_str().unwrap();
            if built && seen.insert(next.to_owned()) {
                pending.push(next.to_owned());
            }
        }
    }
    assert!(seen.len() > 50, "only {} packages were looked at", seen.len());
}
