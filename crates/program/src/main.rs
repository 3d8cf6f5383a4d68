//! The program `doorbell`: the library on the command line. One file per command, each with its arguments and what it does
//! with them.

#![warn(clippy::unwrap_used)]

mod bench;
mod demo;

mod down;
mod unblock;
mod up;

mod migrate;

mod consume;
mod publish;

mod backlog;
mod errors;
mod explain;
mod follow;
mod grant;
mod list;
mod peek;
mod show;
mod stats;
mod target;
mod targets;
#[cfg(feature = "top")]
mod top;
mod topics;
mod ui;

mod audit;
mod breaker;
mod cancel;
mod capture;
mod captures;
mod contract;
mod contracts;
mod doctor;
mod evict;
mod extract;
mod extracts;
mod maintain;
mod r#move;
mod pause;
mod processes;
mod redrive;
mod replay;
mod request;
mod resume;
mod retry;
mod revoke;
mod rights;
mod schedule;
mod schedules;
mod subscribe;
mod uncapture;
mod unsubscribe;

mod completions;
mod man;

mod consent;
mod database;
mod exit;
mod filter;
mod grantee;
mod keys;
mod line;
mod logs;
mod names;
mod output;
mod selection;
mod signals;
mod watch;

use std::{process::ExitCode, time::Duration};

use clap::{ArgAction, Args, Parser, Subcommand};
use doorbell::written::{duration, timestamp};
use tracing::Level;

use self::{
    database::DatabaseArgs,
    exit::{Exit, Failure},
    logs::LogFormat,
    signals::Signals,
};

/// How long tasks and threads may take to stop when the command is done. Tasks do at once; a thread that reads a terminal
/// never does.
const WIND_UP_MAX: Duration = Duration::from_millis(200);

/// A message broker that lives inside PostgreSQL
///
/// Applications publish messages for each other with a plain INSERT; a trigger rings, and an idle consumer starts within
/// about a millisecond. Nothing is lost: what fails is retried, and what cannot be handled stays visible as failed.
#[derive(Debug, Parser)]
#[command(name = "doorbell", version, arg_required_else_help = true, after_help = AFTER_HELP)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
First steps:
  doorbell demo                    see it work on a private server; leaves nothing behind
  doorbell up                      start a server to play with; every other command finds it
  doorbell publish billing --source shop --type order.placed --data '{\"order\": 7}'
  doorbell peek billing
  doorbell consume billing --exec ./charge
  doorbell stats

The database is the first of: --database-url; DOORBELL_DATABASE_URL; DATABASE_URL; libpq's PGHOST, PGUSER, \
PGDATABASE, …; the running server of `doorbell up`. Prefer the environment for a URL with a password: other users of \
the machine can see command lines.

Data goes to stdout; progress and logs go to stderr (RUST_LOG or -v shows more).

Exit codes:
    0  done
    1  failed
    2  wrong usage or configuration
    3  found nothing
    4  a check failed
   65  bad data
   69  no database can be reached
   75  failed for now: try again
  130  interrupted";

/// What every command takes.
#[derive(Args, Debug)]
#[command(next_help_heading = "Global options")]
struct Global {
    #[command(flatten)]
    database: DatabaseArgs,

    /// Print JSON on stdout
    #[arg(long, global = true)]
    json: bool,

    /// How logs are written on stderr: lines of text or of JSON
    #[arg(long, global = true, value_name = "FORMAT", value_enum, default_value_t = LogFormat::Text, env = "DOORBELL_LOG_FORMAT")]
    log_format: LogFormat,

    /// Log more on stderr (-vv: still more)
    #[arg(short, long, global = true, action = ArgAction::Count)]
    verbose: u8,
}

