//! Tables whose changes are published.

use askama::Template;
use axum::{Form, http::StatusCode, response::Response};
use doorbell::operate::CaptureRow;
use serde::Deserialize;

use crate::{
    app::Visit,
    page::{Frame, Refusal, go_to, page},
    words::{Time, time},
};

#[derive(Template)]
#[template(path = "captures.html")]
struct CapturesPage {
    frame: Frame,
    captures: Vec<Capture>,
    act: bool,
}

struct Capture {
    table: String,
    target: String,
    record_type: String,
    columns: String,
    when: String,
    since: Time,
    is_on: bool,
}

pub(crate) async fn show(visit: Visit) -> Result<Response, Refusal> {
    let captures = visit.app.reader().captures().await?.into_iter().map(Capture::from).collect();
    let act = visit.person.rights.act;
    Ok(page(StatusCode::OK, &CapturesPage { frame: visit.frame("Captures", "Captures"), captures, act }))
}

#[derive(Deserialize)]
pub(crate) struct End {
    table: String,
}

pub(crate) async fn uncapture(visit: Visit, Form(form): Form<End>) -> Result<Response, Refusal> {
    if !visit.acting()?.uncapture(&form.table).await? {
        return Err(Refusal::changed(format!("the table {:?} is not captured", form.table)));
    }
    Ok(go_to("captures"))
}

impl From<CaptureRow> for Capture {
    fn from(row: CaptureRow) -> Self {
        Self {
            columns: if row.columns.is_empty() { "all".to_owned() } else { row.columns.join(", ") },
            when: row.when.unwrap_or_default(),
            since: time(row.captured_at),
            is_on: row.is_on,
            table: row.table,
            target: row.target,
            record_type: row.record_type,
        }
    }
}
