//! Who may what in the database.

use askama::Template;
use axum::{http::StatusCode, response::Response};
use doorbell::operate::RightsRow;

use crate::{
    app::Visit,
    page::{Frame, Refusal, page},
};

#[derive(Template)]
#[template(path = "rights.html")]
struct RightsPage {
    frame: Frame,
    rights: Vec<RightsRow>,
}

pub(crate) async fn show(visit: Visit) -> Result<Response, Refusal> {
    let rights = visit.app.reader().rights().await?;
    Ok(page(StatusCode::OK, &RightsPage { frame: visit.frame("Rights", "Rights"), rights }))
}
