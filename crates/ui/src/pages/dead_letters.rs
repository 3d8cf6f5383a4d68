//! Messages that failed for good, by what is alike in their reasons.

use askama::Template;
use axum::{extract::Query, http::StatusCode, response::Response};
use doorbell::{
    operate::ErrorGroup,
    written::{duration, shell::quoted},
};
use serde::Deserialize;

use crate::{
    app::Visit,
    page::{Frame, Refusal, page},
    words::{self, in_address},
};

const GROUPS_MAX: u32 = 100;

#[derive(Deserialize)]
pub(crate) struct Wanted {
    #[serde(default)]
    target: String,
}

#[derive(Template)]
#[template(path = "dead_letters.html")]
struct DeadLettersPage {
    frame: Frame,
    target: String,
    groups: Vec<Group>,
    all_seen: bool,
    act: bool,
}

struct Group {
    target: String,
    reason: String,
    failed: String,
    failed_again: String,
    retrying: String,
    ages: String,
    example: i64,
    /// Which messages they are, in an address.
    filter: String,
    fix: String,
}

pub(crate) async fn show(visit: Visit, Query(wanted): Query<Wanted>) -> Result<Response, Refusal> {
    let target = Some(wanted.target.trim()).filter(|target| !target.is_empty());
    let groups = visit.app.reader().errors(target, GROUPS_MAX).await?;
    let template = DeadLettersPage {
        frame: visit.frame("Dead letters", "Dead letters"),
        all_seen: groups.iter().all(|group| group.all_seen),
        groups: groups.into_iter().map(Group::from).collect(),
        target: wanted.target,
        act: visit.person.rights.act,
    };
    Ok(page(StatusCode::OK, &template))
}

impl From<ErrorGroup> for Group {
    fn from(group: ErrorGroup) -> Self {
        let like = group.reason_like.as_deref();
        let filter = format!("status=failed&target={}", in_address(&group.target));
        let fix = format!("doorbell redrive --target {}", quoted(&group.target));
        Self {
            filter: filter + &like.map(|like| format!("&reason-like={}", in_address(like))).unwrap_or_default(),
            fix: fix + &like.map(|like| format!(" --reason-like {}", quoted(like))).unwrap_or_default(),
            reason: group.reason_like.unwrap_or_else(|| "(no reason was given)".to_owned()),
            target: group.target,
            failed: words::count(group.failed),
            failed_again: words::count(group.failed_again),
            retrying: words::count(group.retrying),
            ages: match (duration::coarse(group.ages.0), duration::coarse(group.ages.1)) {
                (first, last) if first == last => last,
                (first, last) => format!("{first} – {last}"),
            },
            example: group.example,
        }
    }
}
