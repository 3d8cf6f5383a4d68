//! The name of the schema: the installation's choice, written `integration` in every statement of ours.

use std::{borrow::Cow, fmt, str::FromStr};

use crate::error::{Error, Result};

/// The name that stands in the files and in the sources.
const WRITTEN: &str = "integration";
/// The longest name, so that what is derived from it stays within PostgreSQL's 63 bytes.
const CHARS_MAX: usize = 40;
/// Words that SQL does not take as a schema's name without quotes.
const RESERVED: &[&str] = &[
    "all",
    "analyse",
    "analyze",
    "and",
    "any",
    "array",
    "as",
    "asc",
    "asymmetric",
    "authorization",
    "binary",
    "both",
    "case",
    "cast",
    "check",
    "collate",
    "collation",
    "column",
    "concurrently",
    "constraint",
    "create",
    "cross",
    "current_catalog",
    "current_date",
    "current_role",
    "current_schema",
    "current_time",
    "current_timestamp",
    "current_user",
    "default",
    "deferrable",
    "desc",
    "distinct",
    "do",
    "else",
    "end",
    "except",
    "false",
    "fetch",
    "for",
    "foreign",
    "freeze",
    "from",
    "full",
    "grant",
    "group",
    "having",
    "ilike",
    "in",
    "information_schema",
    "initially",
    "inner",
    "intersect",
    "into",
    "is",
    "isnull",
    "join",
    "lateral",
    "leading",
    "left",
    "like",
    "limit",
    "localtime",
    "localtimestamp",
    "natural",
    "not",
    "notnull",
    "null",
    "offset",
    "on",
    "only",
    "or",
    "order",
    "outer",
    "overlaps",
    "placing",
    "plpgsql",
    "primary",
    "public",
    "references",
    "returning",
    "right",
    "select",
    "session_user",
    "similar",
    "some",
    "symmetric",
    "system_user",
    "table",
    "tablesample",
    "then",
    "to",
    "trailing",
    "true",
    "union",
    "unique",
    "user",
    "using",
    "variadic",
    "verbose",
    "when",
    "where",
    "window",
    "with",
];

/// The name of the schema that holds an installation; `integration` unless another was chosen.
///
/// Two installations under two names live in one database without hearing or disturbing each other.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Schema(Cow<'static, str>);

impl Schema {
    /// Lower-case letters, digits and `_`, at most 40 of them; does not begin with a digit or `pg_`, and is no word of SQL.
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config) for any other name.
    pub fn new(name: impl Into<String>) -> Result<Self> {
        let name = name.into();
        let letters = name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'));
        let begins = name.starts_with(|first: char| !first.is_ascii_digit()) && !name.starts_with("pg_");
        if !letters || !begins || name.len() > CHARS_MAX {
            return Err(Error::config(format!(
                "the schema cannot be named {name:?}: use at most {CHARS_MAX} of a-z, 0-9 and _, beginning with none of 0-9 and pg_"
            )));
        }
        if RESERVED.contains(&name.as_str()) {
            return Err(Error::config(format!(
                "the schema cannot be named {name:?}: the word has a meaning of its own"
            )));
        }
        Ok(Self(Cow::Owned(name)))
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.0
    }

    /// A text of ours, as it is for this schema: wherever it says `integration`, it says the name. For SQL without values
    /// only: what users wrote stays as it is.
    pub(crate) fn sql<'a>(&self, text: &'a str) -> Cow<'a, str> {
        if self.0 == WRITTEN {
            return Cow::Borrowed(text);
        }
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find(WRITTEN) {
            let after = &rest[at + WRITTEN.len()..];
            let whole = !rest[..at].ends_with(is_of_a_word) && !after.starts_with(is_of_a_word);
            out.push_str(&rest[..at]);
            out.push_str(if whole { &self.0 } else { WRITTEN });
            rest = after;
        }
        out.push_str(rest);
        Cow::Owned(out)
    }
}

fn is_of_a_word(character: char) -> bool {
    character.is_ascii_alphanumeric() || character == '_'
}

impl Default for Schema {
    fn default() -> Self {
        Self(Cow::Borrowed(WRITTEN))
    }
}

impl FromStr for Schema {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::new(name)
    }
}

impl fmt::Display for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_need_no_quotes_are_taken() {
        for good in ["integration", "orders_2", "_x", &"a".repeat(40)] {
            assert_eq!(Schema::new(good).expect(good).name(), good);
        }
        for bad in ["", "Orders", "1st", "a-b", "a.b", "a\"", "ä", "pg_x", "order", &"a".repeat(41)] {
            assert!(Schema::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_name_stands_wherever_ours_was_a_word_of_its_own() {
        let text = "select integration.clock(), 'integration'::regnamespace, reintegration.x, integration_y";
        assert!(matches!(Schema::default().sql(text), Cow::Borrowed(same) if same == text));
        let other = Schema::new("orders").expect("good");
        let wanted = "select orders.clock(), 'orders'::regnamespace, reintegration.x, integration_y";
        assert_eq!(other.sql(text), wanted);
    }
}
