//! What every request has to pass, and what every answer carries.

use std::sync::Arc;

use axum::{
    extract::{OriginalUri, Request, State},
    http::{
        HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri,
        header::{
            CACHE_CONTROL, CONTENT_SECURITY_POLICY, HOST, LOCATION, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
            X_FRAME_OPTIONS,
        },
    },
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::{app::App, assets, page::Refusal, pages::login};

/// Nothing but what this server serves, and nothing inline.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
    form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

const ALWAYS: [(HeaderName, &str); 6] = [
    (CONTENT_SECURITY_POLICY, POLICY),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (X_FRAME_OPTIONS, "DENY"),
    (REFERRER_POLICY, "same-origin"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// Refuses whom the host, the person or their rights do not let in.
pub(super) async fn guard(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let mut response = match admitted(&app, request) {
        Ok(request) => next.run(request).await,
        Err(refused) => *refused,
    };
    let headers = response.headers_mut();
    for (name, value) in ALWAYS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// The request, with the person who asks.
fn admitted(app: &App, request: Request) -> Result<Request, Box<Response>> {
    let refused = |response: Response| Err(Box::new(response));
    let (mut parts, body) = request.into_parts();
    let host = host(&parts.headers, &parts.uri);
    if !app.options().knows_host(host) {
        let what = format!("this server does not go by the name {host:?}");
        let how = "if it should, name it: --allow-host of doorbell ui, Options::hosts of the library";
        return refused(Refusal::new(StatusCode::MISDIRECTED_REQUEST, what, how).into_response());
    }
    if parts.uri.path() == "/" {
        let outside = parts.extensions.get::<OriginalUri>().map_or(&parts.uri, |original| &original.0);
        if let Some(there) = with_slash(outside) {
            return refused((StatusCode::PERMANENT_REDIRECT, [(LOCATION, there)]).into_response());
        }
    }
    let changes = !matches!(parts.method, Method::GET | Method::HEAD);
    let path = parts.uri.path();
    // What is needed to be let in.
    if path == login::PATH || assets::PATHS.contains(&path) {
        return Ok(Request::from_parts(parts, body));
    }
    let Some(mut person) = app.options().access.who(&parts) else {
        return refused(login::demand(app, &parts.uri));
    };
    let rights = &mut person.rights;
    rights.act &= !app.options().read_only;
    rights.payload &= !app.options().hide_payload;
    if changes && !rights.act {
        let why = if app.options().read_only { "these pages are read-only" } else { "you may look, and not act" };
        let how = "somebody with the right to act can do it, or `doorbell` on the command line";
        return refused(Refusal::new(StatusCode::FORBIDDEN, why, how).into_response());
    }
    parts.extensions.insert(person);
    Ok(Request::from_parts(parts, body))
}

/// What the browser takes us for.
fn host<'a>(headers: &'a HeaderMap, uri: &'a Uri) -> &'a str {
    let header = headers.get(HOST).and_then(|host| host.to_str().ok());
    uri.authority().map(|authority| authority.as_str()).or(header).unwrap_or_default()
}

/// Where the root below a path is, if it was asked for without the slash that relative links need.
fn with_slash(outside: &Uri) -> Option<String> {
    let last = outside.path().rsplit('/').next().filter(|last| !last.is_empty())?;
    Some(match outside.query() {
        Some(query) => format!("{last}/?{query}"),
        None => format!("{last}/"),
    })
}
