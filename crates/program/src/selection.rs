//! What redrive, retry and cancel have in common: ids or a filter, how many, yes or no, and then batch by batch.

use std::collections::HashSet;

use clap::Args;
use doorbell::{
    Broker, MessageId,
    operate::{Filter, Status},
};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use crate::{
    Global, consent,
    exit::{Exit, Failure},
    filter::FilterArgs,
    names, output,
};

/// Each batch is one transaction that holds its messages' locks.
const BATCH: usize = 1000;

/// The messages a command changes.
#[derive(Args, Debug)]
pub(crate) struct Selection {
    /// The messages
    #[arg(value_name = "ID", conflicts_with_all = ["filter", "all"])]
    pub(crate) ids: Vec<MessageId>,
    #[command(flatten)]
    filter: FilterArgs,
    /// All messages whose status allows it
    #[arg(long)]
    all: bool,
    /// At most so many of those that the filter names
    #[arg(long, value_name = "N", conflicts_with = "ids")]
    limit: Option<u32>,
    /// Only print the ids that would be
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

/// What is done to them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Verb {
    /// "cancel"
    pub(crate) name: &'static str,
    /// "cancelled"
    pub(crate) done: &'static str,
    /// The statuses it is possible from.
    pub(crate) from: &'static [Status],
    /// Those that a filter without a status means.
    pub(crate) usually: &'static [Status],
}

impl Selection {
    /// Finds the messages, makes sure, and has `run` change them, at most 1000 at a time. Prints the ids it changed.
    pub(crate) async fn act(
        self,
        global: &Global,
        verb: Verb,
        run: impl AsyncFn(&Broker, &[MessageId]) -> doorbell::Result<Vec<MessageId>>,
    ) -> Result<Exit, Failure> {
        self.names_something(verb)?;
        let statuses = self.statuses(verb)?;
        let broker = global.database.broker().await?;
        let by_filter = self.ids.is_empty();
        let ids = if by_filter { self.find(&broker, &statuses).await? } else { self.ids };
        if ids.is_empty() && !names::is_unknown(&broker, self.filter.target.as_deref()).await? {
            eprintln!("no such message can be {}", verb.done);
        }
        if self.dry_run {
            print_all(global.json, &format!("would_be_{}", verb.done), &ids)?;
            return Ok(found(&ids));
        }
        if by_filter && !self.yes && !ids.is_empty() && !confirmed(verb, ids.len()).await? {
            eprintln!("nothing was {}", verb.done);
            return Ok(Exit::Failed);
        }
        let changed = in_batches(&broker, global.json, verb, &ids, run).await?;
        if global.json {
            print_all(true, verb.done, &changed)?;
        }
        report_unchanged(&broker, verb, by_filter, &ids, &changed).await?;
        Ok(found(&changed))
    }

    /// Neither ids nor a filter is a mistake, not "everything".
    fn names_something(&self, verb: Verb) -> Result<(), Failure> {
        if !self.ids.is_empty() || self.all || self.filter.names_something() {
            return Ok(());
        }
        let name = verb.name.to_lowercase();
        let why = format!("which messages? Give ids, a filter (doorbell {name} --help has them), or --all");
        Err(Failure::new(Exit::Usage, why))
    }

    fn statuses(&self, verb: Verb) -> Result<Vec<Status>, Failure> {
        match self.filter.status {
            Some(status) if verb.from.contains(&status) => Ok(vec![status]),
            Some(status) => {
                let possible = verb.from.iter().map(|status| status.as_str()).collect::<Vec<_>>().join(", ");
                let why = format!("{status} messages cannot be {}; these can: {possible}", verb.done);
                Err(Failure::new(Exit::Usage, why))
            }
            None if self.filter.completed_by.is_some() && verb.from.contains(&Status::Completed) => {
                Ok(vec![Status::Completed])
            }
            None => Ok(verb.usually.to_vec()),
        }
    }

    async fn find(&self, broker: &Broker, statuses: &[Status]) -> Result<Vec<MessageId>, Failure> {
        let mut ids = Vec::new();
        // One that changes its status meanwhile may be found twice.
        let mut known = HashSet::new();
        for status in statuses {
            let filter = Filter { status: Some(*status), ..self.filter.filter() };
            let left = self.limit.map(|limit| limit - ids.len() as u32);
            ids.extend(broker.operator().find_ids(&filter, left).await?.into_iter().filter(|id| known.insert(*id)));
        }
        Ok(ids)
    }
}

async fn confirmed(verb: Verb, count: usize) -> Result<bool, Failure> {
    if consent::can_ask() {
        let question = format!("{} {count} messages?", verb.name);
        // On a thread of its own, so that Ctrl-C is heard.
        return Ok(tokio::task::spawn_blocking(move || consent::ask(&question)).await.unwrap_or(false));
    }
    let why = format!("{count} messages would be {}; say so with --yes, or look first with --dry-run", verb.done);
    Err(Failure::new(Exit::Usage, why))
}

async fn in_batches(
    broker: &Broker,
    as_json: bool,
    verb: Verb,
    ids: &[MessageId],
    run: impl AsyncFn(&Broker, &[MessageId]) -> doorbell::Result<Vec<MessageId>>,
) -> Result<Vec<MessageId>, Failure> {
    // Draws nothing unless stderr is a terminal.
    let bar = if ids.len() > BATCH { ProgressBar::new(ids.len() as u64) } else { ProgressBar::hidden() };
    let style = ProgressStyle::with_template("{bar:40} {pos} of {len}, {eta} left");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let mut changed = Vec::new();
    for batch in ids.chunks(BATCH) {
        let done = run(broker, batch).await.map_err(|error| {
            let how_far = format_args!("{} of {} messages are {}, then", changed.len(), ids.len(), verb.done);
            Failure::from(error).context(how_far)
        })?;
        if !as_json {
            bar.suspend(|| print_all(false, verb.done, &done))?;
        }
        changed.extend(done);
        bar.inc(batch.len() as u64);
    }
    bar.finish_and_clear();
    Ok(changed)
}

async fn report_unchanged(
    broker: &Broker,
    verb: Verb,
    by_filter: bool,
    ids: &[MessageId],
    changed: &[MessageId],
) -> Result<(), Failure> {
    if by_filter {
        match ids.len() - changed.len() {
            0 => {}
            others => eprintln!("{others} messages had changed meanwhile and were not {}", verb.done),
        }
        return Ok(());
    }
    for id in ids.iter().filter(|id| !changed.contains(id)) {
        let why = match broker.operator().show(*id, false).await? {
            None => "there is no such message".to_owned(),
            Some(message) if message.archived => "it is in the archive".to_owned(),
            Some(message) => format!("it is {}", message.row.status),
        };
        eprintln!("message {id} was not {}: {why}", verb.done);
    }
    Ok(())
}

fn print_all(as_json: bool, done: &str, ids: &[MessageId]) -> std::io::Result<()> {
    match as_json {
        true => output::json(&json!({ done: ids })),
        false => ids.iter().try_for_each(output::line),
    }
}

fn found(ids: &[MessageId]) -> Exit {
    if ids.is_empty() { Exit::NothingFound } else { Exit::Done }
}
