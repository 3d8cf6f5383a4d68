//! What the overview shows, and in which parts it changes.

use std::collections::BTreeMap;

use askama::Template;
use doorbell::operate::{Overview, Status, Trouble};

use super::{
    lines::{TargetLine, for_long},
    page::written,
    spark::Spark,
    words,
};

/// What the overview shows.
pub(super) struct Summary {
    pub(super) heading: String,
    pub(super) troubles: Vec<TroubleLine>,
    pub(super) totals: Vec<(&'static str, String)>,
    pub(super) targets: Vec<TargetLine>,
    pub(super) known: usize,
}

/// What is wrong, and what to press or to type.
pub(super) struct TroubleLine {
    pub(super) stops: bool,
    pub(super) sentence: String,
    pub(super) messages: String,
    pub(super) fix: Option<String>,
    /// Whether that is a command.
    pub(super) is_typed: bool,
    pub(super) look: String,
}

impl Summary {
    /// With pictures of targets, as far as there are any.
    pub(super) fn of(overview: &Overview, pictures: &BTreeMap<String, Spark>) -> Self {
        let heading = match overview.troubles.len() {
            0 => "All is well".to_owned(),
            1 => "One thing needs you".to_owned(),
            many => format!("{many} things need you"),
        };
        Self {
            heading,
            troubles: overview.troubles.iter().map(|trouble| line(trouble, overview)).collect(),
            totals: Status::ALL.iter().map(|status| status.as_str()).zip(overview.messages.map(words::count)).collect(),
            targets: overview.targets.iter().map(|target| TargetLine::from(target).with(pictures)).collect(),
            known: overview.known,
        }
    }
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
    let page = if trouble.code == "failed" { "dead-letters?target" } else { "target?name" };
    TroubleLine {
        stops: trouble.stops,
        sentence: gate.unwrap_or_else(|| trouble.sentence()),
        messages: format!("{} {unit}{age}", words::count(trouble.messages)),
        is_typed: trouble.fix().is_some_and(|fix| fix.starts_with("doorbell ")),
        fix: trouble.fix(),
        look: format!("{page}={}", words::in_address(worst)),
    }
}

#[derive(Template)]
#[template(path = "trouble.html")]
struct TroublePart<'a> {
    troubles: &'a [TroubleLine],
}

#[derive(Template)]
#[template(path = "totals.html")]
struct TotalsPart<'a> {
    totals: &'a [(&'static str, String)],
}

impl Summary {
    /// The parts by the ids that they have in the page.
    pub(super) fn parts(&self) -> [(&'static str, String); 3] {
        let heading = format!("<h1 id=\"heading\">{}</h1>", self.heading);
        [
            ("heading", heading),
            ("trouble", written(&TroublePart { troubles: &self.troubles })),
            ("totals", written(&TotalsPart { totals: &self.totals })),
        ]
    }

    /// The lines of the table, by target.
    pub(super) fn rows(&self) -> impl Iterator<Item = (&str, String)> {
        self.targets.iter().map(|target| (target.name.as_str(), target.row()))
    }
}
