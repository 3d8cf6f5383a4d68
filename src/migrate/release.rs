//! What is to be done to a database, given what it says of itself, and for whom it is too new.

use super::{STEPS, checksum, code, short};
use crate::error::{Error, ErrorKind, Result};

/// Recorded beside everything that is applied.
pub(super) const PROGRAM: &str = env!("CARGO_PKG_VERSION");
/// What the code is called beside the names of steps.
pub(super) const CODE_NAME: &str = "code";

/// What a database says of itself; without the schema nothing.
#[derive(Clone, Debug, Default)]
pub(super) struct Recorded {
    /// The checksums of the steps, in order.
    pub(super) steps: Vec<String>,
    /// The checksum of the code, and the program that put it there.
    pub(super) code: Option<(String, String)>,
}

/// What is to be done.
#[derive(Clone, Debug)]
pub(super) struct Missing {
    pub(super) steps: &'static [(&'static str, &'static str)],
    pub(super) code: bool,
}

impl Missing {
    const NOTHING: Self = Self { steps: &[], code: false };

    pub(super) fn names(&self) -> Vec<&'static str> {
        self.steps.iter().map(|(name, _)| short(name)).chain(self.code.then_some(CODE_NAME)).collect()
    }
}

impl Recorded {
    pub(super) fn version(&self) -> i32 {
        self.steps.len() as i32
    }

    /// What this program has to do, or why it must not.
    ///
    /// The schema of a newer program is left alone. Up to the next minor version it keeps every signature that this
    /// program calls, so both run side by side while a fleet is renewed.
    pub(super) fn missing(&self) -> Result<Missing> {
        if let Some((_, program)) = &self.code
            && is_newer(program, PROGRAM)
        {
            return match is_kept_for(PROGRAM, program) {
                true => Ok(Missing::NOTHING),
                false => Err(newer(&format!("that of doorbell {program}, this is {PROGRAM}"))),
            };
        }
        for (at, stored) in self.steps.iter().enumerate() {
            let Some((name, sql)) = STEPS.get(at) else {
                return Err(newer(&format!("at version {}, this program's is {}", self.steps.len(), STEPS.len())));
            };
            if checksum(sql) != *stored {
                let what = format!("step {} is not the one that was applied to this database", short(name));
                return Err(Error::new(ErrorKind::Schema, what));
            }
        }
        let code = self.code.as_ref().is_none_or(|(stored, _)| *stored != code::checksum_of_all());
        Ok(Missing { steps: &STEPS[self.steps.len()..], code })
    }
}

fn newer(what: &str) -> Error {
    Error::new(ErrorKind::Schema, format!("the schema is newer than this program ({what}): use a newer doorbell"))
}

fn is_newer(one: &str, other: &str) -> bool {
    numbers(one) > numbers(other)
}

/// Whether the schema of a newer program still has what an older one calls.
fn is_kept_for(older: &str, newer: &str) -> bool {
    let ([major, minor, _], [newer_major, newer_minor, _]) = (numbers(older), numbers(newer));
    major == newer_major && newer_minor <= minor + 1
}

fn numbers(version: &str) -> [u32; 3] {
    let mut numbers = version.split(['.', '-', '+']).map(|number| number.parse().unwrap_or(0));
    [0; 3].map(|_| numbers.next().unwrap_or(0))
}

#[cfg(test)]
#[path = "tests/release.rs"]
mod tests;
