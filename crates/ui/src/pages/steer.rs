//! What is done to targets and breakers. Each goes back to the page of what it changed.

use axum::{Form, response::Response};
use doorbell::written::duration;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::{
    app::Visit,
    page::{Refusal, go_to},
    words::{given, in_address},
};

#[derive(Deserialize)]
pub(crate) struct Pause {
    target: String,
    #[serde(default)]
    reason: String,
    #[serde(default, rename = "for")]
    for_: String,
}

pub(crate) async fn pause(visit: Visit, Form(form): Form<Pause>) -> Result<Response, Refusal> {
    let for_ = given(&form.for_).map(duration::parse).transpose().map_err(Refusal::wrong)?;
    visit.acting()?.pause(&form.target, given(&form.reason), for_).await?;
    Ok(back_to_target(&form.target))
}

#[derive(Deserialize)]
pub(crate) struct Resume {
    target: String,
}

pub(crate) async fn resume(visit: Visit, Form(form): Form<Resume>) -> Result<Response, Refusal> {
    visit.acting()?.resume(&form.target).await?;
    Ok(back_to_target(&form.target))
}

#[derive(Deserialize)]
pub(crate) struct Setting {
    target: String,
    setting: String,
    #[serde(default)]
    value: String,
}

/// One setting; nothing is what the installation has.
pub(crate) async fn set(visit: Visit, Form(form): Form<Setting>) -> Result<Response, Refusal> {
    // A text is what every setting can be read from.
    let value = given(&form.value).map_or(Value::Null, |value| Value::String(value.to_owned()));
    let settings = Value::Object(Map::from_iter([(form.setting, value)]));
    visit.acting()?.set_target(&form.target, &settings.to_string()).await?;
    Ok(back_to_target(&form.target))
}

#[derive(Deserialize)]
pub(crate) struct Breaker {
    key: String,
    state: String,
    #[serde(default)]
    reason: String,
    #[serde(default, rename = "for")]
    for_: String,
}

pub(crate) async fn breaker(visit: Visit, Form(form): Form<Breaker>) -> Result<Response, Refusal> {
    let reason = given(&form.reason);
    match form.state.as_str() {
        "open" => {
            let reopen = given(&form.for_).map(duration::parse).transpose().map_err(Refusal::wrong)?;
            visit.acting()?.open_breaker(&form.key, reason, reopen).await?;
        }
        "closed" => {
            visit.acting()?.close_breaker(&form.key, reason).await?;
        }
        other => return Err(Refusal::wrong(format!("a breaker is made open or closed, not {other:?}"))),
    }
    Ok(go_to("breakers"))
}

fn back_to_target(target: &str) -> Response {
    go_to(&format!("target?name={}", in_address(target)))
}
