//! Logs on stderr.

use std::io::{IsTerminal, stderr};

use tracing::Level;
use tracing_subscriber::{EnvFilter, filter::filter_fn, fmt, layer::SubscriberExt, registry, util::SubscriberInitExt};

/// Sends logs to stderr: what `RUST_LOG` says, or else everything from `usual` on, `verbose` levels more.
pub(crate) fn start(usual: Level, verbose: u8) {
    let levels = [Level::ERROR, Level::WARN, Level::INFO, Level::DEBUG, Level::TRACE];
    let usual = levels.iter().position(|level| *level == usual).unwrap_or_default();
    let level = levels[(usual + usize::from(verbose)).min(levels.len() - 1)];
    let filter = EnvFilter::builder().with_default_directive(level.into()).from_env_lossy();
    // Below info the driver logs the parameters of statements: payloads.
    let no_payloads =
        filter_fn(|metadata| *metadata.level() <= Level::INFO || !metadata.target().starts_with("tokio_postgres"));
    let colours = stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    registry().with(filter).with(no_payloads).with(fmt::layer().with_writer(stderr).with_ansi(colours)).init();
}
