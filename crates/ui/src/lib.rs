//! Pages for operators: what is wrong, why, and what to type. `doorbell ui` serves them; [`router`] is for services that have a
//! login of their own.
//!
//! ```no_run
//! # async fn example(broker: doorbell::Broker) -> Result<(), Box<dyn std::error::Error>> {
//! use doorbell_ui::{Access, Options, Person, Rights};
//!
//! // Whoever your own login has let in; None refuses.
//! let access = Access::asked(|request| {
//!     let name = request.headers.get("x-user")?.to_str().ok()?;
//!     Some(Person { name: name.to_owned(), rights: Rights::LOOK })
//! });
//! let options = Options { hosts: vec!["ops.example.com".to_owned()], ..Options::new(access) };
//! // `nest_service`, because `nest` answers `/doorbell` and not `/doorbell/`.
//! let app = axum::Router::<()>::new().nest_service("/doorbell", doorbell_ui::router(&broker, options)?);
//! # Ok(())
//! # }
//! ```
//!
//! Every page is a GET that works without a script, over connections on which the server refuses every change; their number is
//! bounded, and so is the time that each look takes.

mod access;
mod app;
mod assets;
mod concealed;
mod examined;
mod filter;
mod guard;
mod lines;
mod live;
mod looking;
mod network;
mod options;
mod page;
mod pages;
mod spark;
mod standing;
mod summary;
mod tables;
mod verb;
mod view;
mod words;

use std::sync::Arc;

use axum::{
    Router, middleware,
    routing::{get, post},
};
use doorbell::{Broker, Result};
use tower_http::csrf::CsrfLayer;

use self::app::App;

pub use self::{
    access::{Access, Person, Rights},
    network::Network,
    options::Options,
};

/// The pages, for the root of a server or below a path of one. Where access goes by the address of a proxy, serve with
/// `into_make_service_with_connect_info::<SocketAddr>()`.
///
/// # Errors
/// [`Config`](doorbell::ErrorKind::Config) for what is no path in [`Options::redact`], or leads to no trace.
pub fn router(broker: &Broker, options: Options) -> Result<Router> {
    let app = Arc::new(App::new(broker, options)?);
    let router = Router::new()
        .route("/", get(pages::overview::show))
        .route("/live", get(pages::overview::watch))
        .route("/targets", get(pages::targets::show))
        .route("/target", get(pages::target::show))
        .route("/messages", get(pages::messages::show))
        .route("/message", get(pages::message::show))
        .route("/messages.ndjson", get(pages::download::send))
        .route("/find", get(pages::find::go))
        .route("/change", get(pages::change::preview).post(pages::change::perform))
        .route("/pause", post(pages::steer::pause))
        .route("/resume", post(pages::steer::resume))
        .route("/setting", post(pages::steer::set))
        .route("/breaker", post(pages::steer::breaker))
        .route("/keys", get(pages::keys::show))
        .route("/unblock", post(pages::keys::unblock))
        .route("/topics", get(pages::topics::show))
        .route("/subscribe", post(pages::topics::subscribe))
        .route("/unsubscribe", post(pages::topics::unsubscribe))
        .route("/replay", get(pages::replay::preview).post(pages::replay::perform))
        .route("/schedules", get(pages::schedules::show))
        .route("/schedule", post(pages::schedules::steer))
        .route("/add-schedule", post(pages::schedules::add))
        .route("/requests", get(pages::requests::show))
        .route("/captures", get(pages::captures::show))
        .route("/uncapture", post(pages::captures::uncapture))
        .route("/evict", post(pages::consumers::evict))
        .route("/grant", post(pages::rights::grant))
        .route("/revoke", post(pages::rights::revoke))
        .route("/breakers", get(pages::breakers::show))
        .route("/dead-letters", get(pages::dead_letters::show))
        .route("/consumers", get(pages::consumers::show))
        .route("/audit", get(pages::audit::show))
        .route("/rights", get(pages::rights::show))
        .route("/doctor", get(pages::doctor::show))
        .route("/login", get(pages::login::show).post(pages::login::enter))
        .route("/style.css", get(assets::style))
        .route("/script.js", get(assets::script))
        .route("/icon.svg", get(assets::icon))
        .fallback(pages::absent)
        .layer(CsrfLayer::new())
        .layer(middleware::from_fn_with_state(app.clone(), guard::guard));
    Ok(router.with_state(app))
}
