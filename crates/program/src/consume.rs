//! `doorbell consume`: handle messages with a pipe or a program.

mod batch;
mod child;
pub(crate) mod concealed;
mod exec;
pub(crate) mod guard;
mod print;
mod program;
mod started;
mod tally;

use std::{num::NonZeroUsize, path::PathBuf, sync::Arc, time::Duration};

use clap::Args;
use doorbell::{Batch, Broker, ConsumerConfig};
use tracing::warn;

use self::{
    batch::{Children, Several},
    exec::Exec,
    guard::Guard,
    print::Print,
    program::{Environment, Program},
    started::Starter,
    tally::Tally,
};
use crate::{
    Global, duration,
    exit::{Exit, Failure},
    signals::Signals,
    watch::{WatchArgs, Watched},
};

/// How often it is looked whether a target is drained.
const EMPTY_EVERY: Duration = Duration::from_millis(200);

/// What still runs when the output is gone waits for an output that never comes back; only what was written already may
/// still be settled.
const GIVE_UP_AFTER: Duration = Duration::from_millis(250);

/// Printing takes no time, so that what limits it is how many messages travel in one claim and one settle.
const LINES_AHEAD: usize = 500;

/// Handle the messages of a target: run a program for each, or print and complete them
///
/// With --complete every message is one line of JSON on stdout, and is completed once that line is written: nobody else will
/// handle it. If the reader goes away, what was not written is given back for another consumer. To look at messages and
/// leave them where they are: `doorbell peek`.
///
/// With --exec the program runs once per message: the payload on its stdin, and DOORBELL_ID, DOORBELL_ATTEMPT,
/// DOORBELL_SOURCE, DOORBELL_TARGET, DOORBELL_TYPE, DOORBELL_PRIORITY, DOORBELL_RETRY_COUNT, DOORBELL_HEADERS (JSON),
/// DOORBELL_EFFECT_KEY (to name its effect to other systems: the same in each attempt, until it is redriven) and, if the message
/// has one, TRACEPARENT in its environment. With DOORBELL_REPLY=1 somebody waits for an answer: the JSON that it prints is the
/// reply, if it ends with exit code 0. The address of the database (DATABASE_URL, PGHOST, …) is withheld, and on Linux
/// this process can be read by root alone. Other secrets of the environment are handed on unless --env-clear says otherwise.
#[derive(Args, Debug)]
#[command(after_help = "\
How a program settles its message, by its exit code:
     0  completed
    65  rejected: failed for good, no retry can help
    75  retried later
  else  failed for now, retried by policy; the end of its stderr is kept as error_message
A program that runs out of time is killed with all its children, and its message is retried. So is one whose message \
was cancelled or put back meanwhile, within a heartbeat or two, and one that runs when this process is killed.

