//! Data on stdout, words on stderr, tables on a terminal.

use std::{
    fmt::Display,
    io::{IsTerminal, Result, Write, stdout},
};

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

/// One line of data.
pub(crate) fn line(data: impl Display) -> Result<()> {
    writeln!(stdout().lock(), "{data}")
}

/// One JSON document on one line.
pub(crate) fn json(data: &impl Serialize) -> Result<()> {
    line(serde_json::to_string(data)?)
}

/// A table: with borders on a terminal, where columns of numbers are aligned to the right; lines of tab-separated fields,
/// headings first, for programs.
pub(crate) fn table(headings: &[&str], rows: &[Vec<String>]) -> Result<()> {
    let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(|cell| printable(cell)).collect()).collect();
    if !stdout().is_terminal() {
        line(headings.join("\t"))?;
        return rows.iter().try_for_each(|row| line(row.join("\t")));
    }
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY).set_header(headings.iter().copied());
    for row in &rows {
        table.add_row(row);
    }
    for (at, column) in table.column_iter_mut().enumerate() {
        if rows.iter().all(|row| is_number(&row[at])) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    line(table)
}

/// A count, an age, or the lack of one.
fn is_number(cell: &str) -> bool {
    cell == "-" || cell.starts_with(|c: char| c.is_ascii_digit())
}

/// At most so many characters, on a terminal; programs get all of it.
pub(crate) fn cut(text: &str, chars_max: usize) -> String {
    match text.char_indices().nth(chars_max) {
        Some((end, _)) if stdout().is_terminal() => format!("{}…", &text[..end]),
        _ => text.to_owned(),
    }
}

/// Names are any text: one with a tab must not shift columns, one with an escape sequence must not steer the terminal.
pub(crate) fn printable(cell: &str) -> String {
    cell.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}
