//! Bringing the schema up to date.
//!
//! `migrations/steps` makes tables and is applied once, `migrations/code` holds every function, view and trigger in the
//! version in force and is applied wherever another one is. One lock, checksums, and a record of what all of it looked like.

/// Files below `migrations/`, by name.
macro_rules! files {
    ($($file:literal)*) => {
        &[$(($file, doorbell_schema::text($file))),*]
    };
}

mod adopt;
mod apply;
mod code;
mod release;
mod replace;
mod script;
mod session;

use doorbell_schema::text;
use sha2::{Digest, Sha256};

pub(crate) use adopt::look;
pub use adopt::{Adopt, Adoption};
pub(crate) use apply::{run, status};
pub use code::CODE;
pub(crate) use code::{Kind, Part, parts};
pub use script::script;

pub use crate::schema::Schema;

/// The steps, in order: step 1 is the first. The text is part of the contract once released: an altered file is refused.
pub const STEPS: &[(&str, &str)] = files! { "steps/0001_tables" "steps/0002_set_aside" "steps/0003_grants" "steps/0004_topics"
"steps/0005_schedules" "steps/0006_requests" "steps/0007_captures" "steps/0008_extracts" "steps/0009_contracts" "steps/0010_handling"
"steps/0011_coalescing" "steps/0012_max_wait" };

/// What the schema is made, compared and repaired under, at the beginning of a transaction.
pub(crate) const PREAMBLE: &str = text("preamble");
/// The tables that say which steps and which code are in force.
const RECORDS: &str = text("records");
/// Refuses a schema that is not the migrating role's, and acts as its owner from then on.
const OWNERSHIP: &str = text("ownership");
/// Whenever something was applied: rights to what is new.
const RENEW_RIGHTS: &str = "select integration.renew_rights()";
/// Each part of the schema and a hash of its definition, which the doctor compares with what was recorded after migrating.
pub(crate) const FINGERPRINTS: &str = include_str!("fingerprints.sql");
/// Definitions that the server writes say something only to servers of the same version.
pub(crate) const SERVER: &str = "current_setting('server_version_num')::integer";

/// What [`Broker::migrate`](crate::Broker::migrate) did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// Steps applied now, in order, and `code` where it was replaced; empty when the schema was up to date.
    pub applied: Vec<&'static str>,
    /// The schema's version afterwards: its number of steps.
    pub version: i32,
    /// What became of tables that were there before Doorbell; see [`Broker::adopt`](crate::Broker::adopt).
    pub adopted: Option<Adoption>,
}

/// Where a database stands.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Status {
    /// The schema's version: its number of steps; 0: there is none.
    pub version: i32,
    /// Steps that are missing, and `code` where another one is in force.
    pub pending: Vec<&'static str>,
    /// Tables are in the way that no migration made: the schema can be made only by
    /// [`Broker::adopt`](crate::Broker::adopt).
    pub is_occupied: bool,
}

/// SHA-256 of the text with unix line ends, so that a checkout's line endings do not matter.
fn checksum(sql: &str) -> String {
    let digest = Sha256::digest(sql.replace("\r\n", "\n"));
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The name of a step without its directory.
fn short(file: &'static str) -> &'static str {
    file.rsplit('/').next().unwrap_or(file)
}
