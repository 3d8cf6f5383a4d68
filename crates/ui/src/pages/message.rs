//! One message: why it is where it is, what happened to it, what it is.

use std::{collections::BTreeMap, time::SystemTime};

use askama::Template;
use axum::{extract::Query, http::StatusCode, response::Response};
use doorbell::{
    MessageId,
    operate::{AuditEvent, Explanation, StoredMessage},
};
use serde::Deserialize;
use serde_json::Value;

use crate::{
    app::Visit,
    lines::MessageLine,
    options::TRACE_ID,
    page::{Frame, Refusal, page},
    verb::Verb,
    words::{self, Time, time},
};

/// A browser gets no more of a payload.
const SHOWN_CHARS_MAX: usize = 1 << 20;

#[derive(Deserialize)]
pub(crate) struct Wanted {
    id: MessageId,
    #[serde(default)]
    payload: String,
}

#[derive(Template)]
#[template(path = "message.html")]
struct MessagePage {
    frame: Frame,
    message: MessageLine,
    archived: bool,
    causes: Vec<Explanation>,
    life: Vec<Event>,
    fields: Vec<(&'static str, String)>,
    times: Vec<(&'static str, Time)>,
    contents: Contents,
    /// Where its trace is to be seen.
    trace: Option<String>,
    /// The message that it is a copy of.
    origin: Option<MessageId>,
    /// The key that it shares with others of its target.
    key: Option<String>,
    /// What could be done with it.
    verbs: Vec<Verb>,
}

/// What of headers and payload is to be seen.
enum Contents {
    Hidden,
    Closed,
    Shown { headers: Option<String>, payload: Option<String>, cut: bool },
}

/// A line of its life.
struct Event {
    at: Time,
    action: String,
    attempt: Option<i32>,
    by: String,
    owner: String,
    details: String,
}

pub(crate) async fn show(visit: Visit, Query(wanted): Query<Wanted>) -> Result<Response, Refusal> {
    let id = wanted.id;
    let open = visit.person.rights.payload && wanted.payload == "shown";
    let reader = visit.app.reader();
    let (message, causes, life) = tokio::try_join!(reader.show(id, open), reader.explain(id), reader.audit(id))?;
    let Some(message) = message else {
        return Err(Refusal::absent(causes.first().map_or_else(String::new, |cause| cause.sentence.clone())));
    };
    if open {
        tracing::info!(person = visit.person.name, %id, "opened a payload");
    }
    let template = MessagePage {
        message: MessageLine::from(&message.row),
        archived: message.archived,
        verbs: Verb::of(message.row.status).filter(|_| !message.archived && visit.person.rights.act).collect(),
        causes,
        life: life.into_iter().map(event).collect(),
        trace: trace(&visit, &message),
        origin: message.origin,
        key: message.ordering_key.clone(),
        fields: fields(&message),
        times: times(&message),
        contents: contents(&visit, open, &message),
        frame: visit.frame(format!("Message {id}"), "Messages"),
    };
    Ok(page(StatusCode::OK, &template))
}

fn event(event: AuditEvent) -> Event {
    Event {
        at: time(event.at),
        action: event.action,
        attempt: event.attempt,
        by: event.by.or(event.role).unwrap_or_default(),
        owner: event.owner.unwrap_or_default(),
        details: event.details.filter(|details| details != "{}").unwrap_or_default(),
    }
}

/// What there is to say of it, in the words of the command line.
fn fields(message: &StoredMessage) -> Vec<(&'static str, String)> {
    let row = &message.row;
    let number = |number: i32| (number != 0).then(|| number.to_string());
    let waits = || message.coalescing.as_ref();
    let all = [
        ("priority", number(row.priority)),
        ("retries used", number(row.retry_count)),
        ("retries at most", message.max_retries.map(|most| most.to_string())),
        ("consumers that died with it", number(row.crash_count)),
        ("put back", number(row.redrive_count)),
        ("coalesce key", waits().map(|waits| waits.key.clone())),
        ("replaced", waits().map(|waits| format!("{} times", waits.replaced))),
        ("dedup key", message.dedup_key.clone()),
        ("owner", row.owner.clone()),
    ];
    all.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}

fn times(message: &StoredMessage) -> Vec<(&'static str, Time)> {
    let row = &message.row;
    let put_off = message.coalescing.as_ref().and_then(|waits| waits.put_off_until);
    let all: [(_, Option<SystemTime>); 7] = [
        ("published", Some(row.created_at)),
        ("last changed", Some(row.updated_at)),
        ("due", row.available_at),
        ("put off until, at most", put_off),
        ("completed", message.processed_at),
        ("lease until", message.lease_until),
        ("not wanted after", message.expires_at),
    ];
    all.into_iter().filter_map(|(name, at)| Some((name, time(at?)))).collect()
}

/// The address of its trace, where there is one and whoever looks may see headers.
fn trace(visit: &Visit, message: &StoredMessage) -> Option<String> {
    let template = visit.app.options().trace_url.as_ref().filter(|_| visit.person.rights.payload)?;
    let headers: BTreeMap<String, Value> = serde_json::from_str(message.headers.as_ref()?).ok()?;
    let (_, rest) = headers.get("traceparent")?.as_str()?.split_once('-')?;
    let (id, _) = rest.split_once('-')?;
    let is_id = id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_id.then(|| template.replace(TRACE_ID, id))
}

fn contents(visit: &Visit, open: bool, message: &StoredMessage) -> Contents {
    if !visit.person.rights.payload {
        return Contents::Hidden;
    }
    if !open {
        return Contents::Closed;
    }
    let shown = |json: &str| words::indented(&visit.app.concealed().applied(json));
    let mut payload = message.payload.as_deref().map(shown);
    let end = payload.as_ref().and_then(|payload| payload.char_indices().nth(SHOWN_CHARS_MAX)).map(|(end, _)| end);
    if let (Some(payload), Some(end)) = (&mut payload, end) {
        payload.truncate(end);
    }
    Contents::Shown { headers: message.headers.as_deref().map(shown), payload, cut: end.is_some() }
}
