//! The code of the schema: every function, view and trigger, always the version in force.

use super::checksum;

/// The files of `migrations/code`, in the order in which they are applied: views after those that they read, triggers, and
/// what is called, at the end.
pub const CODE: &[(&str, &str)] = files! {
    "code/base" "code/bell" "code/dedup" "code/publish" "code/published" "code/fan_out" "code/hand_edit" "code/gates" "code/breaker" "code/set_aside"
    "code/keyed" "code/pick"
    "code/turn" "code/claim" "code/hold" "code/due" "code/policy" "code/complete" "code/settle" "code/lease" "code/contact"
    "code/rescue"
    "code/changed" "code/deleted" "code/audit" "code/operate" "code/counters" "code/fold" "code/stats" "code/retire"
    "code/maintain" "code/words" "code/explain" "code/explain_processing" "code/explain_keys" "code/list" "code/peek" "code/summed"
    "code/expiry" "code/coalesce" "code/requests" "code/steps" "code/capture" "code/extract" "code/extract_more" "code/contracts" "code/cron" "code/schedules" "code/topics" "code/replay" "code/steer" "code/clients" "code/kept"
    "code/partitions" "code/audit_level" "code/audit_settings"
    "code/app_rights" "code/grants" "code/row_security" "code/rights"
};

/// What a statement makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    Function,
    View,
    Trigger,
    /// Nothing that stays: it is repeated whenever its file changes.
    Call,
}

impl Kind {
    pub(crate) const ALL: [Self; 4] = [Self::Function, Self::View, Self::Trigger, Self::Call];

    /// As SQL names it: procedures are kept among the functions.
    pub(crate) fn keyword(self) -> &'static str {
        match self {
            Self::Function => "routine",
            other => other.name(),
        }
    }

    /// As the records name it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Function => "function",
            Self::View => "view",
            Self::Trigger => "trigger",
            Self::Call => "call",
        }
    }

    pub(crate) fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// One statement of the code.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    pub(crate) kind: Kind,
    /// As the catalogue writes it: `claim(text,integer)`, `stats`, `data_staging.data_staging_published`.
    pub(crate) name: String,
    /// What its file says of it: the comment right before the statement.
    pub(crate) about: String,
    /// The statement, without its semicolon.
    pub(crate) text: &'static str,
    pub(crate) checksum: String,
}

/// All parts of the code, functions first; among those of a kind the order of the files.
pub(crate) fn parts() -> Vec<Part> {
    let mut parts: Vec<_> =
        CODE.iter().flat_map(|(_, sql)| statements(sql).map(|(about, text)| part(about, text, sql))).collect();
    // What is called changes tables and triggers, as triggers do: these two keep the order of the files.
    parts.sort_by_key(|part| part.kind.min(Kind::Trigger));
    parts
}

/// What tells one state of the code from another.
pub(crate) fn checksum_of_all() -> String {
    checksum(&CODE.iter().map(|(_, sql)| *sql).collect::<String>())
}

fn part(about: String, text: &'static str, file: &'static str) -> Part {
    let (kind, name) = named(text).unwrap_or_else(|| (Kind::Call, text.to_owned()));
    let checksum = checksum(if kind == Kind::Call { file } else { text });
    Part { kind, name, about, text, checksum }
}

fn named(text: &str) -> Option<(Kind, String)> {
    let rest = text.strip_prefix("create or replace ")?;
    let (kind, rest) = rest.split_once(' ')?;
    let kind = Kind::of(if kind == "procedure" { "function" } else { kind })?;
    let name = match kind {
        Kind::Function => signature(rest.strip_prefix("integration.")?)?,
        Kind::View => rest.strip_prefix("integration.")?.split_whitespace().next()?.to_owned(),
        Kind::Trigger => {
            let table = rest.split_once(" on integration.")?.1.split_whitespace().next()?;
            format!("{table}.{}", rest.split_whitespace().next()?)
        }
        Kind::Call => return None,
    };
    Some((kind, name))
}

/// `name(types)` of what follows `create or replace function integration.`.
fn signature(text: &str) -> Option<String> {
    let (name, rest) = text.split_once('(')?;
    let mut types = Vec::new();
    for parameter in split(rest) {
        let declared = parameter.split(" default ").next()?.trim();
        let declared = declared.strip_prefix("inout ").unwrap_or(declared);
        let (name, kind) = declared.split_once(char::is_whitespace).unwrap_or(("", declared));
        match name {
            "" | "out" => {}
            _ => types.push(kind.trim().replace("timestamptz", "timestamp with time zone")),
        }
    }
    Some(format!("{name}({})", types.join(",")))
}

/// What stands between the commas of a list, up to the parenthesis that closes it.
fn split(text: &str) -> Vec<&str> {
    let (mut items, mut start, mut depth, mut quoted) = (Vec::new(), 0, 0, false);
    for (at, character) in text.char_indices() {
        match character {
            '\'' => quoted = !quoted,
            _ if quoted => {}
            ')' if depth == 0 => {
                items.push(&text[start..at]);
                break;
            }
            ',' if depth == 0 => {
                items.push(&text[start..at]);
                start = at + 1;
            }
            '(' | '[' => depth += 1,
            ')' | ']' => depth -= 1,
            _ => {}
        }
    }
    items
}

/// The statements of a file, each with the comment right before it. Bodies are in `$$`; nothing else of dollars is used.
fn statements(file: &'static str) -> impl Iterator<Item = (String, &'static str)> {
    let mut rest = file;
    std::iter::from_fn(move || {
        let mut about = Vec::new();
        loop {
            let next = rest.trim_start();
            // After an empty line it is about something else.
            if rest[..rest.len() - next.len()].contains('\n') {
                about.clear();
            }
            rest = next;
            let Some(comment) = rest.strip_prefix("--") else { break };
            let (line, after) = comment.split_once('\n').unwrap_or((comment, ""));
            about.push(line.strip_prefix(' ').unwrap_or(line).trim_end());
            rest = after;
        }
        let end = end(rest)?;
        let statement = &rest[..end];
        rest = &rest[end + 1..];
        Some((about.join("\n"), statement))
    })
}

/// Where the semicolon is that ends the first statement.
fn end(text: &str) -> Option<usize> {
    let (mut body, mut quoted, mut comment) = (false, false, false);
    let bytes = text.as_bytes();
    for (at, byte) in bytes.iter().enumerate() {
        let pair = bytes.get(at..at + 2);
        match byte {
            b'\n' => comment = false,
            _ if comment => {}
            b'$' if !quoted && pair == Some(b"$$") => body = !body,
            _ if body => {}
            b'\'' => quoted = !quoted,
            _ if quoted => {}
            b'-' if pair == Some(b"--") => comment = true,
            b';' => return Some(at),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
#[path = "tests/code.rs"]
mod tests;
