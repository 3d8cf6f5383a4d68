//! Every target, by a part of its name.

use doorbell::operate::TargetState;
use serde::Deserialize;

use crate::lines::TargetLine;

/// Lines of one page.
const LINES: usize = 100;

/// Which of them.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Wanted {
    /// Those whose name has this in it, in any case.
    #[serde(default)]
    pub(crate) named: String,
    /// From 1.
    #[serde(default)]
    pub(crate) page: usize,
}

impl Wanted {
    pub(crate) fn of<'a>(&self, targets: &'a [TargetState]) -> Vec<&'a TargetState> {
        let named = self.named.trim().to_lowercase();
        targets.iter().filter(|target| target.stats.target.to_lowercase().contains(&named)).collect()
    }

    /// Which page it is, and of how many.
    pub(crate) fn number(&self, found: usize) -> (usize, usize) {
        let pages = found.div_ceil(LINES).max(1);
        (self.page.clamp(1, pages), pages)
    }

    pub(crate) fn lines(&self, found: &[&TargetState]) -> Vec<TargetLine> {
        let (number, _) = self.number(found.len());
        found.iter().skip((number - 1) * LINES).take(LINES).map(|target| TargetLine::from(*target)).collect()
    }

    /// The lines of the page, by target.
    pub(crate) fn rows(&self, targets: &[TargetState]) -> Vec<(String, String)> {
        self.lines(&self.of(targets)).iter().map(|line| (line.name.clone(), line.row())).collect()
    }
}
