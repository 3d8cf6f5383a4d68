//! A look at everything: what the overview shows, and what is sent to those who watch it or a target.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use doorbell::{
    Result,
    operate::{KeyRow, Operator, Overview, ProcessRow, TargetState},
};
use tokio::sync::Mutex;

use super::{spark::Spark, standing::Standing, summary::Summary, tables::keys};

/// Targets that are shown; the other page has all.
const SHOWN_MAX: usize = 50;
/// More pages than that, each of other keys, do not change by themselves.
const EXTRAS_MAX: usize = 20;
/// What the pictures are about.
const LAST: Duration = Duration::from_secs(3600);
/// Their bars are minutes: they need not be read with every look.
const PICTURES_FOR: Duration = Duration::from_secs(20);

/// What was seen.
pub(super) struct Seen {
    pub(super) summary: Summary,
    pub(super) targets: Vec<TargetState>,
    /// Where somebody looks at them.
    pub(super) processes: Option<Vec<ProcessRow>>,
    /// By what of them somebody looks at.
    pub(super) keys: BTreeMap<keys::Wanted, Vec<KeyRow>>,
}

/// What is looked at only where somebody wants to see it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Extra {
    Processes,
    Keys(keys::Wanted),
}

impl Seen {
    /// `None`: nothing names it.
    pub(super) fn standing(&self, target: &str) -> Option<Standing> {
        self.targets.iter().find(|state| state.stats.target == target).map(Standing::from)
    }
}

/// Looks, over connections that change nothing.
pub(super) struct Looking {
    reader: Operator,
    pictures: Mutex<Pictures>,
}

/// The last hour of the targets that were shown when it was read.
#[derive(Default)]
struct Pictures {
    read: Option<Instant>,
    of: BTreeMap<String, Spark>,
}

impl Looking {
    pub(super) fn new(reader: Operator) -> Self {
        Self { reader, pictures: Mutex::default() }
    }

    pub(super) async fn look(&self, extras: &[Extra]) -> Result<Seen> {
        let targets = self.reader.targets().await?;
        let overview = Overview::of(targets.clone(), SHOWN_MAX);
        let mut pictures = self.pictures.lock().await;
        if pictures.read.is_none_or(|read| read.elapsed() >= PICTURES_FOR) {
            let names: Vec<String> = overview.targets.iter().map(|target| target.stats.target.clone()).collect();
            let traffic = self.reader.traffic_of_each(&names, &Spark::ACTIONS, LAST).await?;
            pictures.of = traffic.iter().map(|(name, traffic)| (name.clone(), Spark::from(traffic))).collect();
            pictures.read = Some(Instant::now());
        }
        let summary = Summary::of(&overview, &pictures.of);
        drop(pictures);
        let mut seen = Seen { summary, targets, processes: None, keys: BTreeMap::new() };
        for extra in extras.iter().take(EXTRAS_MAX) {
            match extra {
                Extra::Processes => seen.processes = Some(self.reader.processes().await?),
                Extra::Keys(wanted) => {
                    seen.keys.insert(wanted.clone(), wanted.find(&self.reader).await?);
                }
            }
        }
        Ok(seen)
    }
}
