//! The system's table of processes, as far as signalling a server needs it.
//!
//! PostgreSQL's children leave the postmaster's process group (each calls `setsid`), so a group signal misses them.

use std::process::Command;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::time::sleep;

/// The living children of a process. Those that ended and were not yet waited for are left out.
pub(super) fn children(parent: u32) -> Vec<u32> {
    table().into_iter().filter(|p| p.parent == parent && !p.ended).map(|p| p.pid).collect()
}

/// Whether the process runs; one that ended and was not yet waited for does not.
pub(super) fn is_alive(pid: u32) -> bool {
    let process = if cfg!(target_os = "linux") {
        std::fs::read_to_string(format!("/proc/{pid}/stat")).ok().and_then(|line| from_stat(&line))
    } else {
        listed(&["-p", &pid.to_string()]).pop()
    };
    process.is_some_and(|process| !process.ended)
}

/// How often a process is looked at that is waited for.
pub(super) const PAUSE: Duration = Duration::from_millis(20);

/// Waits for the end of a process that is nobody's child here.
pub(super) async fn ended(pid: u32) {
    while is_alive(pid) {
        sleep(PAUSE).await;
    }
}

/// Signals a process; one that is gone already is no error, nothing is left to be signalled.
pub(super) fn signal(pid: u32, signal: Signal) {
    let _ = kill(Pid::from_raw(pid as i32), signal);
}

struct Process {
    pid: u32,
    parent: u32,
    ended: bool,
}

/// Linux has the table as files, and slim images often lack `ps`; elsewhere `ps` is part of the system.
fn table() -> Vec<Process> {
    if cfg!(target_os = "linux") {
        let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        return entries
            .filter_map(|entry| from_stat(&std::fs::read_to_string(entry.path().join("stat")).ok()?))
            .collect();
    }
    listed(&["-A"])
}

fn listed(which: &[&str]) -> Vec<Process> {
    let listing = Command::new("ps").args(which).args(["-o", "pid=,ppid=,state="]).output();
    let listing = listing.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    listing.lines().filter_map(|line| from_fields(line.split_whitespace())).collect()
}

/// One line of `/proc/<pid>/stat`: `pid (name) state ppid ...`, where the name may hold spaces and parentheses.
fn from_stat(line: &str) -> Option<Process> {
    let (pid, rest) = line.split_once(" (")?;
    let mut after = rest.rsplit_once(") ")?.1.split_whitespace();
    let state = after.next()?;
    from_fields([pid, after.next()?, state].into_iter())
}

fn from_fields<'a>(mut fields: impl Iterator<Item = &'a str>) -> Option<Process> {
    let pid = fields.next()?.parse().ok()?;
    let parent = fields.next()?.parse().ok()?;
    Some(Process { pid, parent, ended: fields.next()?.starts_with(['Z', 'X']) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_name_cannot_confuse_the_table() {
        let process = from_stat("17 (a) Z 9) S 4 17 17 0").unwrap();
        assert_eq!((process.pid, process.parent, process.ended), (17, 4, false));
    }

    #[test]
    fn a_child_is_listed_while_it_runs_and_not_after() {
        let mut child = Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        assert!(children(std::process::id()).contains(&child.id()));
        assert!(is_alive(child.id()));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!is_alive(child.id()));
    }
}
