//! Who may what in the database.

use askama::Template;
use axum::{Form, http::StatusCode, response::Response};
use doorbell::operate::{AppRights, RightsRow, Verb};
use serde::Deserialize;

use crate::{
    app::Visit,
    page::{Frame, Refusal, go_to, page},
    words::{given, lines},
};

#[derive(Template)]
#[template(path = "rights.html")]
struct RightsPage {
    frame: Frame,
    rights: Vec<RightsRow>,
    act: bool,
}

impl RightsPage {
    fn verbs(&self) -> impl Iterator<Item = &'static str> {
        Verb::ALL.into_iter().map(Verb::as_str)
    }
}

pub(crate) async fn show(visit: Visit) -> Result<Response, Refusal> {
    let rights = visit.app.reader().rights().await?;
    let act = visit.person.rights.act;
    Ok(page(StatusCode::OK, &RightsPage { frame: visit.frame("Rights", "Rights"), rights, act }))
}

/// To whom, and for what: a verb, or an application.
#[derive(Deserialize)]
pub(crate) struct Wish {
    role: String,
    #[serde(default)]
    verb: String,
    #[serde(default)]
    app: String,
    #[serde(default)]
    publish_to: String,
    #[serde(default)]
    consume: String,
    #[serde(default)]
    max_priority: String,
    #[serde(default)]
    max_pending: String,
}

impl Wish {
    fn verb(&self) -> Result<Option<Verb>, Refusal> {
        Ok(given(&self.verb).map(str::parse).transpose()?)
    }

    fn app(&self) -> Result<&str, Refusal> {
        given(&self.app).ok_or_else(|| Refusal::wrong("for which application, or which verb?"))
    }

    fn rights(&self) -> Result<AppRights, Refusal> {
        Ok(AppRights {
            publish_to: lines(&self.publish_to),
            consume: !self.consume.is_empty(),
            max_priority: number("the highest priority", &self.max_priority)?,
            max_pending: number("how many may wait", &self.max_pending)?,
        })
    }
}

fn number(what: &str, text: &str) -> Result<Option<i32>, Refusal> {
    let wrong = |_| Refusal::wrong(format!("{what}: {text:?} is no number"));
    given(text).map(str::parse).transpose().map_err(wrong)
}

pub(crate) async fn grant(visit: Visit, Form(form): Form<Wish>) -> Result<Response, Refusal> {
    let operator = visit.acting()?;
    match form.verb()? {
        Some(verb) => operator.grant(&form.role, verb).await?,
        None => operator.grant_app(form.app()?, &form.role, &form.rights()?).await?,
    }
    tracing::info!(person = visit.person.name, form.role, form.verb, form.app, "granted rights");
    Ok(go_to("rights"))
}

pub(crate) async fn revoke(visit: Visit, Form(form): Form<Wish>) -> Result<Response, Refusal> {
    let operator = visit.acting()?;
    match form.verb()? {
        Some(verb) => operator.revoke(&form.role, verb).await?,
        None => {
            let app = form.app()?;
            if !operator.revoke_app(app, &form.role).await? {
                return Err(Refusal::changed(format!("the role {:?} may do nothing for {app:?}", form.role)));
            }
        }
    }
    tracing::info!(person = visit.person.name, form.role, form.verb, form.app, "revoked rights");
    Ok(go_to("rights"))
}
