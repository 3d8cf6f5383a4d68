//! What the doctor finds. Examined when somebody asks for it, one at a time, and kept for whoever looks next.

use std::time::Instant;

use askama::Template;
use axum::{
    extract::Query,
    http::{HeaderMap, StatusCode},
    response::Response,
};
use doorbell::{
    doctor::{Finding, Level, Options},
    written::duration,
};
use serde::Deserialize;

use crate::{
    app::Visit,
    examined::Examined,
    page::{Frame, Refusal, page},
};

#[derive(Deserialize)]
pub(crate) struct Wanted {
    #[serde(default)]
    examine: String,
}

#[derive(Template)]
#[template(path = "doctor.html")]
struct DoctorPage {
    frame: Frame,
    /// How long ago it was, and how long it took.
    last: Option<(String, String)>,
    /// What is wrong, the worst first.
    findings: Vec<Finding>,
    /// What is well.
    well: Vec<Finding>,
}

impl DoctorPage {
    /// How bad a finding is, as a word and as a class of the style.
    fn mood(&self, level: &Level) -> (&'static str, &'static str) {
        match level {
            Level::Problem => ("problem", "stopped"),
            Level::Warning => ("warning", "uneasy"),
            Level::Note => ("note", "noted"),
            Level::Ok => ("well", "well"),
        }
    }
}

pub(crate) async fn show(visit: Visit, headers: HeaderMap, Query(wanted): Query<Wanted>) -> Result<Response, Refusal> {
    let mut examined = visit.app.examined.lock().await;
    if wanted.examine == "now" {
        // It costs a second of the database: another site's page shall not ask for it by a picture's address.
        if headers.get("sec-fetch-site").is_some_and(|site| site == "cross-site") {
            return Err(Refusal::new(StatusCode::FORBIDDEN, "another site asks for an examination", ""));
        }
        let begun = Instant::now();
        let report = visit.app.broker().operator().doctor(&Options::default()).await?;
        *examined = Some(Examined { report, at: Instant::now(), took: begun.elapsed() });
    }
    let last = examined.clone();
    drop(examined);
    let when = last.as_ref().map(|examined| (duration::coarse(examined.at.elapsed()), duration::coarse(examined.took)));
    let findings = last.map(|examined| examined.report.findings).unwrap_or_default();
    let (well, mut findings): (Vec<_>, Vec<_>) = findings.into_iter().partition(|one| one.level == Level::Ok);
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.level));
    Ok(page(StatusCode::OK, &DoctorPage { frame: visit.frame("Doctor", "Doctor"), last: when, findings, well }))
}