A program with --batch is started once and lives: one for each of --concurrency. It is given batch after batch on its stdin, a \
line for each message and behind the last one a mark. It prints a line for each message that is not done, and, when all are \
handled, the mark as it was, flushed:
  {\"id\": 7, \"outcome\": \"reject\", \"reason\": \"no such order\"}
  {\"batch\":1}
outcome is done, retry, snooze, unavailable or reject; retry and snooze may say \"after\": \"30s\", done the \"reply\" to a request. When its stdin ends, nothing comes \
any more. If it ends before its batch has, or runs out of time with it, it is started again, and its messages are handled one by one at \
once, and pay alone for how that ends; so they do after a line that is none of these.

SIGINT or SIGTERM stops it in an orderly way: no more messages, those being handled are finished (up to --drain; \
programs that live have as long again to end), exit code 0. A second one stops it at once, with exit code 130.

Examples:
  doorbell consume billing --exec 'curl -fsS --json @- https://ledger.example/charge'
  doorbell consume billing --exec ./charge --metrics 9187     curl localhost:9187/readyz
  doorbell consume billing --batch 500 --linger 1s --exec ./load
                                                              up to 500 lines at a time
  doorbell consume billing --complete --count 1 | jq .data    this message is done then
  doorbell consume billing --complete --exit-when-empty > backlog.ndjson
                                                              exit code 3 when there was nothing
  doorbell consume billing --shell --exec 'jq .total >> totals.txt' --concurrency 1

Lines: {\"id\", \"attempt\", \"source\", \"target\", \"type\", \"priority\", \"headers\", \"created_at\", \
\"data\"}.")]
pub(crate) struct Consume {
    /// The application whose messages these are
    target: String,

    /// Run this program for every message; split into words as a shell would, but no shell is run
    #[arg(long, value_name = "COMMAND")]
    exec: Option<String>,

    /// Without a program: print messages, and complete each once its line is written
    #[arg(long, conflicts_with = "exec")]
    complete: bool,

    /// Run the command with sh -c. The payload is never part of the command
    #[arg(long, requires = "exec")]
    shell: bool,

    /// Give the program nothing of this environment but what --env names and what tells of the message
    #[arg(long, requires = "exec")]
    env_clear: bool,

    /// Give the program this variable, also one that is withheld otherwise; may be repeated
    #[arg(long, value_name = "NAME", requires = "exec", value_parser = variable)]
    env: Vec<String>,

    /// Start it once, and give it up to N waiting messages at a time: a line of JSON for each on its stdin, as --complete prints
    /// them. N is its DOORBELL_BATCH
    #[arg(long, value_name = "N", requires = "exec")]
    batch: Option<NonZeroUsize>,

    /// How long a message may wait until a batch is full, at most 60s
    #[arg(long, value_name = "DURATION", requires = "batch", default_value = "0s", allow_hyphen_values = true,
        value_parser = duration::parse)]
    linger: Duration,

    /// Only these record types; may be repeated. Others wait for another consumer
    #[arg(long = "type", value_name = "TYPE")]
    types: Vec<String>,

    /// Messages, or batches, handled at the same time [default: 8 with --exec, 1 with --batch, else 1: lines in the order of their messages]
    #[arg(long, value_name = "N")]
    concurrency: Option<NonZeroUsize>,

    /// Stop after N messages; not one more is taken
    #[arg(long, value_name = "N")]
    count: Option<NonZeroUsize>,

    /// Stop when no message of the target waits or is being handled; exit code 3 when none was handled here
    #[arg(long)]
    exit_when_empty: bool,

    /// How often to look without having been rung
    #[arg(long, value_name = "DURATION", default_value = "5s", allow_hyphen_values = true,
        value_parser = duration::parse)]
    sweep: Duration,

    /// How long the program may take for a message, or a batch; 0: for ever
    #[arg(long, value_name = "DURATION", default_value = "60s", allow_hyphen_values = true,
        value_parser = duration::parse)]
    timeout: Duration,

    /// How long to wait for running programs when stopped
    #[arg(long, value_name = "DURATION", default_value = "30s", allow_hyphen_values = true,
        value_parser = duration::parse)]
    drain: Duration,

    #[command(flatten)]
    watch: WatchArgs,
}

fn variable(name: &str) -> Result<String, String> {
    match name.is_empty() || name.contains(['=', '\0']) {
        true => Err("give the name of a variable; its value is the one that it has here".to_owned()),
        false => Ok(name.to_owned()),
    }
}

/// Why it stops.
enum Stop {
    Signal,
    Counted,
    Empty,
    /// Handling is over: the output is gone, or the program cannot be run.
    GivenUp(Failure),
}

impl Consume {
    pub(crate) async fn run(self, global: &Global, mut signals: Signals) -> Result<Exit, Failure> {
        let program = match self.program()? {
            Some(program) => {
                program.must_be_there()?;
                concealed::environment();
                Some((program, Guard::start().map_err(|error| Failure::from(error).context("cannot start programs"))?))
            }
            None => None,
        };
        let tally = Arc::new(Tally::default());
        let starter = program.map(|(program, guard)| Starter { program, guard, tally: tally.clone() });
        let (exec, children) = match (starter, self.batch) {
            (Some(starter), Some(max)) => (None, Some(Arc::new(Children::new(starter, &self.target, max.get())))),
            (starter, _) => (starter.map(Exec).map(Arc::new), None),
        };
        let start = async {
            let watch = self.watch.prepare().await?;
            let broker = global.database.broker_with(watch.config()).await?;
            let builder = broker.consumer(&self.target).config(self.config());
            let builder = match (exec, children.clone().zip(self.batch())) {
                (_, Some((children, batch))) => builder.fallback_batch_handler(batch, Several(children)),
                (Some(exec), None) => builder.fallback_request(move |delivery, replier| {
                    let exec = exec.clone();
                    async move { exec.handle(delivery, replier).await }
                }),
                (None, None) => builder.fallback_handler(Print::new(tally.clone())),
            };
            let consumer = builder.start().await?;
            let watched = Watched::Consumer { target: self.target.clone(), pulse: consumer.pulse() };
            // Served until the very end, the draining included.
            let serving = watch.serve(broker.clone(), watched);
            Ok::<_, Failure>((consumer, broker, serving))
        };
        let (consumer, broker, _serving) = tokio::select! {
            biased;
            () = signals.next() => return Ok(Exit::Interrupted),
            started = start => started?,
        };
        let stop = tokio::select! {
            biased;
            () = signals.next() => Stop::Signal,
            failure = tally.given_up() => Stop::GivenUp(failure),
            () = tally.reached(self.count) => Stop::Counted,
            () = self.drained(&broker), if self.exit_when_empty => Stop::Empty,
            // It may not consume any more, and says so when it is shut down.
            () = consumer.ended() => Stop::Signal,
        };
        let end = async {
            let patience = if let Stop::GivenUp(_) = stop { GIVE_UP_AFTER } else { self.drain };
            let ended = consumer.shutdown_within(patience).await;
            if let Some(children) = &children {
                children.end_within(patience).await;
            }
            broker.close().await;
            Ok::<_, Failure>(ended?)
        };
        tokio::select! {
            biased;
            () = signals.next() => return Ok(Exit::Interrupted),
            ended = end => ended?,
        }
        match stop {
            Stop::GivenUp(failure) => Err(failure),
            Stop::Empty if tally.handled() == 0 => Ok(Exit::NothingFound),
            Stop::Signal | Stop::Counted | Stop::Empty => Ok(Exit::Done),
        }
    }

