//! Data on stdout, words on stderr, tables on a terminal.

use std::{
    fmt::Display,
    io::{IsTerminal, Result, Write, stdout},
    time::SystemTime,
};

use comfy_table::{Cell, CellAlignment, Color, ColumnConstraint, ContentArrangement, Table, Width, presets};
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
    let wide = laid_out(headings, &rows, false);
    let width = wide.width().map_or(usize::MAX, usize::from);
    let mut table = laid_out(headings, &rows, colours(&stdout()));
    if wide.lines().any(|line| line.chars().count() > width) {
        table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
        let words: Vec<usize> = (0..headings.len()).map(|at| longest_word(headings, &rows, at)).collect();
        let unbroken = unbroken(&words, width);
        for (column, word) in table.column_iter_mut().zip(words) {
            // One more, between it and the next.
            let least = (word.min(unbroken) + 1).try_into().unwrap_or(u16::MAX);
            column.set_padding((0, 1)).set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(least)));
        }
        return table.lines().try_for_each(|text| line(text.trim_end()));
    }
    line(table)
}

fn laid_out(headings: &[&str], rows: &[Vec<String>], coloured: bool) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY).set_header(headings.iter().copied());
    for row in rows {
        let cells = row.iter().zip(headings).map(|(text, heading)| match alarm(heading, text) {
            Some(colour) if coloured => Cell::new(text).fg(colour),
            _ => Cell::new(text),
        });
        table.add_row(cells);
    }
    for (at, column) in table.column_iter_mut().enumerate() {
        if rows.iter().all(|row| is_number(&row[at])) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// What somebody should look at: red, what failed or is lost; yellow, what stands still.
fn alarm(heading: &str, cell: &str) -> Option<Color> {
    match (heading, cell) {
        ("FAILED", "0") => None,
        ("FAILED", _) | ("STATUS", "failed") | ("STATE", "lost") => Some(Color::DarkRed),
        ("STATE", "open" | "alive") => None,
        ("STATE", _) => Some(Color::DarkYellow),
        _ => None,
    }
}

/// Whether what goes there may be coloured.
pub(crate) fn colours(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Of what a column holds; of the last one, which has the longest texts, in its heading.
fn longest_word(headings: &[&str], rows: &[Vec<String>], at: usize) -> usize {
    let rows = if at + 1 == headings.len() { &[] } else { rows };
    let cells = rows.iter().map(|row| row[at].as_str()).chain([headings[at]]);
    cells.flat_map(|cell| cell.split(' ')).map(|word| word.chars().count()).max().unwrap_or_default()
}

/// How long words may be that are not broken in any column, so that all columns fit.
fn unbroken(words: &[usize], width: usize) -> usize {
    let fits = |longest: &usize| words.iter().map(|word| word.min(longest) + 1).sum::<usize>() <= width;
    (1..=words.iter().copied().max().unwrap_or_default()).rev().find(fits).unwrap_or(1)
}

/// A time in a table: to the second for people, exact for programs.
pub(crate) fn time(time: SystemTime) -> String {
    let exact = timestamp::rfc3339(time);
    match exact.split_once('.') {
        Some((second, _)) if stdout().is_terminal() => format!("{}Z", second.replace('T', " ")),
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
