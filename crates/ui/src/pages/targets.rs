//! Every target.

use askama::Template;
use axum::{extract::Query, http::StatusCode, response::Response};
use serde::Deserialize;

use crate::{
    app::Visit,
    lines::TargetLine,
    page::{Frame, Refusal, page},
};

/// Lines of one page.
const LINES: usize = 100;

/// Which of them.
#[derive(Deserialize)]
pub(crate) struct Wanted {
    /// Those whose name has this in it, in any case.
    #[serde(default)]
    named: String,
    /// From 1.
    #[serde(default)]
    page: usize,
}

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
    let named = wanted.named.trim().to_lowercase();
    let found: Vec<_> = targets.iter().filter(|target| target.stats.target.to_lowercase().contains(&named)).collect();
    let pages = found.len().div_ceil(LINES).max(1);
    let number = wanted.page.clamp(1, pages);
    let template = TargetsPage {
        frame: visit.frame("Targets", "Targets"),
        named: wanted.named,
        targets: found.iter().skip((number - 1) * LINES).take(LINES).map(|target| TargetLine::from(*target)).collect(),
        found: found.len(),
        number,
        pages,
    };
    Ok(page(StatusCode::OK, &template))
}
