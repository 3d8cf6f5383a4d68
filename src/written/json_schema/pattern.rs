//! Regular expressions of JSON Schema, which are ECMAScript's, as PostgreSQL reads them where a dot is any character.

use std::{iter::Peekable, str::Chars};

/// What it matches and PostgreSQL's matches, alike.
///
/// # Errors
/// What the two read differently, or one does not know.
pub(super) fn read(pattern: &str) -> Result<String, String> {
    if pattern.starts_with('*') {
        return Err("there is nothing to repeat".to_owned());
    }
    let mut rest = pattern.chars().peekable();
    let mut read = String::new();
    while let Some(c) = rest.next() {
        match c {
            '\\' => read += &escaped(&mut rest, false)?,
            // Not the end of a line.
            '.' => read += "[^\\n\\r]",
            '[' => set(&mut rest, &mut read)?,
            '(' if rest.next_if_eq(&'?').is_some() => match rest.next() {
                Some(kind @ (':' | '=' | '!')) => read.extend(['(', '?', kind]),
                kind => return Err(format!("(?{} is read differently", kind.unwrap_or_default())),
            },
            c => read.push(c),
        }
    }
    Ok(read)
}

/// What a backslash says of the next character, in a set or outside.
fn escaped(rest: &mut Peekable<Chars<'_>>, in_set: bool) -> Result<String, String> {
    Ok(match (rest.next(), in_set) {
        (Some('d'), true) => "0-9".to_owned(),
        (Some('w'), true) => "A-Za-z0-9_".to_owned(),
        (Some('d'), false) => "[0-9]".to_owned(),
        (Some('D'), false) => "[^0-9]".to_owned(),
        (Some('w'), false) => "[A-Za-z0-9_]".to_owned(),
        (Some('W'), false) => "[^A-Za-z0-9_]".to_owned(),
        (Some('S'), false) => "\\S".to_owned(),
        (Some(c), _) if "stnrfv".contains(c) || c.is_ascii_punctuation() => format!("\\{c}"),
        (Some(c), _) => return Err(format!("\\{c} is read differently")),
        (None, _) => return Err("it ends in a backslash".to_owned()),
    })
}

/// A set of characters, behind its bracket.
fn set(rest: &mut Peekable<Chars<'_>>, read: &mut String) -> Result<(), String> {
    read.push('[');
    if rest.next_if_eq(&'^').is_some() {
        read.push('^');
    }
    if rest.peek() == Some(&']') {
        return Err("[] is read differently".to_owned());
    }
    loop {
        match rest.next() {
            Some(']') => {
                read.push(']');
                return Ok(());
            }
            Some('\\') => *read += &escaped(rest, true)?,
            // Which begins a class by name there.
            Some('[') => *read += "\\[",
            Some(c) => read.push(c),
            None => return Err("a [ without its ]".to_owned()),
        }
    }
}
