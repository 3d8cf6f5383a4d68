//! A program per message.

use std::{
    collections::VecDeque,
    convert::Infallible,
    future::pending,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use doorbell::{Delivery, Handler, HandlerError, HandlerResult, Outcome};
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::{Child, ChildStderr, ChildStdin, Command},
    task::JoinSet,
    time::timeout,
};

use super::{guard::Guard, tally::Tally};
use crate::exit::{Exit, Failure};

/// How much of the end of stderr is kept as the reason of a failure.
const TAIL_BYTES: usize = 4096;

/// What a program may say about the messages of a batch.
pub(super) const SAID_BYTES_MAX: u64 = 16 << 20;

/// A child of the program may hold its stderr open for ever; what comes later than this is not waited for.
const STDERR_GRACE: Duration = Duration::from_millis(200);

/// What `sysexits.h` calls EX_DATAERR and EX_TEMPFAIL.
const REJECT: i32 = 65;
const RETRY_LATER: i32 = 75;

/// A program and its arguments.
pub(super) struct Program {
    pub(super) path: PathBuf,
    pub(super) arguments: Vec<String>,
    pub(super) environment: Environment,
}

/// What a program gets of our own environment.
pub(super) struct Environment {
    /// Nothing but what is named.
    pub(super) cleared: bool,
    /// This in any case.
    pub(super) named: Vec<String>,
}

/// Runs it for every message.
pub(super) struct Exec {
    program: Program,
    guard: Guard,
    tally: Arc<Tally>,
}

impl Exec {
    pub(super) fn new(program: Program, guard: Guard, tally: Arc<Tally>) -> Self {
        Self { program, guard, tally }
    }

    pub(super) fn tally(&self) -> &Arc<Tally> {
        &self.tally
    }

    /// Its command, which knows of no message yet.
    pub(super) fn base(&self) -> Command {
        let mut command = Command::new(&self.program.path);
        command.args(&self.program.arguments);
        self.program.environment.hand_on(&mut command);
        // A group of its own: Ctrl-C reaches us alone, and a kill reaches all of its children.
        command.process_group(0).stdin(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn command(&self, delivery: &Delivery) -> Result<Command, serde_json::Error> {
        let mut command = self.base();
        command
            .env("DOORBELL_ID", delivery.id.to_string())
            .env("DOORBELL_ATTEMPT", delivery.attempt.to_string())
            .env("DOORBELL_SOURCE", &delivery.source)
            .env("DOORBELL_TARGET", &delivery.target)
            .env("DOORBELL_TYPE", &delivery.record_type)
            .env("DOORBELL_PRIORITY", delivery.priority.to_string())
            .env("DOORBELL_EFFECT_KEY", delivery.effect_key("exec"))
            .env("DOORBELL_RETRY_COUNT", delivery.retry_count.to_string())
            .env("DOORBELL_HEADERS", serde_json::to_string(&delivery.headers)?)
            .env_remove("TRACEPARENT");
        if let Some(traceparent) = delivery.headers.get("traceparent") {
            command.env("TRACEPARENT", traceparent);
        }
        Ok(command)
    }

    /// Runs it to its end, with this as its stdin. Dropped (time is up, a message was taken away, or the shutdown cannot wait any
    /// longer), it kills the program with all its children.
    pub(super) async fn run(&self, mut command: Command, input: &[u8]) -> Result<Ended, HandlerError> {
        let mut child = match command.spawn() {
            Ok(child) => child,
            // It will not be there for the next message either; none should pay for that with its retries.
            Err(error) if is_missing(&error) => match self.tally.give_up(self.program.cannot_run(&error)).await {},
            Err(error) => return Err(error.into()),
        };
        let group = Group::of(&child, &self.guard);
        let tail = Arc::new(Tail::default());
        let (status, stdout) = follow(&mut child, input, &tail).await?;
        group.ended();
        Ok(Ended { status, stdout, stderr: tail.text() })
    }
}

/// How a program ended, and what it said; of its stderr the end.
pub(super) struct Ended {
    pub(super) status: ExitStatus,
    /// Where it is not passed on.
    pub(super) stdout: Vec<u8>,
    pub(super) stderr: String,
}

fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied)
}

impl Program {
    /// Fails where there is no such program now, before any message is taken for it.
    pub(super) fn must_be_there(&self) -> Result<(), Failure> {
        let names_file = self.path.components().count() > 1 || self.path.is_absolute();
        let found = if names_file { is_program(&self.path) } else { self.on_the_path() };
        found.map_err(|error| self.cannot_run(&error))
    }

    fn on_the_path(&self) -> io::Result<()> {
        let has_path = !self.environment.cleared || self.environment.named.iter().any(|name| name == "PATH");
        let path = std::env::var_os("PATH").filter(|_| has_path).unwrap_or_else(|| "/bin:/usr/bin".into());
        let mut found = std::env::split_paths(&path).map(|directory| is_program(&directory.join(&self.path)));
        match found.find(Result::is_ok) {
            Some(found) => found,
            None => Err(io::Error::new(ErrorKind::NotFound, "there is no such program on the PATH")),
        }
    }

    fn cannot_run(&self, error: &io::Error) -> Failure {
        Failure::new(Exit::Usage, format!("cannot run {}: {error}", self.path.display()))
    }
}