    /// Whether programs of others are started, which must not read the password of this one.
    pub(crate) fn has_program(&self) -> bool {
        self.exec.is_some()
    }

    fn program(&self) -> Result<Option<Program>, Failure> {
        let Some(command) = &self.exec else {
            return if self.complete { Ok(None) } else { Err(self.nobody_handles()) };
        };
        let unusable = |why: &str| Failure::new(Exit::Usage, format!("--exec {command:?}: {why}"));
        let environment = Environment { cleared: self.env_clear, named: self.env.clone() };
        if self.shell {
            let arguments = vec!["-c".into(), command.into()];
            return Ok(Some(Program { path: PathBuf::from("sh"), arguments, environment }));
        }
        let words = shell_words::split(command).map_err(|error| unusable(&error.to_string()))?;
        match words.split_first() {
            Some((path, arguments)) => {
                Ok(Some(Program { path: path.into(), arguments: arguments.to_vec(), environment }))
            }
            None => Err(unusable("there is no program in it")),
        }
    }

    /// What is completed is gone from the queue: nobody means that who only wants to look.
    fn nobody_handles(&self) -> Failure {
        let target = shell_words::quote(&self.target);
        let why = format!(
            "consume takes messages, and without --exec there is nothing that handles them
  to look at them:                   doorbell peek {target}
  to handle each with a program:     doorbell consume {target} --exec COMMAND
  to print them and call them done:  doorbell consume {target} --complete"
        );
        Failure::new(Exit::Usage, why)
    }

    fn config(&self) -> ConsumerConfig {
        let (concurrency, prefetch) = match &self.exec {
            Some(_) if self.batch.is_some() => (1, 0),
            // A program takes long: what it does not run yet, another consumer can.
            Some(_) => (8, 0),
            None => (1, LINES_AHEAD),
        };
        ConsumerConfig {
            concurrency: self.concurrency.map_or(concurrency, NonZeroUsize::get),
            prefetch: Some(prefetch),
            sweep: Some(self.sweep),
            // A reader may be as slow as it likes; half a line would be worse.
            handler_timeout: self.exec.as_ref().and(Some(self.timeout)).filter(|timeout| !timeout.is_zero()),
            drain_timeout: self.drain,
            record_types: self.record_types().map(<[String]>::to_vec),
            messages_max: self.count.map(NonZeroUsize::get),
            ..ConsumerConfig::default()
        }
    }

    fn batch(&self) -> Option<Batch> {
        self.batch.map(|max| Batch::of(max.get()).linger(self.linger))
    }

    fn record_types(&self) -> Option<&[String]> {
        (!self.types.is_empty()).then_some(&self.types)
    }

    /// Waits until nothing of the target waits or is being handled, here or elsewhere.
    async fn drained(&self, broker: &Broker) {
        let mut tick = tokio::time::interval(EMPTY_EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            match broker.operator().is_drained(&self.target, self.record_types()).await {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => warn!(?error, "whether messages remain is not known; looking again"),
            }
        }
    }
}
