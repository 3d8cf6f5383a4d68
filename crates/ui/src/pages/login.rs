//! Showing a token.

use std::sync::Arc;

use axum::{
    Form,
    extract::State,
    http::{
        StatusCode, Uri,
        header::{LOCATION, SET_COOKIE},
    },
    response::{IntoResponse, Response},
};
use serde::Deserialize;

use crate::{
    access::TOKEN_COOKIE,
    app::App,
    page::{LoginPage, Refusal, page},
};

/// Where tokens are shown.
pub(crate) const PATH: &str = "/login";

#[derive(Deserialize)]
pub(crate) struct Shown {
    #[serde(default)]
    token: String,
}

/// The form.
pub(crate) async fn show(State(app): State<Arc<App>>) -> Response {
    match app.options().access.takes_tokens() {
        true => page(StatusCode::OK, &LoginPage::new(false, false)),
        false => (StatusCode::SEE_OTHER, [(LOCATION, "./")]).into_response(),
    }
}

/// Keeps a right one in a cookie.
pub(crate) async fn enter(State(app): State<Arc<App>>, Form(shown): Form<Shown>) -> Response {
    let token = shown.token.trim();
    match app.options().access.holder(token) {
        Some(person) => {
            tracing::info!(person = person.name, "showed a token");
            (StatusCode::SEE_OTHER, [(LOCATION, "./".to_owned()), (SET_COOKIE, cookie(token))]).into_response()
        }
        None => {
            tracing::warn!("showed a token that nobody has");
            page(StatusCode::FORBIDDEN, &LoginPage::new(true, false))
        }
    }
}

/// For whoever is not known: what to do. A right token in the address, as the program prints it, is kept.
pub(crate) fn demand(app: &App, uri: &Uri) -> Response {
    let access = &app.options().access;
    if !access.takes_tokens() {
        let how = "come by way of the proxy or the login that says it";
        return Refusal::new(StatusCode::UNAUTHORIZED, "nobody says who you are", how).into_response();
    }
    let token = uri.query().and_then(|query| query.split('&').find_map(|pair| pair.strip_prefix("token=")));
    match token.filter(|token| access.holder(token).is_some()) {
        // Not a redirect: followed from another site's link, it would leave the cookie behind.
        Some(token) => {
            ([(SET_COOKIE, cookie(token))], page(StatusCode::OK, &LoginPage::new(false, true))).into_response()
        }
        None => page(StatusCode::UNAUTHORIZED, &LoginPage::new(false, false)),
    }
}

/// For this browser's session and below this path, out of reach of scripts and of other sites.
fn cookie(token: &str) -> String {
    format!("{TOKEN_COOKIE}={token}; HttpOnly; SameSite=Strict")
}
