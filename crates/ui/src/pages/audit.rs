//! The audit log, backwards.

use askama::Template;
use axum::{extract::Query, http::StatusCode, response::Response};
use doorbell::{
    operate::{AuditEvent, AuditFilter},
    written::{shell::quoted, timestamp},
};
use serde::Deserialize;

use crate::{
    app::Visit,
    page::{Frame, Refusal, page},
    words::{Time, in_address, time},
};

const LINES: u32 = 50;

#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct Wanted {
    target: String,
    action: String,
    by: String,
    since: String,
    until: String,
    after: String,
}

impl Wanted {
    /// What was given, as addresses and commands name it.
    fn pairs(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let all = [
            ("target", &self.target),
            ("action", &self.action),
            ("by", &self.by),
            ("since", &self.since),
            ("until", &self.until),
        ];
        all.into_iter().map(|(name, value)| (name, value.trim())).filter(|(_, value)| !value.is_empty())
    }

    fn filter(&self) -> Result<AuditFilter, String> {
        let mut filter = AuditFilter::default();
        for (name, value) in self.pairs() {
            let moment = || timestamp::parse(value).map(Some).map_err(|wrong| format!("{name}: {wrong}"));
            match name {
                "target" => filter.target = Some(value.to_owned()),
                "action" => filter.action = Some(value.to_owned()),
                "by" => filter.by = Some(value.to_owned()),
                "since" => filter.since = moment()?,
                _ => filter.until = moment()?,
            }
        }
        Ok(filter)
    }
}

#[derive(Template)]
#[template(path = "audit.html")]
struct AuditPage {
    frame: Frame,
    events: Vec<Event>,
    /// The address of the next page.
    next: Option<String>,
    looked_until: Option<Time>,
    command: String,
    wanted: Wanted,
}

struct Event {
    at: Time,
    action: String,
    id: Option<i64>,
    target: String,
    by: String,
    details: String,
}

pub(crate) async fn show(visit: Visit, Query(wanted): Query<Wanted>) -> Result<Response, Refusal> {
    let filter = wanted.filter().map_err(Refusal::wrong)?;
    let after = Some(wanted.after.as_str()).filter(|after| !after.is_empty());
    let found = visit.app.reader().audit_list(&filter, LINES, after).await?;
    let address: String = wanted.pairs().map(|(name, value)| format!("{name}={}&", in_address(value))).collect();
    let command = wanted
        .pairs()
        .fold("doorbell audit".to_owned(), |command, (name, value)| format!("{command} --{name} {}", quoted(value)));
    let template = AuditPage {
        frame: visit.frame("Audit", "Audit"),
        events: found.events.into_iter().map(Event::from).collect(),
        next: found.next.map(|next| format!("audit?{address}after={}", in_address(&next))),
        looked_until: found.looked_until.map(time),
        command,
        wanted,
    };
    Ok(page(StatusCode::OK, &template))
}

impl From<AuditEvent> for Event {
    fn from(event: AuditEvent) -> Self {
        Self {
            at: time(event.at),
            action: event.action,
            id: event.id,
            target: event.target.unwrap_or_default(),
            by: event.by.or(event.role).unwrap_or_default(),
            details: event.details.filter(|details| details != "{}").unwrap_or_default(),
        }
    }
}
