//! The processes that consume.

use askama::Template;
use axum::{Form, http::StatusCode, response::Response};
use doorbell::{operate::ProcessRow, written::duration};
use serde::Deserialize;

use crate::{
    app::Visit,
    page::{Frame, Refusal, go_to, page},
    words::{self, Time, time},
};

#[derive(Template)]
#[template(path = "consumers.html")]
struct ConsumersPage {
    frame: Frame,
    processes: Vec<Process>,
    act: bool,
}

struct Process {
    owner: String,
    place: String,
    program: String,
    targets: Vec<String>,
    in_hand: String,
    has_any: bool,
    beat: String,
    started: Time,
    alive: bool,
}

pub(crate) async fn show(visit: Visit) -> Result<Response, Refusal> {
    let processes = visit.app.reader().processes().await?;
    let processes = processes.into_iter().map(Process::from).collect();
    let act = visit.person.rights.act;
    Ok(page(StatusCode::OK, &ConsumersPage { frame: visit.frame("Consumers", "Consumers"), processes, act }))
}

#[derive(Deserialize)]
pub(crate) struct Owner {
    owner: String,
}

/// Takes from a process all that it has in hand.
pub(crate) async fn evict(visit: Visit, Form(form): Form<Owner>) -> Result<Response, Refusal> {
    if visit.acting()?.evict(&form.owner).await?.is_none() {
        return Err(Refusal::changed(format!("no process goes by the name {:?}", form.owner)));
    }
    Ok(go_to("consumers"))
}

impl From<ProcessRow> for Process {
    fn from(row: ProcessRow) -> Self {
        let age = std::time::Duration::try_from_secs_f64(row.beat_age_seconds).unwrap_or_default();
        Self {
            targets: row.target_names(),
            place: format!("{}, process {}", row.host, row.pid),
            program: format!("{} {}", row.application, row.version),
            in_hand: words::count(row.processing),
            has_any: row.processing > 0,
            beat: format!("{} ago", duration::coarse(age)),
            started: time(row.started_at),
            alive: row.alive,
            owner: row.owner,
        }
    }
}