fn is_program(path: &Path) -> io::Result<()> {
    let about = std::fs::metadata(path)?;
    if about.is_dir() {
        return Err(io::Error::new(ErrorKind::PermissionDenied, "it is a directory"));
    }
    nix::unistd::access(path, nix::unistd::AccessFlags::X_OK).map_err(io::Error::from)
}

impl Environment {
    fn hand_on(&self, command: &mut Command) {
        if self.cleared {
            command.env_clear();
        }
        for (name, value) in std::env::vars_os() {
            let bytes = name.as_encoded_bytes();
            if self.named.iter().any(|named| named.as_bytes() == bytes) {
                command.env(name, value);
            } else if bytes.starts_with(b"PG") || bytes == b"DATABASE_URL" || bytes == b"DOORBELL_DATABASE_URL" {
                // What handles a message has no business in the database that holds all of them.
                command.env_remove(name);
            }
        }
    }
}

#[async_trait]
impl Handler for Exec {
    async fn handle(&self, delivery: Delivery) -> HandlerResult {
        let ended = self.run(self.command(&delivery)?, delivery.payload().as_bytes()).await?;
        Ok(outcome(ended.status, &ended.stderr))
    }
}

/// Feeds the program, follows what it says, waits for its end. Its own end is what counts, not the end of stdin or stderr; of its
/// stdout, where it is not passed on, all that is written is read.
async fn follow(child: &mut Child, input: &[u8], tail: &Arc<Tail>) -> io::Result<(ExitStatus, Vec<u8>)> {
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let mut following = JoinSet::new();
    if let Some(stderr) = stderr {
        following.spawn(tail.clone().follow(stderr));
    }
    let feeding = async {
        if let Some(stdin) = stdin {
            feed(stdin, input).await;
        }
        pending::<Infallible>().await
    };
    let reading = async {
        let mut said = Vec::new();
        if let Some(stdout) = stdout {
            stdout.take(SAID_BYTES_MAX).read_to_end(&mut said).await?;
        }
        Ok::<_, io::Error>(said)
    };
    let (status, said) = tokio::select! {
        ended = async { tokio::try_join!(child.wait(), reading) } => ended?,
        never = feeding => match never {},
    };
    // What it said last is still in the pipe.
    let _ = timeout(STDERR_GRACE, following.join_next()).await;
    Ok((status, said))
}

/// A program need not read its payload, so that a closed pipe is fine; it may be cut short in the middle, too.
async fn feed(mut stdin: ChildStdin, payload: &[u8]) {
    if let Err(error) = stdin.write_all(payload).await {
        tracing::debug!(%error, "the program did not read its whole payload");
    }
}

pub(super) fn outcome(status: ExitStatus, stderr: &str) -> Outcome {
    let said = |what: String| if stderr.is_empty() { what } else { format!("{what}: {stderr}") };
    match status.code() {
        Some(0) => Outcome::Done,
        Some(REJECT) => Outcome::reject(said(format!("rejected with exit code {REJECT}"))),
        Some(RETRY_LATER) => Outcome::retry(said(format!("put off with exit code {RETRY_LATER}"))),
        Some(code) => Outcome::retry(said(format!("failed with exit code {code}"))),
        // "signal: 9 (SIGKILL)"
        None => Outcome::retry(said(format!("killed by a {status}"))),
    }
}

/// The process group of a program that runs; dropped, all of it is killed.
struct Group {
    leader: Option<Pid>,
    guard: Guard,
}

impl Group {
    fn of(leader: &Child, guard: &Guard) -> Self {
        let leader = leader.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
        leader.inspect(|group| guard.watch(*group));
        Self { leader, guard: guard.clone() }
    }

    /// The leader has been waited for: its number may belong to somebody else from now on.
    fn ended(mut self) {
        if let Some(group) = self.leader.take() {
            self.guard.forget(group);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.leader {
            // Not waited for yet, so the number is still its own. Fails only when there is nobody left to kill.
            let _ = killpg(group, Signal::SIGKILL);
            self.guard.forget(group);
        }
    }
}

/// The last bytes of a stderr, which is passed on as a whole.
#[derive(Default)]
struct Tail(Mutex<VecDeque<u8>>);

impl Tail {
    async fn follow(self: Arc<Self>, mut from: ChildStderr) {
        let mut read = [0; 1024];
        let mut stderr = tokio::io::stderr();
        while let Ok(count @ 1..) = from.read(&mut read).await {
            // Kept first: our own stderr may block or be gone.
            self.keep(&read[..count]);
            let _ = stderr.write_all(&read[..count]).await;
        }
    }

    fn keep(&self, bytes: &[u8]) {
        let mut tail = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tail.extend(bytes);
        let surplus = tail.len().saturating_sub(TAIL_BYTES);
        tail.drain(..surplus);
    }

    fn text(&self) -> String {
        let mut tail = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(tail.make_contiguous()).trim().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_end_of_stderr_is_kept_and_it_need_not_be_text() {
        let tail = Tail::default();
        for _ in 0..3 {
            tail.keep(&[b'x'; TAIL_BYTES]);
        }
        tail.keep(b"the \xff end\n");
        assert!(tail.text().ends_with("the \u{fffd} end"));
        assert!(tail.0.lock().unwrap().len() == TAIL_BYTES);
    }
}
