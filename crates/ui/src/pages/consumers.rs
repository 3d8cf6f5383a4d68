//! The processes that consume.

use askama::Template;
use axum::{Form, http::StatusCode, response::Response};
use serde::Deserialize;

use crate::{
    app::Visit,
    page::{Frame, Refusal, go_to, page},
    tables::consumers::Process,
};

#[derive(Template)]
#[template(path = "consumers.html")]
struct ConsumersPage {
    frame: Frame,
    processes: Vec<Process>,
    act: bool,
}

pub(crate) async fn show(visit: Visit) -> Result<Response, Refusal> {
    let processes = visit.app.reader().processes().await?;
    let processes = processes.iter().map(Process::from).collect();
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
