//! Maintenance in rounds: folding counters often, archiving, purging and partitions now and then, in one process at a time.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};
use tracing::{debug, warn};

use crate::{
    backoff,
    error::{Error, ErrorKind, Result},
    message::MessageId,
    rows::Maintained,
    store::{FOLD_SLICE, Store},
};

/// How long nobody else takes the maintenance over from a process that has stopped doing it.
pub(crate) const LEAD: Duration = Duration::from_secs(15);
/// From the end of one walk over the old messages to the next; longer after a long one, which then costs 2 % of the time.
const CLEANING: Duration = Duration::from_secs(60);
const WALK_SHARE: u32 = 50;
/// Each slice of a folding, and each batch of a cleaning, is followed by a pause of so many times its own length: a server
/// that is busy makes it longer, and is left alone longer. When all is folded the pause is longer still.
const FOLD_SHARE: u32 = 2;
const FOLDED_SHARE: u32 = 10;
const BATCH_SHARE: u32 = 4;
/// A batch that took longer ends the round: the server has better things to do.
const BUSY: Duration = Duration::from_millis(500);
/// How long one round folds, and how long it cleans; the next one goes on where it ended.
const SLICE: Duration = Duration::from_secs(1);

/// The maintenance of one database, to be called again and again; see [`Operator::maintenance`](crate::operate::Operator::maintenance).
#[derive(Debug)]
pub struct Maintenance {
    store: Store,
    name: Arc<str>,
    registered: bool,
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
    /// `name`: who does it, unique among the processes that may.
    pub(crate) fn new(store: Store, name: Arc<str>) -> Self {
        let now = Instant::now();
        Self { store, name, registered: false, next_fold: now, cleaning: Cleaning::Due(now) }
    }

    /// By a process that consumes, as long as it is on the list under that name.
    pub(crate) fn of_process(store: Store, owner: Arc<str>) -> Self {
        Self { registered: true, ..Self::new(store, owner) }
    }

    /// From now on somebody else by name.
    pub(crate) fn rename(&mut self, name: &Arc<str>) {
        self.name.clone_from(name);
    }

