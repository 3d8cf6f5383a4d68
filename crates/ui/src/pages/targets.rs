//! Every target.

use askama::Template;
use axum::{extract::Query, http::StatusCode, response::Response};

use crate::{
    app::Visit,
    lines::TargetLine,
    page::{Frame, Refusal, page},
    tables::targets::Wanted,
};

#[derive(Template)]
#[template(path = "targets.html")]
struct TargetsPage {
    frame: Frame,
    named: String,
    targets: Vec<TargetLine>,
    found: usize,
    number: usize,
    pages: usize,
}

pub(crate) async fn show(visit: Visit, Query(wanted): Query<Wanted>) -> Result<Response, Refusal> {
    let targets = visit.app.reader().targets().await?;
    let found = wanted.of(&targets);
    let (number, pages) = wanted.number(found.len());
    let template = TargetsPage {
        frame: visit.frame("Targets", "Targets"),
        targets: wanted.lines(&found),
        named: wanted.named,
        found: found.len(),
        number,
        pages,
    };
    Ok(page(StatusCode::OK, &template))
}
