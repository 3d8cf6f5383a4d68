//! Logs on stderr.

use std::io::stderr;

use clap::ValueEnum;
use tracing::Level;
use tracing_subscriber::{
    EnvFilter, Layer, filter::filter_fn, fmt, layer::SubscriberExt, registry, util::SubscriberInitExt,
};

use crate::output;

/// How a line of log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people
    Text,
    /// One JSON object a line, its fields beside the message, for log collectors
    Json,
}

/// Sends logs to stderr: what `RUST_LOG` says, or else everything from `usual` on, `verbose` levels more.
pub(crate) fn start(usual: Level, verbose: u8, format: LogFormat) {
    let levels = [Level::ERROR, Level::WARN, Level::INFO, Level::DEBUG, Level::TRACE];
    let usual = levels.iter().position(|level| *level == usual).unwrap_or_default();
    let level = levels[(usual + usize::from(verbose)).min(levels.len() - 1)];
    let filter = EnvFilter::builder().with_default_directive(level.into()).from_env_lossy();
    // Whoever waits for it is told, whatever else is not.
    let filter = filter.add_directive("doorbell_server::fetch=info".parse().expect("a directive"));
    // Below info the driver logs the parameters of statements: payloads. Spans are for tracers, of which there is none here.
    let no_payloads = filter_fn(|metadata| {
        !metadata.is_span() && (*metadata.level() <= Level::INFO || !metadata.target().starts_with("tokio_postgres"))
    });
    let lines = fmt::layer().with_writer(stderr).with_ansi(output::colours(&stderr()));
    let lines = match format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.json().flatten_event(true).with_current_span(false).with_span_list(false).boxed(),
    };
    registry().with(lines).with(filter).with(no_payloads).init();
}
