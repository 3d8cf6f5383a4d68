//! How everything stands: trouble first.

use askama::Template;
use axum::{http::StatusCode, response::Response};

use crate::{
    operate::{Overview, Status, Trouble},
    ui::{
        app::Visit,
        lines::{TargetLine, for_long},
        page::{Frame, Refusal, page},
        words,
    },
};

/// Targets that are shown; the other page has all.
const SHOWN_MAX: usize = 50;

#[derive(Template)]
#[template(path = "overview.html")]
struct OverviewPage {
    frame: Frame,
    troubles: Vec<TroubleLine>,
    totals: Vec<(&'static str, String)>,
    targets: Vec<TargetLine>,
    known: usize,
}

/// What is wrong, and what to press or to type.
struct TroubleLine {
    stops: bool,
    sentence: String,
    messages: String,
    fix: Option<String>,
    look: String,
}

pub(crate) async fn show(visit: Visit) -> Result<Response, Refusal> {
    let overview = visit.app.reader().overview(SHOWN_MAX).await?;
    let template = OverviewPage {
        frame: visit.frame("Overview", "Overview"),
        troubles: overview.troubles.iter().map(|trouble| line(trouble, &overview)).collect(),
        totals: Status::ALL.iter().map(|status| status.as_str()).zip(overview.messages.map(words::count)).collect(),
        targets: overview.targets.iter().map(TargetLine::from).collect(),
        known: overview.known,
    };
    Ok(page(StatusCode::OK, &template))
}

fn line(trouble: &Trouble, overview: &Overview) -> TroubleLine {
    // Of one target its gate says who closed it, and why.
    let gate = match &trouble.targets[..] {
        [one] => overview
            .targets
            .iter()
            .find(|target| target.stats.target == *one)
            .and_then(|target| target.closed_gates.iter().find(|(code, _)| *code == trouble.code))
            .map(|(_, sentence)| sentence.clone()),
        _ => None,
    };
    let unit = if trouble.messages == 1 { "message" } else { "messages" };
    let age = for_long(trouble.oldest_age);
    let worst = trouble.targets.first().map(String::as_str).unwrap_or_default();
    let status = if trouble.code == "failed" { "messages?status=failed" } else { "target?" };
    let name = if trouble.code == "failed" { "&target=" } else { "name=" };
    TroubleLine {
        stops: trouble.stops,
        sentence: gate.unwrap_or_else(|| trouble.sentence()),
        messages: format!("{} {unit}{age}", words::count(trouble.messages)),
        fix: trouble.fix(),
        look: format!("{status}{name}{}", words::in_address(worst)),
    }
}
