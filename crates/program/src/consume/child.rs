//! A program that lives, and is given one batch after the other.

use std::{convert::Infallible, future::pending, io, process::ExitStatus, time::Duration};

use serde::Deserialize;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, copy, sink},
    process::{ChildStdin, ChildStdout},
    time::timeout,
};
use tracing::{debug, warn};

use super::started::Started;

/// What a program may say about the messages of a batch.
const SAID_BYTES_MAX: usize = 16 << 20;

/// One that waits for a batch. Dropped, it is killed with all its children.
pub(super) struct Child {
    started: Started,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    /// How many it was given, and how many of them it has ended.
    given: u64,
    ended: u64,
}

/// The line behind the last message of a batch, which the program prints when it has handled them. Numbered, so that whatever
/// else a program prints is not taken for it: that would complete messages that nobody has handled.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Mark {
    batch: u64,
}

/// Why a batch has not ended.
pub(super) enum Broken {
    /// It has closed its stdout, perhaps without a word about the batch.
    Ended { silent: bool },
    /// What it says cannot be understood, or is not to be had.
    Why(String),
}

impl Child {
    /// `None`: its pipes are missing.
    pub(super) fn of(mut started: Started) -> Option<Self> {
        let (stdin, stdout) = (started.stdin.take()?, BufReader::new(started.stdout.take()?));
        Some(Self { started, stdin, stdout, given: 0, ended: 0 })
    }

    /// Whether it can be given another batch: it has not ended since its last one, of which only this tells.
    pub(super) fn is_there(&mut self) -> bool {
        match self.started.has_ended() {
            Ok(None) => true,
            Ok(Some(status)) if status.success() => false,
            Ok(Some(status)) => {
                warn!(%status, "the program has ended between two batches; it is started again");
                false
            }
            Err(error) => {
                warn!(%error, "whether the program still runs is not known; it is started again");
                false
            }
        }
    }

    /// Gives it a batch, a line for each message. Returns what it says of them, lines. It reads and writes when it likes: what is
    /// in the way of one pipe never keeps the other from moving.
    pub(super) async fn handle(&mut self, lines: &[u8]) -> Result<Vec<u8>, Broken> {
        self.started.forget_stderr();
        self.given += 1;
        let mark = format!("{{\"batch\":{}}}\n", self.given);
        let Self { stdin, stdout, given, .. } = self;
        let feeding = async {
            let fed = async {
                stdin.write_all(lines).await?;
                stdin.write_all(mark.as_bytes()).await
            };
            // Whoever has closed it may still have something to say.
            if let Err(error) = fed.await {
                debug!(%error, "the program did not read its whole batch");
            }
            Ok(())
        };
        let ((), said) = tokio::try_join!(feeding, said(stdout, *given))?;
        self.ended += 1;
        Ok(said)
    }

    /// After it has closed its stdout: waits for its end. Returns how it ended, and the end of what it said on stderr during its batch.
    pub(super) async fn end(mut self) -> io::Result<(ExitStatus, String)> {
        drop((self.stdin, self.stdout));
        let status = self.started.wait().await?;
        Ok((status, self.started.ended().await))
    }

    /// Tells it to end, by the end of its stdin, and kills it when it has not ended in this time.
    pub(super) async fn end_within(self, limit: Duration) {
        let Self { mut started, stdin, mut stdout, .. } = self;
        drop(stdin);
        let reading = async {
            let _ = copy(&mut stdout, &mut sink()).await;
            pending::<Infallible>().await
        };
        let ended = async {
            tokio::select! {
                ended = started.wait() => ended,
                never = reading => match never {},
            }
        };
        match timeout(limit, ended).await {
            Ok(Ok(status)) => {
                let _ = started.ended().await;
                if !status.success() {
                    warn!(%status, "the program has ended badly when its stdin was closed");
                }
            }
            Ok(Err(error)) => warn!(%error, "how the program has ended is not known"),
            Err(_) => warn!("the program has not ended in time when its stdin was closed, and is killed"),
        }
    }

    /// Whether it has never ended a batch by its mark.
    pub(super) fn knows_no_mark(&self) -> bool {
        self.ended == 0
    }
}

/// What it prints until the mark of this batch.
async fn said(stdout: &mut BufReader<ChildStdout>, batch: u64) -> Result<Vec<u8>, Broken> {
    let mut said = Vec::new();
    loop {
        let begin = said.len();
        let left = SAID_BYTES_MAX.saturating_sub(begin);
        if left == 0 {
            return Err(Broken::Why(format!("it says more than {} MiB about a batch", SAID_BYTES_MAX >> 20)));
        }
        let read = stdout.take(left as u64).read_until(b'\n', &mut said).await;
        match read.map_err(|error| Broken::Why(format!("its stdout cannot be read: {error}")))? {
            0 => return Err(Broken::Ended { silent: said.trim_ascii().is_empty() }),
            _ => match serde_json::from_slice::<Mark>(&said[begin..]) {
                Ok(mark) if mark.batch == batch => {
                    said.truncate(begin);
                    return Ok(said);
                }
                Ok(mark) => return Err(Broken::Why(format!("it ends batch {} and was given {batch}", mark.batch))),
                Err(_) => {}
            },
        }
    }
}
