//! Where it was measured, and what.

use std::fs::read_to_string;

use tokio::process::Command;

/// The machine, as far as it tells.
#[derive(Clone, Debug, Default)]
pub(super) struct Machine {
    pub(super) cpu: String,
    pub(super) cores: usize,
    pub(super) memory_gib: f64,
    pub(super) system: String,
    /// How many processes wanted to run when it began: other work makes figures worse.
    pub(super) load: String,
}

impl Machine {
    /// By the files that Linux has; words for "unknown" elsewhere.
    pub(super) fn here() -> Self {
        let unknown = || "unknown".to_owned();
        let field = |path: &str, name: &str| {
            let text = read_to_string(path).unwrap_or_default();
            let line = text.lines().find(|line| line.starts_with(name))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let memory = field("/proc/meminfo", "MemTotal");
        let kib = memory.and_then(|text| text.split_whitespace().next()?.parse::<f64>().ok()).unwrap_or(0.0);
        let version =
            read_to_string("/proc/sys/kernel/osrelease").map_or_else(|_| unknown(), |text| text.trim().to_owned());
        let load = read_to_string("/proc/loadavg").unwrap_or_default();
        Self {
            cpu: field("/proc/cpuinfo", "model name").unwrap_or_else(unknown),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            memory_gib: kib / 1024.0 / 1024.0,
            system: format!("{} {version}", std::env::consts::OS),
            load: load.split_whitespace().next().map_or_else(unknown, str::to_owned),
        }
    }
}

/// The commit that was measured, as git has it; a plus when there is more in the files.
pub(super) async fn commit() -> String {
    let git = async |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).kill_on_drop(true).output().await.ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    match git(&["rev-parse", "--short", "HEAD"]).await {
        Some(commit) => {
            let changed =
                git(&["status", "--porcelain", "--untracked-files=no"]).await.is_some_and(|files| !files.is_empty());
            commit + if changed { "+" } else { "" }
        }
        None => format!("version {}", env!("CARGO_PKG_VERSION")),
    }
}
