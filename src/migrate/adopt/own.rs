//! Columns of the old tables that the document does not have: somebody's own, which the new tables get, too.

use super::column::Column;
use crate::migrate::STEPS;

/// A column that is kept.
#[derive(Clone, Debug)]
pub(super) struct Own {
    /// As SQL names it.
    pub(super) name: String,
    /// The column's own name, with its table.
    pub(super) of: String,
    pub(super) written: String,
    collation: Option<String>,
    default: Option<String>,
    generated: String,
    pub(super) is_not_null: bool,
}

impl Own {
    /// Whether nobody can write it.
    pub(super) fn is_generated(&self) -> bool {
        !self.generated.is_empty()
    }

    /// How `data_staging` and the audit log get it; never null only when the rows are there.
    pub(super) fn definition(&self) -> String {
        match (&self.default, &*self.generated) {
            (Some(default), "") => format!("{} default {default}", self.plain()),
            (Some(from), generated) => {
                let stored = if generated == "v" { "virtual" } else { "stored" };
                format!("{} generated always as ({from}) {stored}", self.plain())
            }
            (None, _) => self.plain(),
        }
    }

    /// The same where only what has been in `data_staging` comes: values, and nothing that makes or refuses them.
    pub(super) fn plain(&self) -> String {
        match &self.collation {
            Some(collation) => format!("{} {} collate {collation}", self.name, self.written),
            None => format!("{} {}", self.name, self.written),
        }
    }

    /// For people.
    pub(super) fn sentence(&self) -> String {
        let definition = self.definition();
        let rest = definition.strip_prefix(&self.name).unwrap_or_default();
        format!("the column {}{rest}{}", self.of, if self.is_not_null { " not null" } else { "" })
    }
}

/// How a column is kept that is not left, or why it cannot be. `changes` says of which columns the type becomes another.
pub(super) fn kept(
    table: &str,
    column: &Column,
    leave: &[String],
    changes: impl Fn(&str) -> bool,
) -> Result<Own, String> {
    let of = format!("{table}.{}", column.name);
    let name = &column.quoted;
    let refused = |why: &str, remedy: &str| {
        let alter = format!("alter table ... alter column {name}");
        let remedy = remedy.replace("{alter}", &alter).replace("{name}", name);
        Err(format!("{of} {} {why}: {remedy}, or --leave {of} leaves it in the old table", column.written))
    };
    if ours(table).contains(&column.name.as_str()) {
        return refused("has the name of a column of Doorbell's", "alter table ... rename column {name} to another");
    }
    if column.has_sequence {
        return refused(
            "takes its values from a sequence, which stays with the old table",
            "{alter} drop default (drop identity)",
        );
    }
    let is_generated = !column.generated.is_empty();
    if is_generated && let Some(other) = column.made_of.iter().find(|other| changes(other)) {
        return refused(&format!("is generated from {other}, which becomes timestamptz"), "{alter} drop expression");
    }
    if is_generated && let Some(other) = column.made_of.iter().find(|other| leave.contains(&format!("{table}.{other}")))
    {
        return refused(&format!("is generated from {other}, which is left"), "{alter} drop expression");
    }
    let is_not_null = table == "data_staging" && column.is_not_null;
    if is_not_null && column.default.is_none() {
        return refused(
            "is not null and has no default, so that a publish that does not name it would fail",
            "{alter} set default ...",
        );
    }
    Ok(Own {
        name: name.clone(),
        of,
        written: column.written.clone(),
        collation: column.collation.clone(),
        default: column.default.clone(),
        generated: column.generated.clone(),
        is_not_null,
    })
}

/// The columns that the steps give to a table.
fn ours(table: &str) -> Vec<&'static str> {
    let table = if table == "data_staging_archive" { "data_staging" } else { table };
    let mut names = Vec::new();
    for (_, sql) in STEPS {
        let made = sql.split(&format!("create table integration.{table} (\n")).nth(1);
        for line in
            made.into_iter().flat_map(|rest| rest.lines().take_while(|line| *line != ");" && !line.starts_with(')')))
        {
            let word = line.trim_start().split(' ').next().unwrap_or_default();
            if line.starts_with("    ") && !word.starts_with("--") {
                names.push(word);
            }
        }
        let altering = format!("alter table integration.{table} add column ");
        let altered = sql.split(&altering).skip(1);
        names.extend(altered.filter_map(|rest| rest.split(' ').next()));
    }
    names
}

#[cfg(test)]
#[path = "tests/own.rs"]
mod tests;
