//! The page about the SQL interface says what the catalogue says.

use std::{collections::BTreeMap, fmt::Write, path::Path};

use crate::support::Database;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/sql-reference.md");

const FUNCTIONS: &str = "select p.proname::text, pg_get_function_arguments(p.oid), coalesce(pg_get_function_result(p.oid), ''), \
        coalesce(obj_description(p.oid, 'pg_proc'), ''), array( \
            select v from unnest('{publish,consume,look,operate}'::text[]) with ordinality v (v, n) \
             where p.oid in (select r.oid from integration.rights_of(v) r where r.kind = 'function') order by n) \
    from pg_proc p where p.pronamespace = 'integration'::regnamespace and p.prorettype <> 'trigger'::regtype \
    order by p.proname, p.pronargs desc";

const VIEWS: &str = "select c.relname::text, coalesce(obj_description(c.oid, 'pg_class'), ''), \
        (select string_agg(a.attname, ', ' order by a.attnum) from pg_attribute a where a.attrelid = c.oid and a.attnum > 0) \
    from pg_class c where c.relnamespace = 'integration'::regnamespace and c.relkind = 'v' \
      and c.oid in (select r.oid from integration.rights_of('look') r) order by 1";

struct Function {
    arguments: String,
    result: String,
    about: String,
    verbs: Vec<String>,
}

async fn functions(client: &tokio_postgres::Client) -> BTreeMap<String, Vec<Function>> {
    let mut all = BTreeMap::<String, Vec<Function>>::new();
    for row in client.query(FUNCTIONS, &[]).await.unwrap() {
        let function = Function { arguments: row.get(1), result: row.get(2), about: row.get(3), verbs: row.get(4) };
        all.entry(row.get(0)).or_default().push(function);
    }
    all
}

/// Words in lines of at most 116 columns; those after the first are indented.
fn wrapped(text: &str, indent: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split([' ', '\n']).filter(|word| !word.is_empty()) {
        let line = lines.last_mut().unwrap();
        if line.is_empty() {
            *line += word;
        } else if line.chars().count() + word.chars().count() < 116 {
            write!(line, " {word}").unwrap();
        } else {
            lines.push(format!("{indent}{word}"));
        }
    }
    lines.join("\n")
}

/// Parameters or columns, each in one piece, and without the type that PostgreSQL writes behind each null.
fn listed(text: &str) -> String {
    let mut items: Vec<String> = Vec::new();
    for item in text.split(", ") {
        match items.last_mut() {
            // A comma inside of a default.
            Some(before)
                if before.matches('(').count() > before.matches(')').count() && !before.starts_with("TABLE(") =>
            {
                *before += &format!(", {item}");
            }
            _ => items.push(item.to_owned()),
        }
    }
    let items = items.into_iter().map(|item| match item.split_once(" DEFAULT NULL::") {
        Some((declared, _)) => format!("{declared} DEFAULT NULL"),
        None => item,
    });
    items.map(|item| item.replace(' ', "\u{a0}")).collect::<Vec<_>>().join(", ")
}

/// A comment of our files as a page: locks and errors apart, what is indented as it is.
fn prose(about: &str) -> String {
    let about = about.replace("Locks and SQLSTATEs:", "\n\n**Locks and errors:**");
    let about = about.replace("Locks:", "\n\n**Locks:**").replace("SQLSTATEs:", "\n\n**Errors:**");
    let mut blocks: Vec<(bool, Vec<&str>)> = Vec::new();
    for line in about.lines() {
        let verbatim = line.starts_with("  ");
        match blocks.last_mut() {
            Some((is, lines)) if *is == verbatim && !line.is_empty() && !lines.is_empty() => lines.push(line),
            _ if line.is_empty() => blocks.push((false, Vec::new())),
            _ => blocks.push((verbatim, vec![line])),
        }
    }
    let blocks = blocks.into_iter().filter(|(_, lines)| !lines.is_empty());
    let blocks = blocks.map(|(verbatim, lines)| match verbatim {
        true => format!("```text\n{}\n```", lines.join("\n")),
        false => wrapped(&lines.join(" "), ""),
    });
    blocks.collect::<Vec<_>>().join("\n\n")
}

