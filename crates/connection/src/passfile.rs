//! The password file: `host:port:database:user:password` lines, `*` for any, `\` before `:` and `\`.
//!
//! It is read anew for every connection, so that a changed password is used without a restart.

use std::path::Path;

use super::{host::Host, secret::Secret};

/// The password of the first line that fits, or none where no line fits or the file cannot be used.
pub(super) async fn lookup(path: &Path, host: &Host, database: &str, user: &str) -> Option<Secret> {
    if exposed(path) {
        return None;
    }
    let text = tokio::fs::read_to_string(path).await.ok()?;
    let wanted = [host.passfile_name(), &host.port.to_string(), database, user];
    text.lines().find_map(|line| password(line, wanted)).map(Secret::new)
}

/// Whether others than the owner can read the file; libpq does not use it then, and neither do we.
pub(super) fn exposed(path: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        std::fs::metadata(path).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o077 != 0)
    }
    #[cfg(not(unix))]
    {
        let _ = path;
        false
    }
}

fn password(line: &str, wanted: [&str; 4]) -> Option<String> {
    if line.starts_with('#') {
        return None;
    }
    let mut rest = line;
    for field in wanted {
        let (pattern, after) = cut(rest)?;
        if pattern != "*" && unescape(pattern) != field {
            return None;
        }
        rest = after;
    }
    let password = unescape(rest);
    (!password.is_empty()).then_some(password)
}

/// Splits at the first `:` that no backslash precedes.
fn cut(text: &str) -> Option<(&str, &str)> {
    let mut escaped = false;
    for (at, character) in text.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ':' => return Some((&text[..at], &text[at + 1..])),
            _ => {}
        }
    }
    None
}

fn unescape(text: &str) -> String {
    let mut characters = text.chars();
    std::iter::from_fn(|| match characters.next() {
        Some('\\') => characters.next(),
        other => other,
    })
    .collect()
}

#[cfg(test)]
#[path = "tests/passfile.rs"]
mod tests;
