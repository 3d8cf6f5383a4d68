//! One verb on all messages that a filter names: first what will happen, then, once somebody said so, batch by batch.

use std::collections::BTreeSet;

use askama::Template;
use axum::{Form, extract::Query, http::StatusCode, response::Response};

use crate::{
    app::Visit,
    filter::Pairs,
    lines::{MessageLine, TargetLine},
    page::{Frame, Refusal, page},
    verb::Verb,
    words,
};

/// So many messages are counted.
const COUNTED_MAX: u32 = 10_000;
/// A request changes no more batches of a thousand, so that it ends, and whoever waits for it sees how far it got.
const BATCHES_MAX: usize = 10;
/// Of so many messages the number is to be typed.
const TYPED_FROM: usize = 100;

#[derive(Template)]
#[template(path = "change.html")]
struct ChangePage {
    frame: Frame,
    verb: Verb,
    more: String,
    pairs: Pairs,
    count: usize,
    /// As a sentence has it.
    counted: String,
    sample: Vec<MessageLine>,
    /// Who would take the messages of the sample.
    targets: Vec<TargetLine>,
    command: String,
    typed: bool,
}

#[derive(Template)]
#[template(path = "changed.html")]
struct ChangedPage {
    frame: Frame,
    verb: Verb,
    more: String,
    pairs: Pairs,
    changed: usize,
    unchanged: usize,
    /// All were reached.
    over: bool,
    command: String,
}

/// What an address or a form says.
struct Asked {
    verb: Verb,
    more: String,
    pairs: Pairs,
    count: String,
    typed: String,
}

impl Asked {
    fn read(visit: &Visit, query: Vec<(String, String)>) -> Result<Self, Refusal> {
        let value = |name: &str| {
            query.iter().find(|(known, _)| known == name).map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
        };
        let name = value("verb");
        let verb = Verb::read(&name).ok_or_else(|| Refusal::wrong(format!("{name:?} is nothing that can be done")))?;
        let (more, count, typed) = (value("more"), value("count"), value("typed"));
        let pairs = Pairs::of(query);
        if pairs.is_empty() {
            return Err(Refusal::wrong("which messages? All of them is not meant by saying nothing"));
        }
        if pairs.goes_by_contents() && !visit.may_search_payloads() {
            return Err(Refusal::wrong("messages are not chosen by payloads or headers here"));
        }
        Ok(Self { verb, more, pairs, count, typed })
    }
}

/// What will happen.
pub(crate) async fn preview(visit: Visit, Query(query): Query<Vec<(String, String)>>) -> Result<Response, Refusal> {
    let Asked { verb, more, pairs, .. } = Asked::read(&visit, query)?;
    let filter = pairs.filter().map_err(Refusal::wrong)?;
    let reader = visit.app.reader();
    let change = reader.change(&filter, verb.action(&more)).await?;
    let found = change.preview(COUNTED_MAX).await?;
    let names: BTreeSet<&str> = match verb {
        Verb::Move => [more.as_str()].into(),
        _ => found.sample.iter().map(|message| message.target.as_str()).collect(),
    };
    let targets = reader.targets().await?;
    let targets = targets.iter().filter(|target| names.contains(target.stats.target.as_str()));
    // What is published from now on is not meant.
    let pairs = pairs.with("last-id", change.last_id().to_string());
    let more_than = if found.more { "more than " } else { "" };
    let unit = if found.count == 1 { "message" } else { "messages" };
    let template = ChangePage {
        frame: visit.frame(format!("{} {more_than}{} {unit}?", capital(verb), found.count), "Messages"),
        counted: format!("{more_than}{} {unit}", words::count(found.count as i64)),
        count: found.count,
        sample: found.sample.iter().map(MessageLine::from).collect(),
        targets: targets.map(TargetLine::from).collect(),
        command: verb.command(&pairs, &more),
        typed: found.count >= TYPED_FROM,
        verb,
        more,
        pairs,
    };
    Ok(page(StatusCode::OK, &template))
}

/// Does it.
pub(crate) async fn perform(visit: Visit, Form(form): Form<Vec<(String, String)>>) -> Result<Response, Refusal> {
    let Asked { verb, more, pairs, count, typed } = Asked::read(&visit, form)?;
    if count.parse().is_ok_and(|count: usize| count >= TYPED_FROM) && typed != count {
        return Err(Refusal::wrong(format!("type {count} to go on: nothing was {}", verb.done())));
    }
    if verb == Verb::Move && more.is_empty() {
        return Err(Refusal::wrong("to which target? Nothing was moved"));
    }
    let filter = pairs.filter().map_err(Refusal::wrong)?;
    let mut change = visit.acting()?.change(&filter, verb.action(&more)).await?;
    let (mut changed, mut unchanged, mut over) = (0, 0, false);
    for _ in 0..BATCHES_MAX {
        match change.next().await? {
            Some(batch) => {
                changed += batch.changed.len();
                unchanged += batch.unchanged;
            }
            None => {
                over = true;
                break;
            }
        }
    }
    tracing::info!(person = visit.person.name, verb = verb.name(), changed, "changed messages");
    let template = ChangedPage {
        frame: visit.frame(format!("{changed} {}", verb.done()), "Messages"),
        command: verb.command(&pairs, &more),
        verb,
        more,
        pairs,
        changed,
        unchanged,
        over,
    };
    Ok(page(StatusCode::OK, &template))
}

fn capital(verb: Verb) -> String {
    let name = verb.name();
    name[..1].to_uppercase() + &name[1..]
}
