//! A program per message.

use std::{
    convert::Infallible,
    future::pending,
    process::{ExitStatus, Stdio},
};

use doorbell::{Delivery, HandlerError, HandlerResult, Message, Outcome, Replier};
use serde_json::value::RawValue;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::{ChildStdin, Command},
};

use super::started::{Starter, outcome};

/// More than a reply may have.
const REPLY_BYTES_MAX: u64 = Message::PAYLOAD_BYTES_MAX as u64 + 1;

/// Runs it for every message.
pub(super) struct Exec(pub(super) Starter);

/// How a program ended, and what it said.
enum Ran {
    Ended {
        status: ExitStatus,
        /// Where it is not passed on.
        stdout: Vec<u8>,
        /// The end of it.
        stderr: String,
    },
    /// More on its stdout than a reply may have.
    SaysTooMuch,
}

impl Exec {
    /// What the program prints is the reply, where somebody waits for one. Dropped, it kills the program with all its children.
    pub(super) async fn handle(&self, delivery: Delivery, replier: Replier) -> HandlerResult {
        let _counted = self.0.tally.counted(1);
        let mut command = self.command(&delivery)?;
        let is_asked = delivery.wants_reply();
        if is_asked {
            command.env("DOORBELL_REPLY", "1").stdout(Stdio::piped());
        }
        match self.run(command, delivery.payload().as_bytes()).await? {
            Ran::SaysTooMuch => {
                let most = REPLY_BYTES_MAX - 1;
                Ok(Outcome::reject(format!("what it prints, its reply, is over the limit of {most} bytes")))
            }
            Ran::Ended { status, stdout, stderr } => match outcome(status, &stderr) {
                Outcome::Done if is_asked => reply(&replier, &stdout).await,
                outcome => Ok(outcome),
            },
        }
    }

    fn command(&self, delivery: &Delivery) -> Result<Command, serde_json::Error> {
        let mut command = self.0.program.command();
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
            .env_remove("DOORBELL_REPLY")
            .env_remove("TRACEPARENT");
        if let Some(traceparent) = delivery.headers.get("traceparent") {
            command.env("TRACEPARENT", traceparent);
        }
        Ok(command)
    }

    /// Runs it to its end, with this as its stdin. Its own end is what counts, not the end of stdin or stderr; of its stdout,
    /// where it is not passed on, all that is written is read.
    async fn run(&self, command: Command, input: &[u8]) -> Result<Ran, HandlerError> {
        let mut started = self.0.start(command).await?;
        let (stdin, stdout) = (started.stdin.take(), started.stdout.take());
        let feeding = async {
            if let Some(stdin) = stdin {
                feed(stdin, input).await;
            }
            pending::<Infallible>().await
        };
        let reading = async {
            let mut said = Vec::new();
            if let Some(stdout) = stdout {
                stdout.take(REPLY_BYTES_MAX).read_to_end(&mut said).await.map_err(Some)?;
            }
            // None: there is no point in its going on.
            if said.len() as u64 == REPLY_BYTES_MAX { Err(None) } else { Ok(said) }
        };
        let waiting = async { started.wait().await.map_err(Some) };
        let ended = tokio::select! {
            ended = async { tokio::try_join!(waiting, reading) } => ended,
            never = feeding => match never {},
        };
        match ended {
            Ok((status, stdout)) => Ok(Ran::Ended { status, stdout, stderr: started.ended().await }),
            Err(None) => Ok(Ran::SaysTooMuch),
            Err(Some(error)) => Err(error.into()),
        }
    }
}

/// A program need not read its payload, so that a closed pipe is fine; it may be cut short in the middle, too.
async fn feed(mut stdin: ChildStdin, payload: &[u8]) {
    if let Err(error) = stdin.write_all(payload).await {
        tracing::debug!(%error, "the program did not read its whole payload");
    }
}

/// Completes a request with what the program printed: nothing is no reply.
async fn reply(replier: &Replier, stdout: &[u8]) -> HandlerResult {
    if stdout.trim_ascii().is_empty() {
        return Ok(Outcome::Done);
    }
    match serde_json::from_slice::<&RawValue>(stdout) {
        Ok(reply) => Ok(replier.reply(reply).await?),
        Err(error) => Ok(Outcome::reject(format!("what it prints, its reply, is no JSON: {error}"))),
    }
}
