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

use crate::{
    app::Visit,
    page::{Frame, Refusal, page},
    summary::Summary,
    view::{Address, View},
};

#[derive(Template)]
#[template(path = "overview.html")]
struct OverviewPage {
    frame: Frame,
    summary: Summary,
}

pub(crate) async fn show(visit: Visit) -> Result<Response, Refusal> {
    let summary = visit.app.eyes().look(&[]).await?.summary;
    Ok(page(StatusCode::OK, &OverviewPage { frame: visit.frame("Overview", "Overview"), summary }))
}

/// What changes of a page, as long as somebody looks at it.
pub(crate) async fn watch(
    visit: Visit,
    Query(address): Query<Address>,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let changes = visit.app.live().watch(visit.app.eyes(), View::read(address, visit.person.rights.act));
    Sse::new(changes.map(|change| Ok(Event::default().data(change.to_string())))).keep_alive(KeepAlive::new())
}
