//! Topics: who gets a copy of what.

use askama::Template;
use axum::{Form, extract::Query, http::StatusCode, response::Response};
use doorbell::{
    operate::{Subscription, TopicRow},
    written::timestamp,
};
use serde::Deserialize;

use crate::{
    app::Visit,
    page::{Frame, Refusal, go_to, page},
    words::{self, Time, given, lines, time},
};

/// A message that somebody thinks of publishing.
#[derive(Deserialize)]
pub(crate) struct Wanted {
    #[serde(default)]
    topic: String,
    #[serde(default, rename = "type")]
    record_type: String,
    #[serde(default)]
    source: String,
}

#[derive(Template)]
#[template(path = "topics.html")]
struct TopicsPage {
    frame: Frame,
    topics: Vec<Topic>,
    wanted: Wanted,
    /// Who would get it.
    takers: Option<Vec<String>>,
    act: bool,
}

struct Topic {
    name: String,
    target: Option<String>,
    types: String,
    sources: String,
    since: Option<Time>,
    waiting: String,
    unrouted: String,
    state: &'static str,
    mood: &'static str,
}

pub(crate) async fn show(visit: Visit, Query(wanted): Query<Wanted>) -> Result<Response, Refusal> {
    let reader = visit.app.reader();
    let takers = match (given(&wanted.topic), given(&wanted.record_type)) {
        (Some(topic), Some(record_type)) => Some(reader.routes(topic, record_type, given(&wanted.source)).await?),
        _ => None,
    };
    let topics = reader.topics().await?.into_iter().map(Topic::from).collect();
    let act = visit.person.rights.act;
    Ok(page(StatusCode::OK, &TopicsPage { frame: visit.frame("Topics", "Topics"), topics, wanted, takers, act }))
}

#[derive(Deserialize)]
pub(crate) struct Wish {
    topic: String,
    target: String,
    #[serde(default)]
    types: String,
    #[serde(default)]
    sources: String,
    #[serde(default)]
    since: String,
    #[serde(default)]
    tap: String,
}

pub(crate) async fn subscribe(visit: Visit, Form(form): Form<Wish>) -> Result<Response, Refusal> {
    let subscription = Subscription {
        since: given(&form.since).map(timestamp::parse).transpose().map_err(Refusal::wrong)?,
        types: lines(&form.types),
        sources: lines(&form.sources),
        tap: !form.tap.is_empty(),
        topic: form.topic,
        target: form.target,
    };
    visit.acting()?.subscribe(&subscription).await?;
    Ok(go_to("topics"))
}

#[derive(Deserialize)]
pub(crate) struct End {
    topic: String,
    target: String,
}

pub(crate) async fn unsubscribe(visit: Visit, Form(form): Form<End>) -> Result<Response, Refusal> {
    if !visit.acting()?.unsubscribe(&form.topic, &form.target).await? {
        return Err(Refusal::changed(format!("{:?} is not subscribed to {:?}", form.target, form.topic)));
    }
    Ok(go_to("topics"))
}

impl From<TopicRow> for Topic {
    fn from(row: TopicRow) -> Self {
        let subscribed = row.target.is_some();
        let all = |names: Vec<String>| if subscribed && names.is_empty() { "all".to_owned() } else { names.join(", ") };
        let (state, mood) = match (subscribed, row.is_behind, row.tapped) {
            (false, ..) => ("nobody is subscribed", "uneasy"),
            (_, true, _) => ("behind", "uneasy"),
            (_, _, true) => ("taps a queue", "well"),
            _ => ("subscribed", "well"),
        };
        Self {
            types: all(row.types),
            sources: all(row.sources),
            since: row.subscribed_at.map(time),
            waiting: row.waiting.map_or_else(|| words::NOTHING.to_owned(), words::count),
            unrouted: words::count(row.unrouted),
            name: row.topic,
            target: row.target,
            state,
            mood,
        }
    }
}
