//! The whole schema as text, and the statements that record it.

use super::{
    FINGERPRINTS, OWNERSHIP, PREAMBLE, RECORDS, RENEW_RIGHTS, SERVER, STEPS, checksum,
    code::{self, Kind, Part},
    release::{CODE_NAME, PROGRAM},
    short,
};
use crate::schema::Schema;

/// The whole schema as one script, for those who apply it with their own tools to a database without it.
pub fn script(schema: &Schema) -> String {
    let mut script = format!("begin;\n{PREAMBLE}\n{OWNERSHIP}\n{RECORDS}\n");
    for (at, (name, sql)) in STEPS.iter().enumerate() {
        script.push_str(&format!(
            "-- {name}.sql\n\n{}\n\n{};\n\n",
            sql.trim_end(),
            record_step(at + 1, short(name), sql)
        ));
    }
    let parts = code::parts();
    for part in &parts {
        script.push_str(&format!("{};\n\n", part.text));
    }
    script.push_str(&comments(&parts));
    script.push_str(&format!("{}\n{}\n{RENEW_RIGHTS};\ncommit;\n", record_code(&parts), record_fingerprints("true")));
    schema.sql(&script).into_owned()
}

/// Records that a step was applied.
pub(super) fn record_step(version: usize, name: &str, sql: &str) -> String {
    format!(
        "insert into integration.migrations (version, name, checksum, program) values ({version}, '{name}', '{}', '{PROGRAM}')",
        checksum(sql)
    )
}

/// Records which code is in force.
pub(super) fn record_code(parts: &[Part]) -> String {
    let rows: Vec<_> = parts
        .iter()
        .map(|part| format!("('{}', '{}', '{}')", part.kind.name(), part.name.replace('\'', "''"), part.checksum))
        .collect();
    format!(
        "delete from integration.code;\ninsert into integration.code (kind, name, checksum) values\n{};\n\
         insert into integration.migrations (version, name, checksum, program) values (0, '{CODE_NAME}', '{}', '{PROGRAM}')\n\
         on conflict (version) do update set checksum = excluded.checksum, program = excluded.program, \
         applied_at = excluded.applied_at;",
        rows.join(",\n"),
        code::checksum_of_all()
    )
}

/// What the files say of functions and views, for those who ask the catalogue.
pub(super) fn comments(parts: &[Part]) -> String {
    let commented = parts.iter().filter(|part| part.kind <= Kind::View && !part.about.is_empty());
    let comments = commented.map(|Part { kind, name, about, .. }| {
        // Quoted so that it does not matter how the session reads backslashes.
        format!("comment on {} integration.{name} is $about${about}$about$;\n", kind.keyword())
    });
    comments.collect()
}

/// Functions and views that somebody else put beside ours are none of our business.
const OURS: &str = "(f.kind not in ('function', 'parameters', 'view') or (case f.kind when 'parameters' then 'function' \
    else f.kind end, f.name) in (select c.kind, c.name from integration.code c))";

/// Records the fingerprints of those parts of the schema, as it is, that a condition names.
pub(super) fn record_fingerprints(condition: &str) -> String {
    format!(
        "delete from integration.fingerprints f where {condition};\n\
         insert into integration.fingerprints (kind, name, hash, deparsed, server)\n\
         select f.kind, f.name, f.hash, f.deparsed, {SERVER} from (\n{}\n) f where {condition} and {OURS};",
        FINGERPRINTS.trim_end()
    )
}

/// The statement that removes a part.
pub(super) fn drop(kind: Kind, name: &str) -> String {
    match (kind, name.split_once('.')) {
        (Kind::Trigger, Some((table, trigger))) => format!("drop trigger if exists {trigger} on integration.{table}"),
        _ => format!("drop {} if exists integration.{name}", kind.keyword()),
    }
}
