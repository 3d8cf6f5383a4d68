//! Maintenance in rounds: folding counters often, archiving, purging and partitions now and then, in one process at a time.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, sleep},
};
use tracing::{debug, info, warn};

use crate::{
    backoff,
    error::Result,
    message::MessageId,
    store::{Maintained, Store},
};

/// Between two rounds of whoever does the maintenance.
const ROUND: Duration = Duration::from_secs(2);
/// Between two questions of whoever does not, whether somebody does.
const QUESTION: Duration = Duration::from_secs(5);
/// How long nobody else takes the maintenance over from a process that has stopped doing it.
const LEAD: Duration = Duration::from_secs(15);
/// From the end of one walk over the old messages to the next; longer after a long one, which then costs 2 % of the time.
const CLEANING: Duration = Duration::from_secs(60);
const WALK_SHARE: u32 = 50;
/// Folding, and each batch of a cleaning, is followed by a pause of so many times its own length: a server that is busy
/// makes it longer, and is left alone longer.
const FOLD_SHARE: u32 = 10;
const BATCH_SHARE: u32 = 4;
/// A batch that took longer ends the round: the server has better things to do.
const BUSY: Duration = Duration::from_millis(500);
/// How long one round cleans; the next one goes on where it ended.
const SLICE: Duration = Duration::from_secs(1);

/// The maintenance of one database, to be called again and again; see [`Broker::maintenance`](crate::Broker::maintenance).
#[derive(Debug)]
pub struct Maintenance {
    store: Store,
    name: String,
    next_fold: Instant,
    cleaning: Cleaning,
}

/// Where a cleaning stands.
#[derive(Clone, Copy, Debug)]
enum Cleaning {
    Due(Instant),
    /// Partitions are done; rows whose time is over are next.
    Expiring(Instant),
    /// On its way through the messages, after this id.
    Walking(Instant, MessageId),
}

impl Maintenance {
    pub(crate) fn new(store: Store, name: impl AsRef<str>) -> Self {
        let now = Instant::now();
        Self { store, name: name.as_ref().to_owned(), next_fold: now, cleaning: Cleaning::Due(now) }
    }

    /// One round, about every two seconds: rescues, promotes, folds counters, and cleans for a second at most where that is
    /// due; then it is for the next round to go on. `None`: another process does the maintenance.
    ///
    /// Cancelling it leaves what was done.
    ///
    /// # Errors
    /// The database's.
    pub async fn round(&mut self) -> Result<Option<Maintained>> {
        if !self.store.lead(&self.name, LEAD).await? {
            return Ok(None);
        }
        let mut done = Maintained::default();
        (done.rescued, done.promoted) = self.store.rescue_and_promote().await?;
        let began = Instant::now();
        if began >= self.next_fold {
            done.folded = self.store.fold().await?;
            self.next_fold = Instant::now() + began.elapsed() * FOLD_SHARE;
        }
        let until = Instant::now() + SLICE;
        while Instant::now() < until {
            let began = Instant::now();
            if let Cleaning::Due(at) = self.cleaning
                && began < at
            {
                break;
            }
            self.cleaning = self.cleaning.step(&self.store, &mut done).await?;
            if let Cleaning::Due(_) = self.cleaning {
                break;
            }
            let took = began.elapsed();
            if took > BUSY {
                debug!(?took, "the server is busy: the rest of the cleaning waits");
                break;
            }
            sleep(took * BATCH_SHARE).await;
        }
        Ok(Some(done))
    }
}

impl Cleaning {
    /// One transaction of it.
    async fn step(self, store: &Store, done: &mut Maintained) -> Result<Self> {
        Ok(match self {
            Self::Due(_) => {
                let began = Instant::now();
                done.partitions_created += store.create_partitions().await?;
                let (dropped, busy) = store.drop_partitions().await?;
                done.partitions_dropped += dropped;
                done.partitions_busy = busy;
                Self::Expiring(began)
            }
            Self::Expiring(began) => match store.purge_expired().await? {
                0 => Self::Walking(began, 0),
                expired => {
                    done.expired += expired;
                    self
                }
            },
            Self::Walking(began, after) => {
                let retired = store.retire(after).await?;
                done.archived += retired.archived;
                done.purged += retired.purged;
                match retired.last_id {
                    Some(last) => Self::Walking(began, last),
                    None => {
                        done.recounted += recount(store).await;
                        store.note_cleaned().await?;
                        let pause = CLEANING.max(began.elapsed() * WALK_SHARE);
                        Self::Due(Instant::now() + backoff::jittered(pause, rand::random()))
                    }
                }
            }
        })
    }
}

/// The daily comparison of the counters with the table. A table too large for it is no reason not to clean it.
async fn recount(store: &Store) -> usize {
    match store.recount_daily().await {
        Ok(0) => 0,
        Ok(counters) => {
            warn!(counters, "counters differed from the table and were repaired: triggers were off");
            counters
        }
        Err(error) => {
            warn!(?error, "the counters could not be compared with the table; trying again tomorrow");
            0
        }
    }
}

/// All of it, once, whoever leads.
pub(crate) async fn all(store: &Store) -> Result<Maintained> {
    let mut done = Maintained::default();
    (done.rescued, done.promoted) = store.rescue_and_promote().await?;
    done.folded = store.fold().await?;
    let mut cleaning = Cleaning::Due(Instant::now());
    loop {
        let began = Instant::now();
        cleaning = cleaning.step(store, &mut done).await?;
        if let Cleaning::Due(_) = cleaning {
            return Ok(done);
        }
        sleep(began.elapsed() * BATCH_SHARE).await;
    }
}

/// Offers to do the maintenance, and does it while nobody else does. `questions` has a connection of its own, `store` may
/// be kept busy by handlers. Whoever fails twice steps back for as long as others need to take over.
pub(crate) async fn run(questions: Store, store: Store, incarnation: watch::Receiver<Arc<str>>) {
    let mut maintenance = Maintenance::new(store, incarnation.borrow().clone());
    let mut failures = 0u32;
    let mut leading = false;
    loop {
        let wait = match (failures, leading) {
            (0, true) => ROUND,
            // A lost connection is no reason to step back.
            (0, false) | (1, _) => QUESTION,
            _ => LEAD * 2,
        };
        sleep(backoff::jittered(wait, rand::random())).await;
        let name = incarnation.borrow().clone();
        if *maintenance.name != *name {
            maintenance.name = name.to_string();
        }
        let asked = async {
            // Over the own connection first: most processes learn here that there is nothing to do.
            if leading || questions.lead(&name, LEAD).await? { maintenance.round().await } else { Ok(None) }
        };
        match asked.await {
            Ok(done) => {
                if failures > 0 {
                    info!(failures, "the maintenance works again");
                }
                failures = 0;
                if done.is_some() != leading {
                    leading = done.is_some();
                    debug!(leading, "who does the maintenance has changed");
                }
                match done {
                    Some(done) if !done.is_idle() => debug!(?done, "maintained"),
                    _ => {}
                }
            }
            Err(error) => {
                if failures == 0 {
                    warn!(?error, "the maintenance failed; leaving it to others for a while, then trying again");
                }
                failures += 1;
                leading = false;
            }
        }
    }
}
