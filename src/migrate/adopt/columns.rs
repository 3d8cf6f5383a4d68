//! Which columns of the old tables become which of ours, and which cannot.

use std::fmt::Write as _;

use super::{
    column::Column,
    own::{self, Own},
};

/// What a column of ours can be made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Id,
    Count,
    Text,
    Json,
    Time,
}

impl Kind {
    fn taken(self) -> &'static [&'static str] {
        match self {
            Self::Id => &["int8", "int4", "int2"],
            Self::Count => &["int4", "int2"],
            Self::Text => &["varchar", "text", "enum"],
            Self::Json => &["jsonb", "json"],
            Self::Time => &["timestamp", "timestamptz"],
        }
    }

    fn ours(self) -> &'static str {
        match self {
            Self::Id => "bigint",
            Self::Count => "integer",
            Self::Text => "text",
            Self::Json => "jsonb",
            Self::Time => "timestamptz",
        }
    }

    /// As users know them.
    fn names(self) -> &'static str {
        match self {
            Self::Id => "bigint or integer",
            Self::Count => "integer or smallint",
            Self::Text => "varchar, text or an enum",
            Self::Json => "jsonb or json",
            Self::Time => "timestamp or timestamptz",
        }
    }
}

/// A column of the document: what it can be made of, and what stands there where the old table has none, or null.
struct Wanted {
    name: &'static str,
    kind: Kind,
    or: Or,
}

enum Or {
    /// The table must have it; that it is never null is looked at in the rows.
    Required,
    Null,
    Value(&'static str),
    /// Another column's value, or the present.
    Of(&'static str),
}

const fn wanted(name: &'static str, kind: Kind, or: Or) -> Wanted {
    Wanted { name, kind, or }
}

const MESSAGE: &[Wanted] = &[
    wanted("id", Kind::Id, Or::Required),
    wanted("source_app", Kind::Text, Or::Required),
    wanted("target_app", Kind::Text, Or::Required),
    wanted("record_type", Kind::Text, Or::Required),
    wanted("data", Kind::Json, Or::Required),
    wanted("status", Kind::Text, Or::Required),
    wanted("priority", Kind::Count, Or::Value("0")),
    wanted("retry_count", Kind::Count, Or::Value("0")),
    wanted("error_message", Kind::Text, Or::Null),
    wanted("created_at", Kind::Time, Or::Of("updated_at")),
    wanted("updated_at", Kind::Time, Or::Of("created_at")),
    wanted("processed_at", Kind::Time, Or::Null),
];

const EVENT: &[Wanted] = &[
    wanted("id", Kind::Id, Or::Required),
    wanted("staging_id", Kind::Id, Or::Null),
    wanted("app_name", Kind::Text, Or::Value("''")),
    wanted("action", Kind::Text, Or::Value("''")),
    wanted("details", Kind::Json, Or::Null),
    wanted("created_at", Kind::Time, Or::Of("created_at")),
];

/// How the rows of one table are read.
#[derive(Clone, Debug, Default)]
pub(super) struct Reading {
    /// Expressions over the old table, `o`, in the order of our columns; times without a zone are read in that of `$1`.
    pub(super) expressions: Vec<(&'static str, String)>,
    /// Why it cannot be read.
    pub(super) differences: Vec<String>,
    /// Columns that the document does not have, and the new table will.
    pub(super) own: Vec<Own>,
    /// Columns that stay where they are, because somebody said so.
    pub(super) left: Vec<String>,
    /// Whether there are times without a zone.
    pub(super) has_zoneless: bool,
}

/// How a table is read that has these columns; `leave` names those that may stay behind, as `table.column`.
pub(super) fn read(table: &str, columns: &[Column], leave: &[String]) -> Reading {
    let wanted = if table == "audit_log" { EVENT } else { MESSAGE };
    let mut reading = Reading::default();
    let find = |name: &str| columns.iter().find(|column| column.name == name);
    let is_zoneless = |column: &Column| column.kind == "timestamp";
    for column in columns.iter().filter(|column| !wanted.iter().any(|wanted| wanted.name == column.name)) {
        let name = format!("{table}.{}", column.name);
        match leave.contains(&name) {
            true => reading.left.push(format!("the column {name} {}", column.written)),
            false => match own::kept(table, column, leave, |other| find(other).is_some_and(is_zoneless)) {
                Ok(own) => reading.own.push(own),
                Err(why) => reading.differences.push(why),
            },
        }
    }
    for Wanted { name, kind, or } in wanted {
        let found = find(name);
        let value = |column: &Column| match *kind == Kind::Time && is_zoneless(column) {
            true => format!("(o.{name} at time zone $1)"),
            false => format!("o.{name}::{}", kind.ours()),
        };
        match found {
            Some(column) if !kind.taken().contains(&&*column.kind) => {
                let mut why = format!("{table}.{name} is {}, and has to be {}", column.written, kind.names());
                if *kind == Kind::Json {
                    let _ = write!(why, ": alter table ... alter column {name} type jsonb using {name}::jsonb");
                }
                reading.differences.push(why);
                continue;
            }
            Some(column) => reading.has_zoneless |= *kind == Kind::Time && is_zoneless(column),
            None if matches!(or, Or::Required) => {
                reading.differences.push(format!("{table} has no column {name}"));
                continue;
            }
            None => {}
        }
        let found = found.map(value);
        let expression = match (found, or) {
            (Some(found), Or::Required | Or::Null) => found,
            (None, Or::Required | Or::Null) => format!("null::{}", kind.ours()),
            (found, Or::Value(value)) => format!("coalesce({}, {value})", found.as_deref().unwrap_or("null")),
            (found, Or::Of(other)) => {
                let other = find(other).filter(|column| Kind::Time.taken().contains(&&*column.kind)).map(|column| {
                    match is_zoneless(column) {
                        true => format!("(o.{other} at time zone $1)"),
                        false => format!("o.{other}"),
                    }
                });
                let values: Vec<_> = found.into_iter().chain(other).chain(["integration.clock()".to_owned()]).collect();
                format!("coalesce({})", values.join(", "))
            }
        };
        reading.expressions.push((name, expression));
    }
    reading
}

#[cfg(test)]
#[path = "tests/columns.rs"]
mod tests;
