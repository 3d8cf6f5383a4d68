//! All rows, once, page by page.

use std::{io::IsTerminal, time::Duration};

use clap::Args;
use doorbell::operate::{Extracted, Operator};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;

use super::what::What;
use crate::{
    exit::{Exit, Failure},
    output,
};

/// How often a page is tried that locks stand in the way of.
const TRIES: u32 = 8;

#[derive(Args, Debug)]
pub(super) struct Run {
    #[command(flatten)]
    what: What,

    /// How many rows in one transaction
    #[arg(long, value_name = "ROWS", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    chunk: u32,

    /// Go on where a run of that name was broken off
    #[arg(long)]
    resume: bool,
}

impl Run {
    pub(super) async fn run(self, operator: &Operator, as_json: bool) -> Result<Exit, Failure> {
        let foreign = self.what.foreign()?;
        let wanted = self.what.wanted(None);
        let name = output::printable(&wanted.name);
        let before = operator.extracts().await?.into_iter().find(|row| row.name == wanted.name);
        match before {
            Some(row) if row.ended_at.is_some() && row.watermark.is_none() => {
                operator.forget_extract(&wanted.name).await?;
            }
            Some(row) if !self.resume => {
                let what = format!(
                    "{name} was broken off after {} messages: --resume goes on, doorbell extract remove forgets it",
                    row.published
                );
                return Err(Failure::new(Exit::Usage, what));
            }
            _ => {}
        }
        match &foreign {
            Some(source) => operator.extract_from(source, &wanted).await?,
            None => operator.extract(&wanted).await?,
        };
        let expected = operator.extracts().await?.into_iter().find(|row| row.name == wanted.name);
        let expected = expected.and_then(|row| Some(row.estimate? - row.published)).unwrap_or_default();
        let bar = ProgressBar::hidden();
        bar.set_length(expected.max(1) as u64);
        let more = async || match &foreign {
            Some(source) => operator.extract_more_from(source, &wanted.name, self.chunk).await,
            None => operator.extract_more(&wanted.name, self.chunk).await,
        };
        let done = pages(more, &wanted.name, &bar).await;
        bar.finish_and_clear();
        let (published, skipped) = done?;
        if as_json {
            output::json(&json!({ "extract": wanted.name, "published": published, "skipped": skipped }))?;
        } else if skipped > 0 {
            eprintln!(
                "{published} messages published; {skipped} rows cannot be, which the audit log has as extract_skipped"
            );
        } else {
            eprintln!("{published} messages published");
        }
        Ok(if skipped > 0 { Exit::CheckFailed } else { Exit::Done })
    }
}

/// Page by page until there are no more; a page that failed because of locks was undone, and is tried again.
async fn pages(
    more: impl AsyncFn() -> doorbell::Result<Option<Extracted>>,
    name: &str,
    bar: &ProgressBar,
) -> Result<(u64, u64), Failure> {
    let (mut published, mut skipped, mut tries) = (0, 0, 0);
    loop {
        match more().await {
            Ok(Some(Extracted { published: more, skipped: refused, is_done, .. })) => {
                tries = 0;
                published += more;
                skipped += refused;
                bar.inc(more + refused);
                if is_done {
                    return Ok((published, skipped));
                }
                show(bar);
            }
            Ok(None) => {
                let what = format!("somebody else runs {}, or it is paused", output::printable(name));
                return Err(Failure::new(Exit::Temporary, what));
            }
            Err(error) if error.is_transient() && tries < TRIES => {
                tries += 1;
                tokio::time::sleep(Duration::from_millis(50) * 2_u32.pow(tries)).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// From the first page on that is not the last.
fn show(bar: &ProgressBar) {
    if bar.is_hidden() && std::io::stderr().is_terminal() {
        let style = ProgressStyle::with_template("{bar:40} {pos} of about {len} rows, {eta} left");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.set_draw_target(ProgressDrawTarget::stderr());
        bar.enable_steady_tick(Duration::from_millis(100));
    }
}