#[derive(Debug, Subcommand)]
enum Command {
    Demo(demo::Demo),
    Up(up::Up),
    Down(down::Down),
    Migrate(migrate::Migrate),
    Publish(publish::Publish),
    Request(request::Request),
    Consume(consume::Consume),
    Stats(stats::Stats),
    #[cfg(feature = "top")]
    Top(top::Top),
    Ui(ui::Ui),
    Targets(targets::Targets),
    Target(target::Target),
    Topics(topics::Topics),
    Subscribe(subscribe::Subscribe),
    Schedule(schedule::Schedule),
    Schedules(schedules::Schedules),
    Unsubscribe(unsubscribe::Unsubscribe),
    Capture(capture::Capture),
    Captures(captures::Captures),
    Uncapture(uncapture::Uncapture),
    Contract(contract::Contract),
    Contracts(contracts::Contracts),
    Extract(extract::Extract),
    Extracts(extracts::Extracts),
    Backlog(backlog::Backlog),
    Errors(errors::Errors),
    Peek(peek::Peek),
    List(list::List),
    Show(show::Show),
    Explain(explain::Explain),
    Follow(follow::Follow),
    Audit(audit::Audit),
    Retry(retry::Retry),
    Redrive(redrive::Redrive),
    Replay(replay::Replay),
    Cancel(cancel::Cancel),
    Move(r#move::Move),
    Evict(evict::Evict),
    Pause(pause::Pause),
    Resume(resume::Resume),
    Breaker(breaker::Breaker),
    Keys(keys::Keys),
    Unblock(unblock::Unblock),
    Grant(grant::Grant),
    Revoke(revoke::Revoke),
    Rights(rights::Rights),
    Processes(processes::Processes),
    Doctor(doctor::Doctor),
    Maintain(maintain::Maintain),
    Bench(bench::Bench),
    Latency(bench::Latency),
    Completions(completions::Completions),
    Man(man::Man),
    #[command(hide = true)]
    DemoConsumer(demo::DemoConsumer),
    #[command(hide = true)]
    BenchConsumer(bench::BenchConsumer),
    #[command(hide = true, name = consume::guard::COMMAND)]
    ExecGuard,
}

fn main() -> ExitCode {
    let Cli { global, command } = Cli::parse();
    if let Command::ExecGuard = command {
        return consume::guard::run().map_or_else(|error| Failure::from(error).report(), |()| Exit::Done).into();
    }
    let usual = match command {
        // Services, whose changes of state are worth a line; the others speak for themselves.
        Command::Consume(_) | Command::Maintain(_) | Command::Ui(_) => Level::INFO,
        // It is full of accidents, and tells of them itself.
        Command::Demo(_) | Command::DemoConsumer(_) => Level::ERROR,
        // Its own words are enough: fleets come and go.
        Command::Bench(_) | Command::Latency(_) | Command::BenchConsumer(_) => Level::ERROR,
        _ => Level::WARN,
    };
    logs::start(usual, global.verbose, global.log_format);
    if let (Command::Consume(consume), Some(url)) = (&command, global.database.named())
        && consume.has_program()
    {
        consume::concealed::arguments(url);
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return Failure::from(error).context("cannot start").report().into(),
    };
    let exit = runtime.block_on(command.run(&global)).unwrap_or_else(|failure| failure.report());
    // What still runs is dropped here, and whatever it guards with it: child processes, the private server.
    runtime.shutdown_timeout(WIND_UP_MAX);
    exit.into()
}

impl Command {
    async fn run(self, global: &Global) -> Result<Exit, Failure> {
        let mut signals = Signals::new()?;
        // These end in an orderly way of their own.
        match self {
            Self::Consume(consume) => return consume.run(global, signals).await,
            Self::Demo(demo) => return demo.run(global, signals).await,
            Self::DemoConsumer(consumer) => return consumer.run(signals).await,
            Self::Bench(bench) => return bench.run(global, signals).await,
            Self::Latency(latency) => return latency.run(global, signals).await,
            Self::BenchConsumer(consumer) => return consumer.run(signals).await,
            _ => {}
        }
        tokio::select! {
            biased;
            () = signals.next() => Ok(Exit::Interrupted),
            ended = self.run_to_its_end(global) => ended,
        }
    }

    async fn run_to_its_end(self, global: &Global) -> Result<Exit, Failure> {
        match self {
            Self::Up(up) => up.run(global).await,
            Self::Down(down) => down.run(global).await,
            Self::Migrate(migrate) => migrate.run(global).await,
            Self::Publish(publish) => publish.run(global).await,
            Self::Request(request) => request.run(global).await,
            Self::Stats(stats) => stats.run(global).await,
            #[cfg(feature = "top")]
            Self::Top(top) => top.run(global).await,
            Self::Ui(ui) => ui.run(global).await,
            Self::Targets(targets) => targets.run(global).await,
            Self::Target(target) => target.run(global).await,
            Self::Topics(topics) => topics.run(global).await,
            Self::Subscribe(subscribe) => subscribe.run(global).await,
            Self::Schedule(schedule) => schedule.run(global).await,
            Self::Schedules(schedules) => schedules.run(global).await,
            Self::Unsubscribe(unsubscribe) => unsubscribe.run(global).await,
            Self::Capture(capture) => capture.run(global).await,
            Self::Captures(captures) => captures.run(global).await,
            Self::Uncapture(uncapture) => uncapture.run(global).await,
            Self::Contract(contract) => contract.run(global).await,
            Self::Contracts(contracts) => contracts.run(global).await,
            Self::Extract(extract) => extract.run(global).await,
            Self::Extracts(extracts) => extracts.run(global).await,
            Self::Backlog(backlog) => backlog.run(global).await,
            Self::Errors(errors) => errors.run(global).await,
            Self::Peek(peek) => peek.run(global).await,
            Self::List(list) => list.run(global).await,
            Self::Show(show) => show.run(global).await,
            Self::Explain(explain) => explain.run(global).await,
            Self::Follow(follow) => follow.run(global).await,
            Self::Retry(retry) => retry.run(global).await,
            Self::Audit(audit) => audit.run(global).await,
            Self::Maintain(maintain) => maintain.run(global).await,
            Self::Redrive(redrive) => redrive.run(global).await,
            Self::Replay(replay) => replay.run(global).await,
            Self::Cancel(cancel) => cancel.run(global).await,
            Self::Move(r#move) => r#move.run(global).await,
            Self::Evict(evict) => evict.run(global).await,
            Self::Pause(pause) => pause.run(global).await,
            Self::Resume(resume) => resume.run(global).await,
            Self::Breaker(breaker) => breaker.run(global).await,
            Self::Keys(keys) => keys.run(global).await,
            Self::Unblock(unblock) => unblock.run(global).await,
            Self::Grant(grant) => grant.run(global).await,
            Self::Revoke(revoke) => revoke.run(global).await,
            Self::Rights(rights) => rights.run(global).await,
            Self::Doctor(doctor) => doctor.run(global).await,
            Self::Processes(processes) => processes.run(global).await,
            Self::Completions(completions) => completions.run(),
            Self::Man(man) => man.run(),
            Self::Consume(_)
            | Self::Demo(_)
            | Self::DemoConsumer(_)
            | Self::Bench(_)
            | Self::Latency(_)
            | Self::BenchConsumer(_)
            | Self::ExecGuard => unreachable!("run by themselves"),
        }
    }
}
