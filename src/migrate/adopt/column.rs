//! A column as it was found.

use tokio_postgres::Row;

use crate::error::Result;

/// A column of one of the three tables.
#[derive(Clone, Debug, Default)]
pub(super) struct Column {
    pub(super) name: String,
    /// The name as SQL writes it.
    pub(super) quoted: String,
    /// As one would write it: `character varying(50)`.
    pub(super) written: String,
    /// The type's own name: `varchar`; `enum` for any of these.
    pub(super) kind: String,
    pub(super) is_not_null: bool,
    /// What stands there by itself, or what it is generated from.
    pub(super) default: Option<String>,
    /// Empty: it is not generated; `s`: stored, `v`: virtual.
    pub(super) generated: String,
    /// Where it is not the type's.
    pub(super) collation: Option<String>,
    /// Whether its values come from one.
    pub(super) has_sequence: bool,
    /// The columns that its default names.
    pub(super) made_of: Vec<String>,
}

impl Column {
    /// Of a row of `found.sql`, whose first columns are the table's.
    pub(super) fn read(row: &Row) -> Result<Self> {
        Ok(Self {
            name: row.try_get(3)?,
            quoted: row.try_get(4)?,
            written: row.try_get(5)?,
            kind: row.try_get(6)?,
            is_not_null: row.try_get(7)?,
            default: row.try_get(8)?,
            generated: row.try_get(9)?,
            collation: row.try_get(10)?,
            has_sequence: row.try_get(11)?,
            made_of: row.try_get(12)?,
        })
    }
}
