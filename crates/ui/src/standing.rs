//! How one target stands: on its page, and as it changes.

use askama::Template;
use doorbell::{operate::TargetState, written::duration};

use crate::{lines::TargetLine, page::written};

/// How one target stands.
pub(crate) struct Standing {
    pub(crate) target: TargetLine,
    /// Why it is not claimed.
    pub(crate) gates: Vec<String>,
    pub(crate) empty_in: Option<String>,
    pub(crate) next_due: Option<String>,
    pub(crate) paused: bool,
}

impl From<&TargetState> for Standing {
    fn from(state: &TargetState) -> Self {
        Self {
            target: TargetLine::from(state),
            gates: state.closed_gates.iter().map(|(_, sentence)| sentence.clone()).collect(),
            empty_in: state.stats.empty_in().map(duration::coarse),
            next_due: state.stats.next_due_in().map(duration::coarse),
            paused: state.closed_gates.iter().any(|(code, _)| code == "paused"),
        }
    }
}

#[derive(Template)]
#[template(path = "standing.html")]
struct StandingPart<'a> {
    standing: &'a Standing,
}

#[derive(Template)]
#[template(path = "counts.html")]
struct CountsPart<'a> {
    standing: &'a Standing,
}

impl Standing {
    /// The parts by the ids that they have in the page.
    pub(crate) fn parts(&self) -> [(&'static str, String); 2] {
        [("standing", written(&StandingPart { standing: self })), ("counts", written(&CountsPart { standing: self }))]
    }
}
