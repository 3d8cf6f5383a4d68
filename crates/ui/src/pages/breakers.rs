//! Circuit breakers.

use askama::Template;
use axum::{http::StatusCode, response::Response};
use doorbell::operate::BreakerRow;

use crate::{
    app::Visit,
    page::{Frame, Refusal, page},
};

#[derive(Template)]
#[template(path = "breakers.html")]
struct BreakersPage {
    frame: Frame,
    breakers: Vec<BreakerRow>,
    act: bool,
}

pub(crate) async fn show(visit: Visit) -> Result<Response, Refusal> {
    let breakers = visit.app.reader().breakers().await?;
    let act = visit.person.rights.act;
    Ok(page(StatusCode::OK, &BreakersPage { frame: visit.frame("Breakers", "Breakers"), breakers, act }))
}
