//! How everything stands: trouble first.

use std::convert::Infallible;

use askama::Template;
use axum::{
    extract::Query,
    http::StatusCode,
    response::{
        Response, Sse,
        sse::{Event, KeepAlive},
    },
};
use futures::{Stream, StreamExt};
use serde::Deserialize;

use crate::{
    app::Visit,
    page::{Frame, Refusal, page},
    summary::Summary,
};

#[derive(Template)]
#[template(path = "overview.html")]
struct OverviewPage {
    frame: Frame,
    summary: Summary,
}

pub(crate) async fn show(visit: Visit) -> Result<Response, Refusal> {
    let summary = visit.app.eyes().look().await?.summary;
    Ok(page(StatusCode::OK, &OverviewPage { frame: visit.frame("Overview", "Overview"), summary }))
}

/// What somebody looks at.
#[derive(Deserialize)]
pub(crate) struct Watched {
    /// `None`: the overview.
    target: Option<String>,
}

/// What changes of it, as long as somebody looks.
pub(crate) async fn watch(
    visit: Visit,
    Query(watched): Query<Watched>,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let changes = visit.app.live().watch(visit.app.eyes(), watched.target);
    Sse::new(changes.map(|change| Ok(Event::default().data(change.to_string())))).keep_alive(KeepAlive::new())
}