    /// One round, about every two seconds: rescues, promotes, folds counters, and cleans for a second at most where that is
    /// due; then it is for the next round to go on. `None`: another process does the maintenance.
    ///
    /// Cancelling it leaves what was done.
    ///
    /// # Errors
    /// The database's. A chore that it refuses does not keep the others from being done; then the first refusal.
    pub async fn round(&mut self) -> Result<Option<Maintained>> {
        if !self.store.lead(&self.name, LEAD, self.registered).await? {
            return Ok(None);
        }
        let mut done = Maintained::default();
        let mut chores = Chores::default();
        chores.rescue_and_promote(&self.store, &mut done).await?;
        chores.keep_topics(&self.store, &mut done, Some(Instant::now() + SLICE)).await?;
        chores.done(self.store.step_forward_forgotten().await)?;
        self.fold(&mut chores, &mut done).await?;
        let until = Instant::now() + SLICE;
        while Instant::now() < until {
            let began = Instant::now();
            if let Cleaning::Due(at) = self.cleaning
                && began < at
            {
                break;
            }
            self.cleaning = self.cleaning.step(&self.store, &mut chores, &mut done).await?;
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
        // The last: a table of somebody's may take its time.
        extract(&self.store, &mut done, Some(Instant::now() + SLICE)).await;
        chores.over()?;
        Ok(Some(done))
    }

    /// Slice by slice, a transaction each, until no delta is left or the time is up.
    async fn fold(&mut self, chores: &mut Chores, done: &mut Maintained) -> Result<()> {
        let until = Instant::now() + SLICE;
        while Instant::now() >= self.next_fold {
            let began = Instant::now();
            let folded = chores.done(self.store.fold().await)?.unwrap_or_default();
            done.folded += folded;
            let (took, now) = (began.elapsed(), Instant::now());
            if folded < FOLD_SLICE {
                self.next_fold = now + took * FOLDED_SHARE;
                break;
            }
            let pause = took * FOLD_SHARE;
            self.next_fold = now + pause;
            if self.next_fold >= until {
                break;
            }
            sleep(pause).await;
        }
        Ok(())
    }
}

/// What went wrong. A chore that fails does not keep the others from being done: a table that refuses one of them would
/// stop all maintenance for ever.
#[derive(Default)]
struct Chores(Option<Error>);

impl Chores {
    /// What a chore has done; `None`: it failed, and the others go on.
    ///
    /// # Errors
    /// Where the database is out of reach, and with it all others.
    fn done<T>(&mut self, chore: Result<T>) -> Result<Option<T>> {
        match chore {
            Ok(done) => Ok(Some(done)),
            Err(error) if matches!(error.kind(), ErrorKind::Database | ErrorKind::Forbidden) => {
                debug!(?error, "a chore failed; the others go on");
                self.0.get_or_insert(error);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    async fn rescue_and_promote(&mut self, store: &Store, done: &mut Maintained) -> Result<()> {
        (done.rescued, done.promoted) = self.done(store.rescue_and_promote().await)?.unwrap_or_default();
        Ok(())
    }

    /// Batch by batch, until nothing is left to be handed on or the time is up.
    async fn keep_topics(&mut self, store: &Store, done: &mut Maintained, until: Option<Instant>) -> Result<()> {
        loop {
            let began = Instant::now();
            let copied = self.done(store.keep_topics().await)?.unwrap_or_default();
            done.copied += copied;
            if copied == 0 || until.is_some_and(|until| Instant::now() >= until) {
                return Ok(());
            }
            sleep(began.elapsed()).await;
        }
    }

    /// The first failure.
    fn over(self) -> Result<()> {
        self.0.map_or(Ok(()), Err)
    }
}

impl Cleaning {
    /// One transaction of it.
    async fn step(self, store: &Store, chores: &mut Chores, done: &mut Maintained) -> Result<Self> {
        Ok(match self {
            Self::Due(_) => {
                let began = Instant::now();
                done.partitions_created += chores.done(store.create_partitions().await)?.unwrap_or_default();
                let (dropped, busy) = chores.done(store.drop_partitions().await)?.unwrap_or_default();
                done.partitions_dropped += dropped;
                done.partitions_busy = busy;
                Self::Expiring(began)
            }
            Self::Expiring(began) => match chores.done(store.purge_expired().await)? {
                None | Some(0) => Self::Walking(began, 0),
                Some(expired) => {
                    done.expired += expired;
                    self
                }
            },
            Self::Walking(began, after) => {
                let Some(retired) = chores.done(store.retire(after).await)? else { return Ok(Self::next(began)) };
                done.archived += retired.archived;
                done.purged += retired.purged;
                match retired.last_id {
                    Some(last) => Self::Walking(began, last),
                    None => {
                        done.recounted += recount(store).await;
                        store.note_cleaned().await?;
                        Self::next(began)
                    }
                }
            }
        })
    }

    /// After one that began then.
    fn next(began: Instant) -> Self {
        let pause = CLEANING.max(began.elapsed() * WALK_SHARE);
        Self::Due(Instant::now() + backoff::jittered(pause, rand::random()))
    }
}

/// Look by look, until no extract is due or the time is up. One that fails is due again in a minute, and is no reason to
/// leave the maintenance to others: its `last_error` and the doctor tell.
async fn extract(store: &Store, done: &mut Maintained, until: Option<Instant>) {
    while until.is_none_or(|until| Instant::now() < until) {
        let began = Instant::now();
        let looked = async {
            match store.next_extract().await? {
                Some(name) => store.extract_look(&name).await.map(Some),
                None => Ok(None),
            }
        };
        match looked.await {
            Ok(Some(published)) => done.extracted += published,
            Ok(None) => return,
            Err(error) => {
                debug!(?error, "an extract did not come to its end");
                return;
            }
        }
        sleep(began.elapsed()).await;
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
    let mut chores = Chores::default();
    chores.rescue_and_promote(store, &mut done).await?;
    chores.keep_topics(store, &mut done, None).await?;
    while chores.done(store.step_forward_forgotten().await)? == Some(true) {}
    extract(store, &mut done, None).await;
    loop {
        let began = Instant::now();
        let folded = chores.done(store.fold().await)?.unwrap_or_default();
        done.folded += folded;
        if folded < FOLD_SLICE {
            break;
        }
        sleep(began.elapsed() * FOLD_SHARE).await;
    }
    let mut cleaning = Cleaning::Due(Instant::now());
    loop {
        let began = Instant::now();
        cleaning = cleaning.step(store, &mut chores, &mut done).await?;
        if let Cleaning::Due(_) = cleaning {
            chores.over()?;
            return Ok(done);
        }
        sleep(began.elapsed() * BATCH_SHARE).await;
    }
}
