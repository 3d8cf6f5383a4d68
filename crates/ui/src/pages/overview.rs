//! How everything stands: trouble first.

use std::convert::Infallible;

use askama::Template;
use axum::{
    http::StatusCode,
    response::{
        Response, Sse,
        sse::{Event, KeepAlive},
    },
};
use futures::{Stream, StreamExt};

use crate::{
    app::Visit,
    live::SHOWN_MAX,
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
    let summary = Summary::from(&visit.app.reader().overview(SHOWN_MAX).await?);
    Ok(page(StatusCode::OK, &OverviewPage { frame: visit.frame("Overview", "Overview"), summary }))
}

/// What changes of it, as long as somebody looks.
pub(crate) async fn watch(visit: Visit) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let changes = visit.app.live().watch(visit.app.reader());
    Sse::new(changes.map(|change| Ok(Event::default().data(change.to_string())))).keep_alive(KeepAlive::new())
}