/// What the page says of all functions with a name.
fn described(name: &str, functions: &[Function]) -> String {
    let mut text = String::new();
    for function in functions {
        assert!(!function.about.is_empty(), "{name} has no comment right before it");
        // A procedure has no other result than what its parameters say.
        let (call, returns) = if function.result.is_empty() { ("call ", "") } else { ("", "returns ") };
        let call = wrapped(&format!("{call}{name}({})", listed(&function.arguments)), "    ").replace('\u{a0}', " ");
        let result = wrapped(&format!("{returns}{}", listed(&function.result)), "    ").replace('\u{a0}', " ");
        let verbs: Vec<_> = function.verbs.iter().map(|verb| format!("`{verb}`")).collect();
        let rights = match &*verbs {
            [] => "For the owner of the schema.".to_owned(),
            _ => format!("Granted with {}.", verbs.join(", ")),
        };
        let shown = [call, result].join("\n");
        write!(text, "\n```text\n{}\n```\n\n{}\n\n{rights}\n", shown.trim_end(), prose(&function.about)).unwrap();
    }
    text + "\n"
}

/// Where what belongs to a mark ends: at an example, a heading, or another mark.
fn end(rest: &str) -> usize {
    let mut at = 0;
    for line in rest.split_inclusive('\n') {
        if line.starts_with("```psql") || line.starts_with('#') || line.starts_with("<!--") {
            return at;
        }
        at += line.len();
    }
    at
}

/// To accept a change, run it with `DOORBELL_ACCEPT=1` and read the difference.
#[tokio::test(flavor = "multi_thread")]
async fn the_reference_says_of_each_function_what_the_catalogue_says_and_shows_a_call() {
    let client = Database::new().await.client().await;
    // In which intervals among the defaults are written.
    client.batch_execute("set intervalstyle = 'postgres'").await.unwrap();
    let all = functions(&client).await;
    let page = std::fs::read_to_string(Path::new(PAGE)).unwrap();
    let named: Vec<&str> = page.split("<!-- of: ").skip(1).map(|rest| rest.split(" -->").next().unwrap()).collect();
    let mut real = String::new();
    let mut rest = page.as_str();
    while let Some(at) = rest.find("<!-- ") {
        let mark = rest[at..].split_inclusive('\n').next().unwrap();
        real += &rest[..at + mark.len()];
        rest = &rest[at + mark.len()..];
        let mark = mark.trim().trim_start_matches("<!-- ").trim_end_matches(" -->");
        let text = match mark.strip_prefix("of: ") {
            Some(name) => {
                let example = rest.split("<!-- ").next().unwrap();
                let typed = example.lines().filter(|line| line.starts_with("app"));
                let call = format!("integration.{name}(");
                assert!(typed.into_iter().any(|line| line.contains(&call)), "no example calls {name}");
                described(name, all.get(name).unwrap_or_else(|| panic!("there is no function {name}")))
            }
            None if mark == "views" => {
                let mut text = "\n".to_owned();
                for row in client.query(VIEWS, &[]).await.unwrap() {
                    let (name, about, columns): (String, String, String) = (row.get(0), row.get(1), row.get(2));
                    assert!(!about.is_empty(), "the view {name} has no comment right before it");
                    let about = about.lines().collect::<Vec<_>>().join(" ");
                    writeln!(text, "{}", wrapped(&format!("- `{name}` ({columns}): {about}"), "  ")).unwrap();
                }
                text + "\n"
            }
            None if mark == "rest" => {
                let rest = all.iter().filter(|(name, functions)| {
                    !named.contains(&name.as_str()) && functions.iter().any(|function| !function.verbs.is_empty())
                });
                let names: Vec<_> = rest.map(|(name, _)| format!("`{name}`")).collect();
                format!("\n{}.\n", wrapped(&names.join(", "), ""))
            }
            None => continue,
        };
        real += &text;
        rest = &rest[end(rest)..];
    }
    real += rest;
    if std::env::var_os("DOORBELL_ACCEPT").is_some() {
        std::fs::write(PAGE, &real).unwrap();
        return;
    }
    for (at, (written, catalogue)) in page.lines().zip(real.lines()).enumerate() {
        assert_eq!(written, catalogue, "docs/sql-reference.md, line {}; accept with DOORBELL_ACCEPT=1", at + 1);
    }
    assert_eq!(page.lines().count(), real.lines().count());
    assert!(named.len() > 60, "{}", named.len());
}
