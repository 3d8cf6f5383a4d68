//! The pages, a file each: what it reads, and what its template is given.

pub(super) mod audit;
pub(super) mod breakers;
pub(super) mod captures;
pub(super) mod change;
pub(super) mod consumers;
pub(super) mod dead_letters;
pub(super) mod doctor;
pub(super) mod download;
pub(super) mod find;
pub(super) mod keys;
pub(super) mod login;
pub(super) mod message;
pub(super) mod messages;
pub(super) mod overview;
pub(super) mod replay;
pub(super) mod requests;
pub(super) mod rights;
pub(super) mod schedules;
pub(super) mod steer;
pub(super) mod target;
pub(super) mod targets;
pub(super) mod topics;

use axum::{extract::OriginalUri, http::StatusCode};

use super::page::Refusal;

/// For what is no page.
pub(super) async fn absent(OriginalUri(uri): OriginalUri) -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, format!("there is no page {}", uri.path()), "")
}
