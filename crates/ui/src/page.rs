//! What is around every page, and the page that says why there is none.

use std::time::SystemTime;

use askama::Template;
use axum::{
    http::{StatusCode, header::LOCATION},
    response::{Html, IntoResponse, Response},
};
use doorbell::{Error, ErrorKind};

use super::{access::Rights, assets};

/// What is around every page.
pub(super) struct Frame {
    pub(super) title: String,
    /// Which of the pages it is, as the navigation names it.
    pub(super) here: &'static str,
    /// The host and the name of the database.
    pub(super) database: String,
    pub(super) person: String,
    /// `None`: nobody was let in.
    pub(super) rights: Option<Rights>,
    /// What the page cost.
    pub(super) took: String,
}

/// Pages by address and name, in the order of the navigation.
const PLACES: [(&str, &str); 14] = [
    ("./", "Overview"),
    ("targets", "Targets"),
    ("messages", "Messages"),
    ("dead-letters", "Dead letters"),
    ("keys", "Keys"),
    ("topics", "Topics"),
    ("schedules", "Schedules"),
    ("requests", "Requests"),
    ("captures", "Captures"),
    ("consumers", "Consumers"),
    ("breakers", "Breakers"),
    ("rights", "Rights"),
    ("doctor", "Doctor"),
    ("audit", "Audit"),
];

impl Frame {
    /// The pages, and which of them this is.
    pub(super) fn places(&self) -> impl Iterator<Item = (&'static str, &'static str, bool)> {
        PLACES.into_iter().map(|(path, name)| (path, name, name == self.here))
    }

    /// When it was written, in ms since 1970.
    #[expect(clippy::disallowed_methods, reason = "the browser compares its clock; the doctor does this one's")]
    pub(super) fn now(&self) -> u128 {
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis()
    }

    /// With what it was made, so that browsers keep it as long as it is that.
    pub(super) fn assets(&self) -> &'static str {
        assets::version()
    }

    fn bare(title: &str) -> Self {
        let text = String::new;
        Self { title: title.to_owned(), here: "", database: text(), person: text(), rights: None, took: text() }
    }
}

/// A page as an answer.
pub(super) fn page(status: StatusCode, template: &impl Template) -> Response {
    match template.render() {
        Ok(html) => (status, Html(html)).into_response(),
        Err(error) => {
            tracing::error!(%error, "a page cannot be written");
            (StatusCode::INTERNAL_SERVER_ERROR, "this page cannot be written; the log says why\n").into_response()
        }
    }
}

/// What to do where that was asked for which is not so any more.
const CHANGED: &str = "look at it again: it has changed";

/// A part of a page, which needs nothing but what it is given.
pub(super) fn written(part: &impl Template) -> String {
    part.render().unwrap_or_default()
}

/// On to another page, once something was done.
pub(super) fn go_to(place: &str) -> Response {
    (StatusCode::SEE_OTHER, [(LOCATION, place)]).into_response()
}

/// Why there is no page.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    what: String,
    how: String,
}

impl Refusal {
    /// What is wrong, and what to do.
    pub(super) fn new(status: StatusCode, what: impl Into<String>, how: impl Into<String>) -> Self {
        Self { status, what: what.into(), how: how.into() }
    }

    /// Something was asked for that cannot be.
    pub(super) fn wrong(what: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, what, "go back and change it")
    }

    /// What was seen is not so any more.
    pub(super) fn changed(what: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, what, CHANGED)
    }

    pub(super) fn absent(what: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, what, "")
    }

    pub(super) fn stranger() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "nobody says who you are", "")
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        let (status, how) = match error.kind() {
            ErrorKind::Invalid => (StatusCode::BAD_REQUEST, "go back and change it"),
            ErrorKind::NotFound => (StatusCode::NOT_FOUND, ""),
            ErrorKind::IllegalTransition => (StatusCode::CONFLICT, CHANGED),
            ErrorKind::Forbidden => (StatusCode::FORBIDDEN, "doorbell rights says who may what"),
            _ if error.sqlstate() == Some("42501") => (StatusCode::FORBIDDEN, "doorbell rights says who may what"),
            ErrorKind::Schema => {
                (StatusCode::SERVICE_UNAVAILABLE, "doorbell doctor says more; doorbell migrate makes the schema")
            }
            _ if error.sqlstate().is_some_and(|state| state.starts_with("22") || state == "42601") => {
                (StatusCode::BAD_REQUEST, "go back and change it")
            }
            _ => (StatusCode::SERVICE_UNAVAILABLE, "this page is there again when the database is"),
        };
        let mut what = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            what = format!("{what}: {cause}");
            source = cause.source();
        }
        Self::new(status, what, how)
    }
}

#[derive(Template)]
#[template(path = "refusal.html")]
struct RefusalPage<'a> {
    frame: Frame,
    what: &'a str,
    how: &'a str,
    away: bool,
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let Self { status, what, how } = &self;
        let title = status.canonical_reason().unwrap_or("Refused");
        let away = *status == StatusCode::SERVICE_UNAVAILABLE;
        page(*status, &RefusalPage { frame: Frame::bare(title), what, how, away })
    }
}

#[derive(Template)]
#[template(path = "login.html")]
pub(super) struct LoginPage {
    pub(super) frame: Frame,
    pub(super) wrong: bool,
    /// The token was taken; on with it.
    pub(super) go_on: bool,
}

impl LoginPage {
    pub(super) fn new(wrong: bool, go_on: bool) -> Self {
        Self { frame: Frame::bare("Who are you?"), wrong, go_on }
    }
}
