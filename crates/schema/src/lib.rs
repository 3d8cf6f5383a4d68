//! The schema of Doorbell, a message broker inside PostgreSQL, as text: what `doorbell migrate` applies.
//!
//! The files are those below `migrations`: `steps/…` are applied once and in their order; `code/…` is replaced whenever it
//! changed; `preamble`, `ownership` and `records` are what both are applied under; `adopt/…` takes tables of the integration
//! document over. In which order, and how, is the library's (`doorbell::migrate`, whose `script` is all of it in one piece).

#![warn(clippy::unwrap_used)]

include!(concat!(env!("OUT_DIR"), "/files.rs"));

/// The text of a file, by its name below `migrations`, without `.sql`.
///
/// ```
/// const CLAIM: &str = doorbell_schema::text("code/claim");
/// assert!(CLAIM.contains("create or replace function integration.claim("));
/// ```
///
/// # Panics
///
/// Where there is none of that name: in a constant, when that is compiled.
pub const fn text(name: &str) -> &'static str {
    let mut at = 0;
    while at < FILES.len() {
        if is_same(FILES[at].0.as_bytes(), name.as_bytes()) {
            return FILES[at].1;
        }
        at += 1;
    }
    panic!("there is no such file below migrations")
}

const fn is_same(one: &[u8], other: &[u8]) -> bool {
    let mut at = 0;
    while at < one.len() && at < other.len() && one[at] == other[at] {
        at += 1;
    }
    at == one.len() && at == other.len()
}
