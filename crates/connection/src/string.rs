//! The two spellings of a connection string, taken apart as libpq does.
//!
//! Nothing here knows what a key means. No error repeats any part of the text: what looks like a host or a port is
//! often half of a password whose `/` or `@` was not percent-encoded.

use crate::error::{Error, Result};

/// One setting as written. A later one replaces an earlier one of the same key.
pub(super) type Pair = (String, String);

/// Takes a URI (`postgres://…`, `postgresql://…`) or a `key=value` string apart.
pub(super) fn pairs(text: &str) -> Result<Vec<Pair>> {
    let trimmed = text.trim();
    for scheme in ["postgres://", "postgresql://"] {
        if let Some(rest) = trimmed.strip_prefix(scheme) {
            return uri(rest);
        }
    }
    if trimmed.split(['=', '\'', ' ']).next().is_some_and(|word| word.contains("://")) {
        return Err(Error::config("a connection URI starts with postgres:// or postgresql://"));
    }
    key_values(text)
}

/// `[user[:password]@][host[:port][,…]][/database][?key=value[&…]]`
fn uri(text: &str) -> Result<Vec<Pair>> {
    let mut pairs = Vec::new();
    let mut rest = text;
    // Like libpq: the first `@` before any `/` ends the user's part, so a raw `?` or `#` in a password is fine.
    let end = rest.find(['@', '/']).unwrap_or(rest.len());
    if rest[end..].starts_with('@') {
        let (user, password) = rest[..end].split_once(':').map_or((&rest[..end], None), |(u, p)| (u, Some(p)));
        if user.contains('?') {
            return Err(Error::config("the user name in the URI contains a `?`: write an `@` in a parameter as %40"));
        }
        push(&mut pairs, "user", user)?;
        if let Some(password) = password {
            push(&mut pairs, "password", password)?;
        }
        rest = &rest[end + 1..];
    }

    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (places, mut rest) = rest.split_at(end);
    let mut database = "";
    if let Some(path) = rest.strip_prefix('/') {
        let end = path.find('?').unwrap_or(path.len());
        (database, rest) = path.split_at(end);
    }
    if places.contains('@') || database.contains('@') {
        return Err(Error::config(
            "an `@` after the first one in the URI: percent-encode special characters in the password (`@` is %40, `/` is %2F)",
        ));
    }
    hosts(places, &mut pairs)?;
    if !database.is_empty() {
        push(&mut pairs, "dbname", database)?;
    }
    if let Some(parameters) = rest.strip_prefix('?') {
        for parameter in parameters.split('&').filter(|parameter| !parameter.is_empty()) {
            let Some((key, value)) = parameter.split_once('=') else {
                return Err(Error::config("a parameter of the URI has no `=`"));
            };
            let (key, value) = match (key, value) {
                // The spelling of JDBC, which libpq takes too.
                ("ssl", "true") => ("sslmode", "require"),
                other => other,
            };
            pairs.push((decode(key)?, decode(value)?));
        }
    }
    Ok(pairs)
}

/// `host[:port][,host[:port]…]`, as two comma-separated lists; an IPv6 address stands in brackets.
fn hosts(text: &str, pairs: &mut Vec<Pair>) -> Result<()> {
    let (mut names, mut ports) = (Vec::new(), Vec::new());
    for place in text.split(',') {
        let (name, port) = match place.strip_prefix('[') {
            Some(bracketed) => {
                let Some((address, after)) = bracketed.split_once(']') else {
                    return Err(Error::config("an IPv6 address in the URI lacks its closing bracket"));
                };
                match after.strip_prefix(':') {
                    Some(port) => (address, port),
                    None if after.is_empty() => (address, ""),
                    None => return Err(Error::config("a closing bracket in the URI is not followed by a port")),
                }
            }
            None => place.split_once(':').unwrap_or((place, "")),
        };
        names.push(decode(name)?);
        ports.push(decode(port)?);
    }
    for (key, list) in [("host", names), ("port", ports)] {
        let list = list.join(",");
        if !list.is_empty() {
            pairs.push((key.into(), list));
        }
    }
    Ok(())
}

fn push(pairs: &mut Vec<Pair>, key: &str, encoded: &str) -> Result<()> {
    pairs.push((key.into(), decode(encoded)?));
    Ok(())
}

/// Undoes percent-encoding.
fn decode(text: &str) -> Result<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        if *first != b'%' {
            bytes.push(*first);
            rest = tail;
            continue;
        }
        let digit = |at: usize| tail.get(at).and_then(|&byte| char::from(byte).to_digit(16));
        let (Some(high), Some(low)) = (digit(0), digit(1)) else {
            return Err(Error::config("the URI contains a `%` that two hexadecimal digits do not follow"));
        };
        // Two hexadecimal digits always fit.
        bytes.push((high * 16 + low) as u8);
        rest = &tail[2..];
    }
    String::from_utf8(bytes).map_err(|_| Error::config("the percent-encoded text in the URI is not UTF-8"))
}

/// `key = value key = 'quoted value'`, with backslashes before quotes and backslashes.
fn key_values(text: &str) -> Result<Vec<Pair>> {
    let mut pairs = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let end = rest.find(|c: char| c == '=' || c.is_whitespace()).unwrap_or(rest.len());
        let key = &rest[..end];
        let Some(after) = rest[end..].trim_start().strip_prefix('=') else {
            return Err(Error::config(
                "a word in the connection string is not followed by `=` (a value with spaces needs single quotes)",
            ));
        };
        if key.is_empty() {
            return Err(Error::config("the connection string has a `=` with no key before it"));
        }
        let (value, after) = value(after.trim_start())?;
        pairs.push((key.into(), value));
        rest = after.trim_start();
    }
    Ok(pairs)
}

/// Reads one value, quoted or not, and gives back what follows it.
fn value(text: &str) -> Result<(String, &str)> {
    let quoted = text.starts_with('\'');
    let mut value = String::new();
    let mut characters = text.char_indices().skip(usize::from(quoted));
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            '\'' if quoted => return Ok((value, &text[at + 1..])),
            space if !quoted && space.is_whitespace() => return Ok((value, &text[at..])),
            other => value.push(other),
        }
    }
    if quoted {
        return Err(Error::config("a quoted value in the connection string has no closing quote"));
    }
    Ok((value, ""))
}

#[cfg(test)]
#[path = "tests/string.rs"]
mod tests;
