//! Data on stdout, words on stderr, tables on a terminal.

use std::{
    fmt::Display,
    io::{IsTerminal, Result, Write, stdout},
    time::SystemTime,
};

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use serde::Serialize;

use crate::timestamp;

/// One line of data.
pub(crate) fn line(data: impl Display) -> Result<()> {
    writeln!(stdout().lock(), "{data}")
}

/// One JSON document on one line.
pub(crate) fn json(data: &impl Serialize) -> Result<()> {
    json_text(serde_json::to_string(data)?)
}

/// The same, where its text is there already.
pub(crate) fn json_text(text: String) -> Result<()> {
    line(shown(text))
}

/// JSON as it may be written to stdout: on a terminal without characters that would steer it, which JSON allows in its
/// strings and which may be written otherwise there. Programs get the text as it is.
pub(crate) fn shown(json: String) -> String {
    if !stdout().is_terminal() || !json.contains(steers) {
        return json;
    }
    json.chars().fold(String::with_capacity(json.len()), |mut text, c| {
        match steers(c) {
            true => text.push_str(&format!("\\u{:04x}", u32::from(c))),
            false => text.push(c),
        }
        text
    })
}

/// A table: with borders on a terminal, where columns of numbers are aligned to the right, and without them where it would be
/// wider than that, in cells of several lines; lines of tab-separated fields, headings first, for programs.
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
    let width = table.width().map_or(usize::MAX, usize::from);
    if table.lines().any(|line| line.chars().count() > width) {
        table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
        for column in table.column_iter_mut() {
            column.set_padding((0, 1));
        }
        return table.lines().try_for_each(|text| line(text.trim_end()));
    }
    line(table)
}

/// A time in a table: to the second for people, exact for programs.
pub(crate) fn time(time: SystemTime) -> String {
    let exact = timestamp::rfc3339(time);
    match exact.split_once('.') {
        Some((second, _)) if stdout().is_terminal() => format!("{second}Z"),
        _ => exact,
    }
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
    cell.chars().map(|c| if steers(c) { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// Whether a terminal would obey it instead of showing it: controls, of which the 8-bit ones begin sequences as ESC does, and
/// marks that change the direction of what follows.
fn steers(c: char) -> bool {
    let directs = matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    c.is_control() || directs
}
