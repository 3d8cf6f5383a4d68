//! Which file uses which: modules of the library depend on those that `lib.rs` names below them, and no files of any of our crates
//! on each other.

use std::collections::{BTreeMap, BTreeSet};

use super::house::{SOURCES, code, none, sources};

#[test]
fn a_module_uses_only_those_that_lib_rs_names_below_it() {
    let house = House::of("src");
    let upwards = house.arrows.iter().filter(|arrow| !house.runs_down(arrow));
    none("an arrow runs upwards", upwards.map(|arrow| format!("{} -> {}", arrow.0, arrow.1)).collect());
}

#[test]
fn no_files_use_each_other_in_a_circle() {
    let circles = SOURCES.into_iter().flat_map(|sources| {
        let circles = House::of(sources).circles().into_iter();
        circles.map(move |circle| format!("{sources}: {}", circle.join(", ")))
    });
    none("files that can only be understood together", circles.collect());
}

#[test]
fn arrows_upwards_and_circles_are_seen_through_doors_and_without_imports() {
    let lib = "mod top;\nmod middle;\npub mod bottom;\npub use top::Roof;\n";
    let house = House::new(&[
        ("lib", lib),
        ("top", "use crate::{bottom::Floor, middle};\npub struct Roof;\nfn f() { middle::deep() }"),
        // What a module only passes on is no use of it.
        ("middle", "mod inner;\nmod other;\npub(crate) use inner::deep;\nuse other::{A, B as C};"),
        ("middle::inner", "use super::other::A;\n// crate::top::Roof\npub(crate) fn deep() {}"),
        ("middle::other", "pub(crate) struct A;\nfn g() { super::inner::deep() }"),
        ("bottom", "pub struct Floor(crate::Roof);"),
    ]);
    let arrow = |from: &str, to: &str| (from.to_owned(), to.to_owned());
    let all = [
        arrow("bottom", "top"),
        arrow("middle", "middle::other"),
        arrow("middle::inner", "middle::other"),
        arrow("middle::other", "middle::inner"),
        arrow("top", "bottom"),
        arrow("top", "middle"),
        arrow("top", "middle::inner"),
    ];
    assert_eq!(house.arrows, all.clone().into());
    assert_eq!(house.arrows.iter().filter(|arrow| !house.runs_down(arrow)).collect::<Vec<_>>(), [&all[0]]);
    assert_eq!(
        house.circles(),
        [["bottom", "top"].map(str::to_owned), ["middle::inner", "middle::other"].map(str::to_owned)]
    );
}

/// The files of a crate by module path, and who uses whom.
struct House {
    /// The modules of the root, from the front door down.
    order: Vec<String>,
    files: BTreeMap<String, File>,
    arrows: BTreeSet<Arrow>,
}

type Arrow = (String, String);

#[derive(Default)]
struct File {
    text: String,
    modules: Vec<String>,
    /// What its `use` items bind: name, full path, and whether others can come in through it.
    imports: Vec<(String, Vec<String>, bool)>,
}

impl House {
    /// Of the crate whose sources are there; the root of a program is named like that of a library.
    fn of(directory: &str) -> Self {
        let files: Vec<(String, String)> = sources(directory)
            .into_iter()
            .map(|(path, text)| {
                let path = path.strip_prefix(directory).expect("below it").with_extension("");
                let parts: Vec<_> = path.iter().map(|part| part.to_str().expect("text")).collect();
                let name = parts.join("::").trim_end_matches("::mod").to_owned();
                (if name == "main" { "lib".to_owned() } else { name }, text)
            })
            .collect();
        let files: Vec<(&str, &str)> = files.iter().map(|(module, text)| (module.as_str(), text.as_str())).collect();
        Self::new(&files)
    }

    fn new(files: &[(&str, &str)]) -> Self {
        let files: BTreeMap<String, File> =
            files.iter().map(|(module, text)| ((*module).to_owned(), File::read(module, text))).collect();
        let order = files["lib"].modules.clone();
        let mut house = Self { order, files, arrows: BTreeSet::new() };
        house.arrows =
            house.files.keys().filter(|from| *from != "lib").flat_map(|from| house.arrows_of(from)).collect();
        house
    }

    fn arrows_of(&self, from: &str) -> BTreeSet<Arrow> {
        let file = &self.files[from];
        let inside = |to: &str| to.starts_with(&format!("{from}::"));
        let imported = file.imports.iter().filter_map(|(_, path, is_door)| {
            let to = self.resolve(path, 0)?;
            (!(*is_door && inside(&to))).then_some(to)
        });
        let named = paths(&file.text).into_iter().filter_map(|path| {
            let path = file.absolute(from, &path)?;
            self.resolve(&path, 0)
        });
        imported.chain(named).filter(|to| to != from && to != "lib").map(|to| (from.to_owned(), to)).collect()
    }

