//! Ordering keys: of which messages wait, and what for.

use askama::Template;
use axum::{Form, extract::Query, http::StatusCode, response::Response};
use doorbell::{operate::Unblock, written::shell::quoted};
use serde::Deserialize;

use crate::{
    app::Visit,
    page::{Frame, Refusal, go_to, page},
    tables::keys::{Key, LINES, Wanted},
    words::in_address,
};

#[derive(Template)]
#[template(path = "keys.html")]
struct KeysPage {
    frame: Frame,
    target: String,
    keys: Vec<Key>,
    /// The address of the next page.
    next: Option<String>,
    /// Where it is told what changes.
    source: String,
    command: Option<String>,
    act: bool,
}

pub(crate) async fn show(visit: Visit, Query(wanted): Query<Wanted>) -> Result<Response, Refusal> {
    let target = wanted.target.trim();
    let keys = wanted.find(visit.app.reader()).await?;
    // Of blocked ones there is no next page: the first are to be seen to first.
    let last = keys.last().filter(|_| !target.is_empty() && keys.len() == LINES as usize);
    let template = KeysPage {
        frame: visit.frame("Ordering keys", "Keys"),
        next: last.map(|key| format!("keys?target={}&after={}", in_address(target), in_address(&key.key))),
        command: (!target.is_empty()).then(|| format!("doorbell keys {}", quoted(target))),
        source: format!("live?view=keys&target={}&after={}", in_address(target), in_address(&wanted.after)),
        target: target.to_owned(),
        keys: keys.iter().map(Key::from).collect(),
        act: visit.person.rights.act,
    };
    Ok(page(StatusCode::OK, &template))
}

#[derive(Deserialize)]
pub(crate) struct Blocked {
    target: String,
    key: String,
    how: String,
}

pub(crate) async fn unblock(visit: Visit, Form(form): Form<Blocked>) -> Result<Response, Refusal> {
    let how = match form.how.as_str() {
        "redrive" => Unblock::Redrive,
        "cancel" => Unblock::Cancel,
        other => return Err(Refusal::wrong(format!("a message is redriven or cancelled, not {other:?}"))),
    };
    if visit.acting()?.unblock(&form.target, &form.key, how).await?.is_empty() {
        return Err(Refusal::changed(format!("the key {:?} of {:?} is not blocked", form.key, form.target)));
    }
    Ok(go_to(&format!("keys?target={}", in_address(&form.target))))
}
