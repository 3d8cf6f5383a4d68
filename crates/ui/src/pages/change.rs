//! One verb on all messages that a filter names, or on those that were ticked: first what will happen, then, once somebody said so,
//! batch by batch.

use std::collections::BTreeSet;

use askama::Template;
use axum::{Form, extract::Query, http::StatusCode, response::Response};
use doorbell::{
    MessageId,
    operate::{MessageRow, Preview},
};
use futures::future::try_join_all;

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
/// More than that no page has boxes for.
const TICKED_MAX: usize = 1000;

#[derive(Template)]
#[template(path = "change.html")]
struct ChangePage {
    frame: Frame,
    verb: Verb,
    more: String,
    pairs: Pairs,
    /// Those that were ticked; none: what the pairs say.
    ids: Vec<MessageId>,
    count: usize,
    /// So many were ticked and cannot be changed.
    unable: usize,
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
    ids: Vec<MessageId>,
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
        let ticked = query.iter().filter(|(name, _)| name == "id").map(|(_, id)| id.trim().parse());
        let ids = ticked.collect::<Result<Vec<MessageId>, _>>().map_err(|_| Refusal::wrong("an id is a number"))?;
        if ids.len() > TICKED_MAX {
            return Err(Refusal::wrong(format!("{} messages were ticked; {TICKED_MAX} can be", ids.len())));
        }
        let pairs = if ids.is_empty() { Pairs::of(query) } else { Pairs::default() };
        if ids.is_empty() && pairs.is_empty() {
            return Err(Refusal::wrong("which messages? All of them is not meant by saying nothing"));
        }
        if pairs.goes_by_contents() && !visit.may_search_payloads() {
            return Err(Refusal::wrong("messages are not chosen by payloads or headers here"));
        }
        Ok(Self { verb, more, pairs, ids, count, typed })
    }

    /// The same on the command line.
    fn command(&self) -> String {
        let command = match &self.ids[..] {
            [] => self.pairs.command(self.verb.name()),
            ids => ids.iter().fold(format!("doorbell {}", self.verb.name()), |command, id| format!("{command} {id}")),
        };
        self.verb.with_more(command, &self.more)
    }
}

/// What a change would be about.
struct Found {
    count: usize,
    more: bool,
    unable: usize,
    sample: Vec<MessageRow>,
}

/// Of those that were ticked, the ones that can be changed.
async fn find_ticked(visit: &Visit, asked: &Asked) -> Result<Found, Refusal> {
    let reader = visit.app.reader();
    let found = try_join_all(asked.ids.iter().map(|id| reader.show(*id, false))).await?;
    let possible = asked.verb.action("").possible_from();
    let able =
        found.into_iter().flatten().filter(|message| !message.archived && possible.contains(&message.row.status));
    let sample: Vec<MessageRow> = able.map(|message| message.row).collect();
    Ok(Found { count: sample.len(), more: false, unable: asked.ids.len() - sample.len(), sample })
}

/// What will happen.
pub(crate) async fn preview(visit: Visit, Query(query): Query<Vec<(String, String)>>) -> Result<Response, Refusal> {
    let mut asked = Asked::read(&visit, query)?;
    let found = if asked.ids.is_empty() {
        let filter = asked.pairs.filter().map_err(Refusal::wrong)?;
        let change = visit.app.reader().change(&filter, asked.verb.action(&asked.more)).await?;
        let Preview { count, more, sample, .. } = change.preview(COUNTED_MAX).await?;
        // What is published from now on is not meant.
        asked.pairs = asked.pairs.with("last-id", change.last_id().to_string());
        Found { count, more, unable: 0, sample }
    } else {
        find_ticked(&visit, &asked).await?
    };
    let names: BTreeSet<&str> = match asked.verb {
        Verb::Move => [asked.more.as_str()].into(),
        _ => found.sample.iter().map(|message| message.target.as_str()).collect(),
    };
    let reader = visit.app.reader();
    let targets = try_join_all(names.into_iter().map(|name| reader.target_state(name))).await?;
    let more_than = if found.more { "more than " } else { "" };
    let unit = if found.count == 1 { "message" } else { "messages" };
    let template = ChangePage {
        frame: visit.frame(format!("{} {more_than}{} {unit}?", capital(asked.verb), found.count), "Messages"),
        counted: format!("{more_than}{} {unit}", words::count(found.count as i64)),
        count: found.count,
        unable: found.unable,
        sample: found.sample.iter().map(MessageLine::from).collect(),
        targets: targets.iter().flatten().map(TargetLine::from).collect(),
        command: asked.command(),
        typed: found.count >= TYPED_FROM,
        verb: asked.verb,
        more: asked.more,
        pairs: asked.pairs,
        ids: asked.ids,
    };
    Ok(page(StatusCode::OK, &template))
}

/// Does it.
pub(crate) async fn perform(visit: Visit, Form(form): Form<Vec<(String, String)>>) -> Result<Response, Refusal> {
    let asked = Asked::read(&visit, form)?;
    let (verb, action) = (asked.verb, asked.verb.action(&asked.more));
    if asked.count.parse().is_ok_and(|count: usize| count >= TYPED_FROM) && asked.typed != asked.count {
        return Err(Refusal::wrong(format!("type {} to go on: nothing was {}", asked.count, verb.done())));
    }
    if verb == Verb::Move && asked.more.is_empty() {
        return Err(Refusal::wrong("to which target? Nothing was moved"));
    }
    let operator = visit.acting()?;
    let (mut changed, mut unchanged, mut over) = (0, 0, false);
    if asked.ids.is_empty() {
        let filter = asked.pairs.filter().map_err(Refusal::wrong)?;
        let mut change = operator.change(&filter, action).await?;
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
    } else {
        changed = operator.act(&action, &asked.ids).await?.len();
        (unchanged, over) = (asked.ids.len().saturating_sub(changed), true);
    }
    tracing::info!(person = visit.person.name, verb = verb.name(), changed, "changed messages");
    let template = ChangedPage {
        frame: visit.frame(format!("{changed} {}", verb.done()), "Messages"),
        command: asked.command(),
        verb,
        more: asked.more,
        pairs: asked.pairs,
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
