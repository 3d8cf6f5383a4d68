//! Requests for whose answers somebody waits.

use askama::Template;
use axum::{http::StatusCode, response::Response};
use doorbell::operate::WaitingRequest;

use crate::{
    app::Visit,
    page::{Frame, Refusal, page},
    words::{Time, time},
};

const LINES: u32 = 100;

#[derive(Template)]
#[template(path = "requests.html")]
struct RequestsPage {
    frame: Frame,
    requests: Vec<Request>,
}

struct Request {
    id: i64,
    target: String,
    record_type: String,
    source: String,
    status: &'static str,
    attempt: i32,
    asked: Time,
    ends: Time,
    owner: String,
}

pub(crate) async fn show(visit: Visit) -> Result<Response, Refusal> {
    let requests = visit.app.reader().waiting_requests(LINES).await?.into_iter().map(Request::from).collect();
    Ok(page(StatusCode::OK, &RequestsPage { frame: visit.frame("Requests", "Requests"), requests }))
}

impl From<WaitingRequest> for Request {
    fn from(row: WaitingRequest) -> Self {
        Self {
            id: row.id,
            target: row.target,
            record_type: row.record_type,
            source: row.source,
            status: row.status.as_str(),
            attempt: row.attempt,
            asked: time(row.created_at),
            ends: time(row.expires_at),
            owner: row.owner.unwrap_or_default(),
        }
    }
}
