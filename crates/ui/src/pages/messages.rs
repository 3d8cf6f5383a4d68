//! Messages, by a filter.

use askama::Template;
use axum::{extract::Query, http::StatusCode, response::Response};
use doorbell::operate::Status;

use crate::{
    app::Visit,
    filter::Pairs,
    lines::MessageLine,
    page::{Frame, Refusal, page},
    verb::Verb,
    words::{Time, time},
};

const LINES: u32 = 50;

#[derive(Template)]
#[template(path = "messages.html")]
struct MessagesPage {
    frame: Frame,
    pairs: Pairs,
    act: bool,
    messages: Vec<MessageLine>,
    command: String,
    may_search_payloads: bool,
    /// Where the next page begins.
    next: Option<String>,
    /// How far a look got that ended before the page was full.
    looked_until: Option<Time>,
}

impl MessagesPage {
    fn statuses(&self) -> impl Iterator<Item = &'static str> {
        Status::ALL.into_iter().map(Status::as_str)
    }

    /// What could be done with messages of the status that was asked for, or of any.
    fn verbs(&self) -> Vec<Verb> {
        let statuses = Status::ALL
            .into_iter()
            .filter(|status| matches!(self.pairs.value("status"), "") || self.pairs.has("status", status.as_str()));
        let mut verbs: Vec<Verb> = statuses.flat_map(Verb::of).collect();
        verbs.sort_by_key(|verb| verb.name());
        verbs.dedup();
        verbs
    }
}

pub(crate) async fn show(visit: Visit, Query(query): Query<Vec<(String, String)>>) -> Result<Response, Refusal> {
    let (pairs, after) = asked(&visit, query)?;
    let filter = pairs.filter().map_err(Refusal::wrong)?;
    let found = visit.app.reader().list(&filter, None, LINES, after.as_deref()).await?;
    let template = MessagesPage {
        frame: visit.frame("Messages", "Messages"),
        command: pairs.command("list"),
        may_search_payloads: visit.may_search_payloads(),
        messages: found.messages.iter().map(MessageLine::from).collect(),
        next: found.next,
        looked_until: found.looked_until.map(time),
        act: visit.person.rights.act,
        pairs,
    };
    Ok(page(StatusCode::OK, &template))
}

/// What an address asks for, and after which cursor.
pub(super) fn asked(visit: &Visit, query: Vec<(String, String)>) -> Result<(Pairs, Option<String>), Refusal> {
    let after = query.iter().find(|(name, _)| name == "after").map(|(_, after)| after.clone());
    let pairs = Pairs::of(query);
    if pairs.goes_by_contents() && !visit.may_search_payloads() {
        let why = "messages are not looked for by payloads or headers here";
        return Err(Refusal::new(StatusCode::FORBIDDEN, why, "payloads are hidden from you, or redacted"));
    }
    Ok((pairs, after))
}
