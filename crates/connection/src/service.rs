//! The connection service file: named sets of settings, `[name]` followed by `key=value` lines.

use std::path::{Path, PathBuf};

use super::{environment::Environment, string::Pair};
use crate::error::{Error, Result};

/// Reads the settings of the service that the connection string or `PGSERVICE` names, if any does.
///
/// Looked for in the file that the string or `PGSERVICEFILE` names, else in `~/.pg_service.conf`; then in
/// `pg_service.conf` under `PGSYSCONFDIR`.
pub(super) fn read(
    name: Option<&str>,
    file: Option<&str>,
    environment: &dyn Environment,
) -> Result<Option<(String, Vec<Pair>)>> {
    let name = match name {
        Some(name) => name.to_owned(),
        None => match environment.variable("PGSERVICE")? {
            Some(name) if !name.is_empty() => name,
            _ => return Ok(None),
        },
    };
    for path in candidates(file, environment)? {
        let text = std::fs::read_to_string(&path).map_err(|error| {
            Error::config(format!("cannot read service file {}", path.display())).with_source(error)
        })?;
        if let Some(pairs) = parse(&text, &name).map_err(|error| error.context(path.display()))? {
            return Ok(Some((name, pairs)));
        }
    }
    Err(Error::config(format!("service `{}` is not defined in any service file", name.escape_debug())))
}

/// The files to look into. One that the user named must exist, the usual ones may be missing.
fn candidates(file: Option<&str>, environment: &dyn Environment) -> Result<Vec<PathBuf>> {
    let named = match file {
        Some(file) => Some(file.to_owned()),
        None => environment.variable("PGSERVICEFILE")?.filter(|file| !file.is_empty()),
    };
    let own = match named {
        Some(file) => Some(PathBuf::from(file)),
        None => environment.home().map(|home| home.join(".pg_service.conf")).filter(|path| path.exists()),
    };
    let shared = environment.variable("PGSYSCONFDIR")?.map(|directory| Path::new(&directory).join("pg_service.conf"));
    Ok(own.into_iter().chain(shared.filter(|path| path.exists())).collect())
}

/// The pairs of one section, or none where the file has no such section.
fn parse(text: &str, name: &str) -> Result<Option<Vec<Pair>>> {
    let mut found: Option<Vec<Pair>> = None;
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(header) = line.strip_prefix('[') {
            if found.is_some() {
                break;
            }
            if header.strip_suffix(']') == Some(name) {
                found = Some(Vec::new());
            }
            continue;
        }
        let Some(pairs) = &mut found else { continue };
        match line.split_once('=') {
            Some(("service" | "servicefile", _)) => {
                return Err(Error::config(format!("line {number}: a service cannot refer to another one")));
            }
            Some((key, value)) => pairs.push((key.to_owned(), value.to_owned())),
            None => return Err(Error::config(format!("line {number}: expected key=value"))),
        }
    }
    Ok(found)
}

#[cfg(test)]
#[path = "tests/service.rs"]
mod tests;
