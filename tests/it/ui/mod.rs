//! The pages of `doorbell ui`: who gets in, and what they say.

mod acts;
mod browser;
mod guard;
mod hostile_sites;
mod live;
mod pages;
mod payload;
mod picture;
mod prices;
mod routes;
mod tabs;
mod texts;

use axum::{
    Router,
    body::{Body, to_bytes},
    http::{HeaderMap, Request, StatusCode},
};
use doorbell_ui::{Access, Options, Person, Rights, router};
use tower::ServiceExt;

use crate::support::Database;

/// The pages, asked without a socket between.
struct Pages(Router);

/// An answer.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: String,
}

fn anna(rights: Rights) -> Person {
    Person { name: "anna".to_owned(), rights }
}

/// For whoever asks, with these rights.
fn for_anybody(rights: Rights) -> Options {
    Options::new(Access::anybody(anna(rights)))
}

impl Pages {
    async fn of(db: &Database, options: Options) -> Self {
        Self(router(&db.broker().await, options).unwrap())
    }

    /// What a browser gets that asks for it on this machine.
    async fn get(&self, path: &str) -> Answer {
        self.ask(Request::get(path).header("host", "localhost:7171")).await
    }

    /// The page, which must be there.
    async fn page(&self, path: &str) -> String {
        let answer = self.get(path).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}: {}", answer.body);
        answer.body
    }

    /// What a browser gets that sends this form from a page of ours.
    async fn post(&self, path: &str, form: &str) -> Answer {
        let request = Request::post(path).header("host", "localhost:7171").header("sec-fetch-site", "same-origin");
        let request = request.header("content-type", "application/x-www-form-urlencoded");
        self.send(request.body(Body::from(form.to_owned())).unwrap()).await
    }

    async fn ask(&self, request: axum::http::request::Builder) -> Answer {
        self.send(request.body(Body::empty()).unwrap()).await
    }

    async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.0.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, 64 << 20).await.unwrap();
        Answer { status: parts.status, headers: parts.headers, body: String::from_utf8(body.into()).unwrap() }
    }
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
    }
}
