//! One verb on all messages that a filter names, or on those that were ticked: first what will happen, then, once somebody said so,
//! batch by batch.

use std::{cmp::Reverse, collections::BTreeMap, time::SystemTime};

use askama::Template;
use axum::{Form, extract::Query, http::StatusCode, response::Response};
use doorbell::{
    MessageId,
    operate::{Action, Filter, MessageRow, Preview},
};
use futures::future::try_join_all;

use crate::{
    app::Visit,
    filter::Pairs,
    lines::{MessageLine, TargetLine},
    page::{Frame, Refusal, page},
    verb::Verb,
    words::{self, Time, in_address, time},
};

/// So many messages are counted.
const COUNTED_MAX: u32 = 10_000;
/// A request changes no more batches of a thousand, so that it ends, and whoever waits for it sees how far it got.
const BATCHES_MAX: usize = 10;
/// Of so many messages the number is to be typed.
const TYPED_FROM: usize = 100;
/// More than that no page has boxes for.
const TICKED_MAX: usize = 1000;
const GROUPS_MAX: usize = 100;
/// So many messages are shown, and so many targets.
const SAMPLE: usize = 5;
const TAKERS: usize = 10;

#[derive(Template)]
#[template(path = "change.html")]
struct ChangePage {
    frame: Frame,
    verb: Verb,
    more: String,
    /// What it is about, where nothing was ticked.
    pairs: Pairs,
    /// Those that were ticked.
    ids: Vec<MessageId>,
    groups: Vec<Pairs>,
    count: usize,
    /// So many of them were put back before.
    redriven: String,
    /// The same without those, in an address.
    without: Option<String>,
    /// How far was looked to count them.
    looked_until: Option<Time>,
    /// So many were ticked and cannot be changed.
    unable: usize,
    /// As a sentence has it.
    counted: String,
    sample: Vec<MessageLine>,
    /// Who would take the messages of the sample.
    targets: Vec<Taker>,
    /// How many targets more there are.
    more_targets: usize,
    commands: Vec<String>,
    typed: bool,
}

/// A target that would get some of them.
struct Taker {
    count: String,
    target: TargetLine,
}

#[derive(Template)]
#[template(path = "changed.html")]
struct ChangedPage {
    frame: Frame,
    verb: Verb,
    changed: usize,
    unchanged: usize,
    /// All were reached.
    over: bool,
    /// The same again, in an address.
    again: String,
    commands: Vec<String>,
}

/// What an address or a form says.
#[derive(Clone)]
struct Asked {
    verb: Verb,
    more: String,
    pairs: Pairs,
    ids: Vec<MessageId>,
    /// Filters, where groups of messages were ticked.
    groups: Vec<Pairs>,
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
        let groups: Vec<Pairs> =
            query.iter().filter(|(name, _)| name == "group").map(|(_, group)| Pairs::read(group)).collect();
        if groups.len() > GROUPS_MAX || groups.iter().any(Pairs::is_empty) {
            return Err(Refusal::wrong(format!("{GROUPS_MAX} groups can be ticked, each a filter")));
        }
        let pairs = if ids.is_empty() { Pairs::of(query) } else { Pairs::default() };
        if ids.is_empty() && groups.is_empty() && pairs.is_empty() {
            return Err(Refusal::wrong("which messages? All of them is not meant by saying nothing"));
        }
        if groups.iter().chain([&pairs]).any(Pairs::goes_by_contents) && !visit.may_search_payloads() {
            return Err(Refusal::wrong("messages are not chosen by payloads or headers here"));
        }
        Ok(Self { verb, more, pairs, ids, groups, count, typed })
    }

    /// Which messages, as filters; what is said beside groups holds for each of them.
    fn filters(&self) -> Result<Vec<Filter>, Refusal> {
        self.each().iter().map(|pairs| pairs.filter().map_err(Refusal::wrong)).collect()
    }

    fn each(&self) -> Vec<Pairs> {
        let with = |group: &Pairs| {
            self.pairs.iter().fold(group.clone(), |group, (name, value)| group.with(name, value.to_owned()))
        };
        match &self.groups[..] {
            [] => vec![self.pairs.clone()],
            groups => groups.iter().map(with).collect(),
        }
    }

    /// The same on the command line.
    fn commands(&self) -> Vec<String> {
        let commands = match &self.ids[..] {
            [] => self.each().iter().map(|pairs| pairs.command(self.verb.name())).collect(),
            ids => vec![ids.iter().fold(format!("doorbell {}", self.verb.name()), |line, id| format!("{line} {id}"))],
        };
        commands.into_iter().map(|command| self.verb.with_more(command, &self.more)).collect()
    }

    /// The same in an address, of what was not ticked message by message.
    fn address(&self) -> String {
        let groups: String =
            self.groups.iter().map(|group| format!("&group={}", in_address(&group.address()))).collect();
        format!("verb={}&more={}{groups}&{}", self.verb.name(), in_address(&self.more), self.pairs.address())
    }

    fn action(&self) -> Result<Action, Refusal> {
        self.verb.action(&self.more).map_err(Refusal::wrong)
    }
}

