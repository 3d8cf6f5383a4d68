//! `doorbell list`: looking through the messages.

use std::time::SystemTime;

use clap::{Args, ValueEnum};
use doorbell::operate::{ListOrder, MessageRow, Status};
use serde::Serialize;

use crate::{
    Global,
    exit::{Exit, Failure},
    filter::FilterArgs,
    names, output,
    timestamp::rfc3339,
};

const HEADINGS: [&str; 9] = ["ID", "TARGET", "TYPE", "SOURCE", "STATUS", "PRIORITY", "ATTEMPT", "CREATED", "REASON"];

/// Of messages that are being handled: by whom, and since when.
const IN_HAND: [&str; 8] = ["ID", "TARGET", "TYPE", "SOURCE", "PRIORITY", "ATTEMPT", "SINCE", "OWNER"];

/// How much of a reason a terminal shows.
const REASON_CHARS_MAX: usize = 60;

/// List messages, page by page
///
/// Pending messages come as they will be claimed, scheduled ones next due first, others newest first. With --status
/// processing it is said who handles each, and since when. When there are more,
/// their --after is printed on stderr. Payloads are never shown; see `doorbell show ID --data`. The archive is not read.
/// Exit code 3 when nothing matches.
#[derive(Args, Debug)]
#[command(after_help = "\
Found at once: --status pending, scheduled, processing and failed, with or without --target, in their usual order or \
(processing, failed) by id; ids; and what the counters say there is none of. Anything else is looked for in 100,000 messages at a \
time; when a look ends before the page is full, how far it got and the --after that goes on are printed on stderr.

Examples:
  doorbell list --status failed --target billing
  doorbell list --status pending --target billing --limit 1      what is claimed next
  doorbell list --status failed --since 02:10 --until 02:40      what failed then
  doorbell list --where '$.order == 7'
  doorbell list --status scheduled --reason-like '%timeout%' --json | jq -r '.messages[].id'

JSON: {\"messages\": [{\"id\", \"source\", \"target\", \"type\", \"status\", \"priority\", \"attempt\", \"retry_count\", \
\"crash_count\", \"redrive_count\", \"created_at\", \"updated_at\", \"available_at\", \"owner\", \"reason\"}], \
\"next\", \"looked_until\"}; next is the --after of the next page, or null; looked_until is null unless the look ended there \
before the page was full.")]
pub(crate) struct List {
    #[command(flatten)]
    filter: FilterArgs,

    /// Another order than the usual one
    #[arg(long, value_enum)]
    order: Option<OrderArg>,

    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    limit: u32,

    /// Go on where a page ended, with the same filter and order
    #[arg(long, value_name = "CURSOR")]
    after: Option<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum OrderArg {
    /// As they are claimed: priority, then age (--status pending)
    Queue,
    /// Next due first (--status scheduled)
    Due,
    /// By id
    Oldest,
    /// By id, backwards
    Newest,
    /// By target, the cheapest way through all of them (--status pending, scheduled, processing or failed)
    Target,
}

impl From<OrderArg> for ListOrder {
    fn from(order: OrderArg) -> Self {
        match order {
            OrderArg::Queue => Self::Queue,
            OrderArg::Due => Self::Due,
            OrderArg::Oldest => Self::Oldest,
            OrderArg::Newest => Self::Newest,
            OrderArg::Target => Self::Target,
        }
    }
}

impl List {
    pub(crate) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        let broker = global.database.broker().await?;
        let order = self.order.map(ListOrder::from);
        let page = broker.operator().list(&self.filter.filter(), order, self.limit, self.after.as_deref()).await?;
        if global.json {
            let looked_until = page.looked_until.map(rfc3339);
            output::json(&PageJson { messages: &page.messages, next: page.next.as_deref(), looked_until })?;
        } else if page.messages.is_empty() {
            if let (Some(until), Some(next)) = (page.looked_until, &page.next) {
                eprintln!("no message matches among those looked at, {}; to go on: --after '{next}'", looked(until));
            } else if !names::is_unknown(&broker, self.filter.target.as_deref()).await? {
                eprintln!("no message matches");
            }
        } else {
            if self.filter.status == Some(Status::Processing) {
                output::table(&IN_HAND, &page.messages.iter().map(in_hand).collect::<Vec<_>>())?;
            } else {
                output::table(&HEADINGS, &page.messages.iter().map(cells).collect::<Vec<_>>())?;
            }
            match (&page.next, page.looked_until) {
                (Some(next), Some(until)) => eprintln!("{}; to go on: --after '{next}'", looked(until)),
                (Some(next), None) => eprintln!("for more: --after '{next}'"),
                (None, _) => {}
            }
        }
        Ok(if page.messages.is_empty() { Exit::NothingFound } else { Exit::Done })
    }
}

/// How far a look got.
fn looked(until: SystemTime) -> String {
    format!("until the one published {}", output::time(until))
}

fn cells(message: &MessageRow) -> Vec<String> {
    vec![
        message.id.to_string(),
        message.target.clone(),
        message.record_type.clone(),
        message.source.clone(),
        message.status.to_string(),
        message.priority.to_string(),
        message.attempt.to_string(),
        output::time(message.created_at),
        output::cut(message.reason.as_deref().unwrap_or_default(), REASON_CHARS_MAX),
    ]
}

fn in_hand(message: &MessageRow) -> Vec<String> {
    vec![
        message.id.to_string(),
        message.target.clone(),
        message.record_type.clone(),
        message.source.clone(),
        message.priority.to_string(),
        message.attempt.to_string(),
        output::time(message.updated_at),
        message.owner.clone().unwrap_or_else(|| "(plain SQL)".to_owned()),
    ]
}

#[derive(Serialize)]
struct PageJson<'a> {
    messages: &'a [MessageRow],
    next: Option<&'a str>,
    looked_until: Option<String>,
}
