//! A program that runs.

use std::{
    collections::VecDeque,
    io::{self, ErrorKind},
    process::ExitStatus,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use doorbell::{HandlerError, Outcome};
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::{Child, ChildStderr, ChildStdin, ChildStdout, Command},
    task::JoinSet,
    time::timeout,
};

use super::{guard::Guard, program::Program, tally::Tally};

/// How much of the end of stderr is kept as the reason of a failure.
const TAIL_BYTES: usize = 4096;

/// A child of the program may hold its stderr open for ever; what comes later than this is not waited for.
const STDERR_GRACE: Duration = Duration::from_millis(200);

/// What `sysexits.h` calls EX_DATAERR and EX_TEMPFAIL.
const REJECT: i32 = 65;
const RETRY_LATER: i32 = 75;

/// Starts a program.
pub(super) struct Starter {
    pub(super) program: Program,
    pub(super) guard: Guard,
    pub(super) tally: Arc<Tally>,
}

impl Starter {
    /// Starts it, as this command of [`Program::command`]. Where there is no such program, handling is given up.
    pub(super) async fn start(&self, mut command: Command) -> Result<Started, HandlerError> {
        let mut child = match command.spawn() {
            Ok(child) => child,
            // It will not be there for the next message either; none should pay for that with its retries.
            Err(error) if is_missing(&error) => match self.tally.give_up(self.program.cannot_run(&error)).await {},
            Err(error) => return Err(error.into()),
        };
        let group = Group::of(&child, &self.guard);
        let (tail, mut following) = (Arc::<Tail>::default(), JoinSet::new());
        if let Some(stderr) = child.stderr.take() {
            following.spawn(tail.clone().follow(stderr));
        }
        Ok(Started { stdin: child.stdin.take(), stdout: child.stdout.take(), child, group, tail, following })
    }
}

fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied)
}

/// A program that was started, and has not been waited for. Dropped (time is up, a message was taken away, or the shutdown
/// cannot wait any longer), it is killed with all its children.
pub(super) struct Started {
    pub(super) stdin: Option<ChildStdin>,
    /// Where it is not passed on.
    pub(super) stdout: Option<ChildStdout>,
    child: Child,
    group: Group,
    tail: Arc<Tail>,
    following: JoinSet<()>,
}

impl Started {
    /// Waits for its end, which is what counts, not that of its stdin or stderr. Cancelling it kills nothing.
    pub(super) async fn wait(&mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// How it has ended, if it has.
    pub(super) fn has_ended(&mut self) -> io::Result<Option<ExitStatus>> {
        let ended = self.child.try_wait()?;
        if ended.is_some() {
            self.group.ended();
        }
        Ok(ended)
    }

    /// After it was waited for: the end of what it said on stderr since that was last forgotten.
    pub(super) async fn ended(mut self) -> String {
        self.group.ended();
        // What it said last is still in the pipe.
        let _ = timeout(STDERR_GRACE, self.following.join_next()).await;
        self.tail.text()
    }

    /// What it said on stderr so far is not about what comes now.
    pub(super) fn forget_stderr(&self) {
        self.tail.forget();
    }
}

/// What a program says by how it ends.
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
    fn ended(&mut self) {
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

    fn forget(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
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
