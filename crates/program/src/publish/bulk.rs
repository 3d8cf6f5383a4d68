//! Many messages, all or none.

use std::{path::Path, time::Duration};

use doorbell::{Broker, Message};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::{
    fs::File,
    io::{AsyncBufRead, BufReader, stdin},
};

use super::{
    ids::Ids,
    lines::{Line, Lines},
};
use crate::exit::{Exit, Failure};

/// What travels in one statement; bounds the memory as well.
const CHUNK_MESSAGES: usize = 2000;
const CHUNK_BYTES: usize = 8 << 20;

/// Publishes every line of the file, else of stdin, in one transaction; `message` makes one of a line, and says whose it is.
pub(super) async fn publish(
    file: Option<&Path>,
    broker: &Broker,
    message: &impl Fn(&str) -> Result<(String, Message), Failure>,
) -> Result<Ids, Failure> {
    let Some(path) = file.filter(|path| path.as_os_str() != "-") else {
        let progress = ProgressBar::no_length().with_style(style("{spinner} {msg} {elapsed} {binary_bytes_per_sec}"));
        return all(message, broker, BufReader::new(stdin()), progress).await;
    };
    let unreadable = |error| Failure::from(error).context(format_args!("cannot read {}", path.display()));
    let file = File::open(path).await.map_err(unreadable)?;
    let bytes = file.metadata().await.map_err(unreadable)?.len();
    let progress = ProgressBar::new(bytes).with_style(style("{bar:40} {percent:>3}% {msg} {eta} left"));
    all(message, broker, BufReader::new(file), progress).await
}

async fn all<R>(
    message: &impl Fn(&str) -> Result<(String, Message), Failure>,
    broker: &Broker,
    input: R,
    bar: ProgressBar,
) -> Result<Ids, Failure>
where
    R: AsyncBufRead + Unpin,
{
    let _cleared = Cleared(&bar);
    bar.enable_steady_tick(Duration::from_millis(100));
    let mut lines = Lines::new(input);
    let mut ids = Ids::default();
    // The transaction begins when the first chunk is full: whoever types slowly does not hold one open meanwhile.
    let mut chunk = Chunk::read(message, &mut lines).await?;
    if chunk.messages.is_empty() {
        return Ok(ids);
    }
    let mut client = broker.client().await?;
    let tx = client.transaction().await?;
    let isolation = "set transaction isolation level read committed";
    tx.batch_execute(isolation).await.map_err(doorbell::Error::from)?;
    while !chunk.messages.is_empty() {
        let mut rest = &chunk.messages[..];
        for sources in chunk.sources.chunk_by(|one, next| one == next) {
            let (messages, after) = rest.split_at(sources.len());
            rest = after;
            let published = broker.producer(&sources[0]).publish_many_in(&tx, messages).await;
            let published = published.map_err(|error| {
                let lines = format_args!("nothing is published; lines {} to {}", chunk.first, chunk.last);
                Failure::from(error).context(lines)
            })?;
            published.into_iter().for_each(|id| ids.push(id));
        }
        bar.inc(chunk.bytes as u64);
        bar.set_message(format!("{} messages", ids.len()));
        chunk = Chunk::read(message, &mut lines).await?;
    }
    tx.commit().await.map_err(doorbell::Error::from)?;
    Ok(ids)
}

/// Messages that travel together.
struct Chunk {
    /// Whose each message is.
    sources: Vec<String>,
    messages: Vec<Message>,
    bytes: usize,
    first: u64,
    last: u64,
}

impl Chunk {
    /// Reads until it is full or the input ends; empty at the end.
    async fn read<R>(
        message: &impl Fn(&str) -> Result<(String, Message), Failure>,
        lines: &mut Lines<R>,
    ) -> Result<Self, Failure>
    where
        R: AsyncBufRead + Unpin,
    {
        let nothing = |failure: Failure| match failure.exit {
            Exit::BadData => failure.context("nothing is published"),
            _ => failure,
        };
        let mut chunk = Self { sources: Vec::new(), messages: Vec::new(), bytes: 0, first: 0, last: 0 };
        while chunk.messages.len() < CHUNK_MESSAGES && chunk.bytes < CHUNK_BYTES {
            let Some(Line { number, text, bytes }) = lines.next().await.map_err(nothing)? else { break };
            let (source, message) =
                message(text).map_err(|failure| nothing(failure.context(format_args!("line {number}"))))?;
            if chunk.messages.is_empty() {
                chunk.first = number;
            }
            chunk.last = number;
            chunk.bytes += bytes;
            chunk.sources.push(source);
            chunk.messages.push(message);
        }
        Ok(chunk)
    }
}

/// Takes the bar off the screen, however publishing ends.
struct Cleared<'a>(&'a ProgressBar);

impl Drop for Cleared<'_> {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