    /// The file that defines what a path from the root names.
    fn resolve(&self, path: &[String], doors: usize) -> Option<String> {
        let mut module = "lib".to_owned();
        for (at, name) in path.iter().enumerate() {
            let child = if module == "lib" { name.clone() } else { format!("{module}::{name}") };
            if self.files.contains_key(&child) {
                module = child;
                continue;
            }
            let door = self.files[&module].imports.iter().find(|(bound, _, _)| bound == name);
            return match door {
                Some((_, behind, _)) if doors < 8 => self.resolve(&[behind, &path[at + 1..]].concat(), doors + 1),
                _ => Some(module),
            };
        }
        Some(module)
    }

    fn runs_down(&self, (from, to): &Arrow) -> bool {
        let floor = |module: &str| {
            let room = module.split("::").next().expect("at least one part");
            self.order.iter().position(|other| other == room).expect("lib.rs names all")
        };
        floor(from) <= floor(to)
    }

    /// Groups of files each of which can be reached from each other one.
    fn circles(&self) -> Vec<Vec<String>> {
        let reach: BTreeMap<&str, BTreeSet<&str>> =
            self.files.keys().map(|from| (from.as_str(), self.reach(from))).collect();
        let mut circles = BTreeSet::new();
        for (from, reached) in &reach {
            let circle: Vec<String> =
                reached.iter().filter(|to| reach[**to].contains(from)).map(|to| (*to).to_owned()).collect();
            if circle.len() > 1 {
                circles.insert(circle);
            }
        }
        circles.into_iter().collect()
    }

    fn reach(&self, from: &str) -> BTreeSet<&str> {
        let (mut reached, mut pending) = (BTreeSet::new(), vec![from]);
        while let Some(from) = pending.pop() {
            for (_, to) in self.arrows.iter().filter(|(other, _)| other == from) {
                if reached.insert(to.as_str()) {
                    pending.push(to);
                }
            }
        }
        reached
    }
}

impl File {
    fn read(module: &str, text: &str) -> Self {
        let text: String = code(text).map(|(_, line)| format!("{line}\n")).collect();
        let mut file = Self::default();
        for item in text.split(';') {
            let words = || item.split_whitespace();
            let is_door = words().any(|word| word.starts_with("pub"));
            let after = |keyword: &str| {
                let at = item.find(&format!("{keyword} "))?;
                let before = item[..at].trim_end();
                let starts = before.is_empty() || before.ends_with(['}', ']', ')', '{']) || before.ends_with("pub");
                starts.then(|| item[at + keyword.len()..].trim())
            };
            if let Some(name) = after("mod").filter(|name| !name.contains(char::is_whitespace)) {
                file.modules.push(name.to_owned());
            } else if let Some(tree) = after("use") {
                for (name, path) in leaves(tree) {
                    file.imports.push((name, path, is_door));
                }
            } else {
                file.text.push_str(item);
                file.text.push(';');
            }
        }
        let made_absolute = file
            .imports
            .iter()
            .filter_map(|(name, path, is_door)| Some((name.clone(), file.absolute(module, path)?, *is_door)));
        file.imports = made_absolute.collect();
        file
    }

    /// A path as seen from the root; `None`: it does not begin with a module or an import of this file.
    fn absolute(&self, module: &str, path: &[String]) -> Option<Vec<String>> {
        let mut here: Vec<String> = module.split("::").filter(|part| *part != "lib").map(str::to_owned).collect();
        let mut rest = path;
        match rest.first()?.as_str() {
            "crate" => here.clear(),
            "self" => {}
            "super" => {
                while rest.first().is_some_and(|part| part == "super") {
                    here.pop();
                    rest = &rest[1..];
                }
                return Some([&here, rest].concat());
            }
            first if self.modules.iter().any(|module| module == first) => return Some([&here, rest].concat()),
            first => {
                let import = self.imports.iter().find(|(name, _, _)| name == first)?;
                return Some([&import.1, &rest[1..]].concat());
            }
        }
        Some([&here, &rest[1..]].concat())
    }
}

/// What a tree of a `use` item binds: names and paths.
fn leaves(tree: &str) -> Vec<(String, Vec<String>)> {
    let tree = tree.trim();
    let Some((prefix, list)) = tree.split_once('{') else {
        let (path, name) = tree.split_once(" as ").unwrap_or((tree, ""));
        let mut path: Vec<String> = path.split("::").map(|part| part.trim().to_owned()).collect();
        if path.len() > 1 && path.last().is_some_and(|last| last == "self") {
            path.pop();
        }
        let name = if name.is_empty() { path.last().expect("not empty").clone() } else { name.trim().to_owned() };
        return vec![(name, path)];
    };
    let list = list.trim().strip_suffix('}').expect("a list ends");
    let (mut depth, mut start, mut parts) = (0, 0, Vec::new());
    for (at, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&list[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&list[start..]);
    let parts = parts.into_iter().filter(|part| !part.trim().is_empty());
    parts.flat_map(|part| leaves(&format!("{prefix}{}", part.trim()))).collect()
}

/// The paths of two parts and more in a text.
fn paths(text: &str) -> Vec<Vec<String>> {
    let is_path = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    let found = text.split(|c| !is_path(c)).map(|word| word.trim_matches(':'));
    let found = found.filter(|word| word.contains("::"));
    found.map(|path| path.split("::").map(str::to_owned).collect()).collect()
}
