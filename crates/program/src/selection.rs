//! What redrive, retry and cancel have in common: ids or a filter, how many, yes or no, and then batch by batch.

use clap::Args;
use doorbell::{
    Broker, MessageId,
    operate::{Action, Change, Operator, Preview},
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

/// So many messages are counted before it is asked whether to change them.
const COUNTED_MAX: u32 = 10_000;

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

/// What is done to them, in words.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Verb {
    /// "cancel"
    pub(crate) name: &'static str,
    /// "cancelled"
    pub(crate) done: &'static str,
}

impl Selection {
    /// Finds the messages, makes sure, and changes them, at most 1000 at a time. Prints the ids that were.
    pub(crate) async fn act(self, global: &Global, verb: Verb, action: Action) -> Result<Exit, Failure> {
        self.names_something(verb)?;
        self.status_must_allow(verb, &action)?;
        let broker = global.database.broker().await?;
        let ids = if self.ids.is_empty() {
            let change = broker.operator().change(&self.filter.filter(), action).await?.limit(self.limit);
            match self.change(&broker, global.json, verb, change).await? {
                Some(ids) => ids,
                None => return Ok(Exit::Failed),
            }
        } else if self.dry_run {
            print_all(global.json, &would_be(verb), &self.ids)?;
            self.ids
        } else {
            let changed = by_id(&broker.operator(), global.json, verb, &action, &self.ids).await?;
            report_unchanged(&broker, verb, &self.ids, &changed).await?;
            changed
        };
        if global.json && !self.dry_run {
            print_all(true, verb.done, &ids)?;
        }
        Ok(if ids.is_empty() { Exit::NothingFound } else { Exit::Done })
    }

    /// Changes what the filter names, or prints it; returns the ids. `None`: it was asked, and is not to be.
    async fn change(
        &self,
        broker: &Broker,
        as_json: bool,
        verb: Verb,
        mut change: Change,
    ) -> Result<Option<Vec<MessageId>>, Failure> {
        let mut ids = Vec::new();
        if self.dry_run {
            while let Some(found) = change.pass_over().await? {
                ids.extend(found);
            }
            self.say_if_none(broker, verb, ids.is_empty()).await?;
            print_all(as_json, &would_be(verb), &ids)?;
            return Ok(Some(ids));
        }
        let preview = change.preview(COUNTED_MAX).await?;
        let some = preview.count > 0 || preview.more;
        self.say_if_none(broker, verb, !some).await?;
        if !self.yes && some && !confirmed(verb, &preview).await? {
            eprintln!("nothing was {}", verb.done);
            return Ok(None);
        }
        let bar = bar(preview.count);
        let mut unchanged = 0;
        loop {
            let batch = change.next().await.map_err(|error| how_far(error, ids.len(), &count(&preview), verb))?;
            let Some(batch) = batch else { break };
            if !as_json {
                bar.suspend(|| print_all(false, verb.done, &batch.changed))?;
            }
            unchanged += batch.unchanged;
            bar.inc((batch.changed.len() + batch.unchanged) as u64);
            ids.extend(batch.changed);
        }
        bar.finish_and_clear();
        if unchanged > 0 {
            eprintln!("{unchanged} messages had changed meanwhile and were not {}", verb.done);
        }
        Ok(Some(ids))
    }

    async fn say_if_none(&self, broker: &Broker, verb: Verb, none: bool) -> Result<(), Failure> {
        if none && !names::is_unknown(broker, self.filter.target.as_deref()).await? {
            eprintln!("no such message can be {}", verb.done);
        }
        Ok(())
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

    fn status_must_allow(&self, verb: Verb, action: &Action) -> Result<(), Failure> {
        match self.filter.status {
            Some(status) if !action.possible_from().contains(&status) => {
                let possible = action.possible_from().iter().map(|status| status.as_str()).collect::<Vec<_>>();
                let why = format!("{status} messages cannot be {}; these can: {}", verb.done, possible.join(", "));
                Err(Failure::new(Exit::Usage, why))
            }
            _ => Ok(()),
        }
    }
}

/// As many as there are, or as were counted or found in one look.
fn count(preview: &Preview) -> String {
    let about = match preview.looked_until {
        Some(_) => "at least ",
        None if preview.more => "more than ",
        None => "",
    };
    format!("{about}{}", preview.count)
}

async fn confirmed(verb: Verb, preview: &Preview) -> Result<bool, Failure> {
    let count = count(preview);
    if consent::can_ask() {
        let question = format!("{} {count} messages?", verb.name);
        // On a thread of its own, so that Ctrl-C is heard.
        return Ok(tokio::task::spawn_blocking(move || consent::ask(&question)).await.unwrap_or(false));
    }
    let why = format!("{count} messages would be {}; say so with --yes, or look first with --dry-run", verb.done);
    Err(Failure::new(Exit::Usage, why))
}

async fn by_id(
    operator: &Operator,
    as_json: bool,
    verb: Verb,
    action: &Action,
    ids: &[MessageId],
) -> Result<Vec<MessageId>, Failure> {
    let bar = bar(ids.len());
    let mut changed = Vec::new();
    for batch in ids.chunks(BATCH) {
        let done = operator
            .act(action, batch)
            .await
            .map_err(|error| how_far(error, changed.len(), &ids.len().to_string(), verb))?;
        if !as_json {
            bar.suspend(|| print_all(false, verb.done, &done))?;
        }
        changed.extend(done);
        bar.inc(batch.len() as u64);
    }
    bar.finish_and_clear();
    Ok(changed)
}

/// Draws nothing unless stderr is a terminal.
fn bar(messages: usize) -> ProgressBar {
    let bar = if messages > BATCH { ProgressBar::new(messages as u64) } else { ProgressBar::hidden() };
    let style = ProgressStyle::with_template("{bar:40} {pos} of {len}, {eta} left");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}

fn how_far(error: doorbell::Error, changed: usize, of: &str, verb: Verb) -> Failure {
    Failure::from(error).context(format_args!("{changed} of {of} messages are {}, then", verb.done))
}

async fn report_unchanged(
    broker: &Broker,
    verb: Verb,
    ids: &[MessageId],
    changed: &[MessageId],
) -> Result<(), Failure> {
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

fn would_be(verb: Verb) -> String {
    format!("would_be_{}", verb.done)
}

fn print_all(as_json: bool, done: &str, ids: &[MessageId]) -> std::io::Result<()> {
    match as_json {
        true => output::json(&json!({ done: ids })),
        false => ids.iter().try_for_each(output::line),
    }
}