/// What a change of those that were ticked would be about, and how many cannot be changed.
async fn find_ticked(visit: &Visit, asked: &Asked) -> Result<(Found, usize), Refusal> {
    let reader = visit.app.reader();
    let shown = try_join_all(asked.ids.iter().map(|id| reader.show(*id, false))).await?;
    let able = shown.into_iter().flatten().filter(|message| !message.archived);
    let sample: Vec<MessageRow> =
        able.map(|message| message.row).filter(|row| asked.verb.is_possible_from(row.status)).collect();
    let mut found = Found { count: sample.len(), ..Found::default() };
    for row in &sample {
        found.redriven += usize::from(row.redrive_count > 0);
        *found.targets.entry(row.target.clone()).or_default() += 1;
    }
    let unable = asked.ids.len() - sample.len();
    Ok((Found { sample, ..found }, unable))
}

/// What a change would be about.
#[derive(Default)]
struct Found {
    count: usize,
    more: bool,
    redriven: usize,
    targets: BTreeMap<String, usize>,
    sample: Vec<MessageRow>,
    looked_until: Option<SystemTime>,
}

impl From<Preview> for Found {
    fn from(preview: Preview) -> Self {
        let Preview { count, more, redriven, targets, sample, looked_until, .. } = preview;
        Self { count, more, redriven, targets, sample, looked_until }
    }
}

impl Found {
    /// How many there are, as a number is said.
    fn counted(&self) -> &'static str {
        match self.looked_until {
            Some(_) => "at least ",
            None if self.more => "more than ",
            None => "",
        }
    }
}

/// What will happen.
pub(crate) async fn preview(visit: Visit, Query(query): Query<Vec<(String, String)>>) -> Result<Response, Refusal> {
    let mut asked = Asked::read(&visit, query)?;
    let (found, unable) = if asked.ids.is_empty() {
        let change = visit.app.reader().change_each(&asked.filters()?, asked.action()?).await?;
        let preview = change.preview(COUNTED_MAX).await?;
        // What is published from now on is not meant.
        asked.pairs = asked.pairs.with("last-id", change.last_id().to_string());
        (Found::from(preview), 0)
    } else {
        find_ticked(&visit, &asked).await?
    };
    let takers = takers(&visit, &asked, &found).await?;
    let unit = if found.count == 1 { "message" } else { "messages" };
    let (about, count) = (found.counted(), found.count);
    let leaves_out = asked.verb == Verb::Redrive && asked.ids.is_empty() && found.redriven > 0;
    let without = Asked { pairs: asked.pairs.clone().with("redriven", "false".to_owned()), ..asked.clone() };
    let template = ChangePage {
        frame: visit.frame(format!("{} {about}{count} {unit}?", capital(asked.verb)), "Messages"),
        counted: format!("{about}{} {unit}", words::count(count as i64)),
        count,
        redriven: words::count(found.redriven as i64),
        without: leaves_out.then(|| without.address()),
        looked_until: found.looked_until.map(time),
        unable,
        sample: found.sample.iter().take(SAMPLE).map(MessageLine::from).collect(),
        more_targets: found.targets.len().saturating_sub(TAKERS),
        targets: takers,
        commands: asked.commands(),
        typed: count >= TYPED_FROM || found.more,
        verb: asked.verb,
        more: asked.more,
        pairs: asked.pairs,
        ids: asked.ids,
        groups: asked.groups,
    };
    Ok(page(StatusCode::OK, &template))
}

/// Who takes them: whoever has most of them first.
async fn takers(visit: &Visit, asked: &Asked, found: &Found) -> Result<Vec<Taker>, Refusal> {
    let mut counts: Vec<(&str, usize)> = match asked.verb {
        Verb::Move => vec![(asked.more.as_str(), found.count)],
        _ => found.targets.iter().map(|(target, count)| (target.as_str(), *count)).collect(),
    };
    counts.sort_by_key(|(_, count)| Reverse(*count));
    counts.truncate(TAKERS);
    let reader = visit.app.reader();
    let states = try_join_all(counts.iter().map(|(name, _)| reader.target_state(name))).await?;
    let known = counts.iter().zip(&states).filter_map(|((_, count), state)| Some((count, state.as_ref()?)));
    Ok(known
        .map(|(count, state)| Taker { count: words::count(*count as i64), target: TargetLine::from(state) })
        .collect())
}

/// Does it.
pub(crate) async fn perform(visit: Visit, Form(form): Form<Vec<(String, String)>>) -> Result<Response, Refusal> {
    let asked = Asked::read(&visit, form)?;
    let (verb, action) = (asked.verb, asked.action()?);
    let shown: Option<usize> = asked.count.strip_suffix('+').unwrap_or(&asked.count).parse().ok();
    let typed = shown.is_some_and(|count| count >= TYPED_FROM || asked.count.ends_with('+'));
    if typed && asked.typed != asked.count.trim_end_matches('+') {
        let count = asked.count.trim_end_matches('+');
        return Err(Refusal::wrong(format!("type {count} to go on: nothing was {}", verb.done())));
    }
    if verb == Verb::Move && asked.more.is_empty() {
        return Err(Refusal::wrong("to which target? Nothing was moved"));
    }
    let operator = visit.acting()?;
    let (mut changed, mut unchanged, mut over) = (0, 0, false);
    if asked.ids.is_empty() {
        let mut change = operator.change_each(&asked.filters()?, action).await?;
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
        commands: asked.commands(),
        again: asked.address(),
        verb,
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
