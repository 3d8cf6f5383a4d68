//! The table of words in ARCHITECTURE.md is true: each name is found where it says.

use super::house::{files, none};

#[test]
fn every_name_in_the_table_of_words_is_found_where_the_table_says() {
    let architecture = std::fs::read_to_string("ARCHITECTURE.md").expect("at the root");
    let table = architecture.split("## Words").nth(1).expect("a chapter").split("\n## ").next().expect("its text");
    let rows: Vec<Vec<&str>> = table
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| idea"))
        .map(|line| line.split('|').skip(1).collect())
        .collect();
    assert!(rows.len() > 20, "{} rows", rows.len());
    let places = [("migrations", "sql"), ("src", "rs"), ("crates/program/src", "rs"), ("src/metrics", "rs")].map(all);
    let absent = rows.iter().flat_map(|row| {
        let (idea, columns) = row.split_first().expect("a column of ideas");
        columns.iter().zip(&places).flat_map(move |(names, place)| {
            let missing = names.split('`').skip(1).step_by(2).filter(|name| !has(place, name));
            missing.map(move |name| format!("{name}, for {}", idea.trim()))
        })
    });
    none("a word of the table is not where it says", absent.collect());
}

/// The names and texts of all files in a folder.
fn all((folder, extension): (&str, &str)) -> String {
    files(folder, extension).into_iter().map(|(path, text)| format!("{}\n{text}\n", path.display())).collect()
}

/// Whether a name is somewhere by itself, not as a part of another.
fn has(text: &str, name: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(name).any(|(at, _)| {
        !text[..at].ends_with(is_part) && (name.ends_with('/') || !text[at + name.len()..].starts_with(is_part))
    })
}
