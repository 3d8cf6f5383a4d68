//! Whether a server that was started accepts connections yet, and what to say when it never will.

use std::path::Path;
use std::time::Duration;

use tokio::time::sleep;

use crate::error::{Error, ErrorKind};

/// How often the server's status is looked at: well below the time of a start.
const PAUSE: Duration = Duration::from_millis(5);

/// How much of the log's end goes into an error.
const LOG_LINES_MAX: usize = 20;

/// Waits until the postmaster says in its `postmaster.pid` that it accepts connections.
///
/// Reading the file instead of connecting keeps "the database system is starting up" out of the log. It waits for
/// ever when the server does not come up: bound it by a deadline and by the end of the process.
pub(super) async fn ready(data: &Path, pid: u32) {
    while !Status::read(data).is_some_and(|status| status.pid == pid && status.ready) {
        sleep(PAUSE).await;
    }
}

/// What a postmaster says of itself in its data directory. Stale after a crash.
pub(super) struct Status {
    pub(super) pid: u32,
    pub(super) ready: bool,
}

impl Status {
    /// The file's first line is the process id, its eighth the status, padded with blanks.
    pub(super) fn read(data: &Path) -> Option<Self> {
        let text = std::fs::read_to_string(data.join("postmaster.pid")).ok()?;
        let mut lines = text.lines();
        let pid = lines.next()?.trim().parse().ok()?;
        Some(Self { pid, ready: lines.nth(6).is_some_and(|status| status.trim() == "ready") })
    }
}

/// The error of a server that did not start: why, and the end of its log.
pub(super) fn failure(why: &str, log: &Path) -> Error {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    let end = lines[lines.len().saturating_sub(LOG_LINES_MAX)..].join("\n  ");
    let end = if end.is_empty() { "it wrote no log".to_owned() } else { format!("its log ends with\n  {end}") };
    Error::new(ErrorKind::Io, format!("{why}; {end}"))
}
