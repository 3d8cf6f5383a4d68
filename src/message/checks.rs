//! What the server would refuse, and what it would accept but no consumer could read.

use crate::error::{Error, Result};

pub(super) const NAME_CHARS_MAX: usize = 50;
pub(super) const KEY_CHARS_MAX: usize = 200;
pub(super) const PAYLOAD_DEPTH_MAX: usize = 120;

/// Checks the name of an application or record type: 1 to 50 characters, no NUL.
pub(crate) fn check_name(what: &str, name: &str) -> Result<()> {
    let chars = name.chars().count();
    if chars == 0 {
        return Err(Error::invalid(format!("the {what} is empty; give a name of 1 to {} characters", NAME_CHARS_MAX)));
    }
    if chars > NAME_CHARS_MAX {
        return Err(Error::invalid(format!(
            "the {what} {name:?} has {chars} characters; at most {} are allowed",
            NAME_CHARS_MAX
        )));
    }
    if name.contains('\0') {
        return Err(Error::invalid(format!(
            "the {what} {name:?} contains a NUL character, which PostgreSQL cannot store"
        )));
    }
    Ok(())
}

pub(super) fn check_key(what: &str, key: Option<&str>) -> Result<()> {
    let Some(key) = key else { return Ok(()) };
    let chars = key.chars().count();
    if chars == 0 || chars > KEY_CHARS_MAX {
        return Err(Error::invalid(format!("the {what} has {chars} characters; 1 to {} are allowed", KEY_CHARS_MAX)));
    }
    if key.contains('\0') {
        return Err(Error::invalid(format!("the {what} contains a NUL character, which PostgreSQL cannot store")));
    }
    Ok(())
}

/// What JSONB cannot hold (NUL escapes, lone surrogates) or a reader cannot read (too deep), found in one pass over the text.
pub(crate) fn check_payload(text: &str, bytes_max: usize) -> Result<()> {
    if text.len() > bytes_max {
        return Err(Error::invalid(format!(
            "{} bytes; the limit is {bytes_max} (raise payload_bytes_max, at most 64 MiB, or store the data elsewhere and send a reference)",
            text.len()
        )));
    }
    let bytes = text.as_bytes();
    let (mut depth, mut in_string, mut at) = (0usize, false, 0usize);
    while at < bytes.len() {
        match (in_string, bytes[at]) {
            (true, b'"') | (false, b'"') => in_string = !in_string,
            (true, b'\\') => {
                at += check_escape(text, at)?;
                continue;
            }
            (false, b'[' | b'{') => {
                depth += 1;
                if depth > PAYLOAD_DEPTH_MAX {
                    return Err(Error::invalid(format!("nested deeper than {} levels", PAYLOAD_DEPTH_MAX)));
                }
            }
            (false, b']' | b'}') => depth = depth.saturating_sub(1),
            _ => {}
        }
        at += 1;
    }
    Ok(())
}

/// Checks the escape at `at` (a backslash inside a string) and returns its length.
fn check_escape(text: &str, at: usize) -> Result<usize> {
    let unit = |at: usize| {
        text.get(at..at + 6)
            .filter(|escape| escape.starts_with("\\u"))
            .and_then(|escape| u16::from_str_radix(&escape[2..], 16).ok())
    };
    if text.as_bytes().get(at + 1) != Some(&b'u') {
        return Ok(2);
    }
    match unit(at) {
        Some(0) => Err(Error::invalid("contains \\u0000, which JSONB cannot store")),
        Some(0xD800..=0xDBFF) => match unit(at + 6) {
            Some(0xDC00..=0xDFFF) => Ok(12),
            _ => Err(Error::invalid("contains half a surrogate pair, which JSONB cannot store")),
        },
        Some(0xDC00..=0xDFFF) => Err(Error::invalid("contains half a surrogate pair, which JSONB cannot store")),
        _ => Ok(6),
    }
}
