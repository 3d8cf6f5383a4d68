//! The messages that this process has. A claim whose answer was lost with its connection may leave messages that belong to this
//! process although nothing in it knows them, and so does a settle that the server has lost: after an asynchronous failover the
//! new primary has the claim, and never heard that it was settled. Nobody rescues from the living, so they are told from the
//! others here, and given back.

use std::{
    collections::HashSet,
    future::Future,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{RwLock, RwLockWriteGuard, watch},
    time::timeout,
};

use crate::{
    error::{Error, Result},
    message::Delivery,
    store::{Claim, Looked, Store},
};

/// How long new claims wait for those under way to end, so that strays can be looked for between them.
const PATIENCE: Duration = Duration::from_millis(100);

/// The claims that some consumer of this process knows to be its own.
#[derive(Debug, Default)]
pub(crate) struct InHand {
    /// A std mutex: held for a batch's insertions, never across an await.
    known: Mutex<HashSet<Claim>>,
    /// Claims have it shared until what they brought is known; who looks for strays has it alone.
    claims: RwLock<()>,
    /// Told when claims turned out to be of messages that the server does not know any more.
    gone: watch::Sender<()>,
    /// Told when somebody took messages away.
    taken: watch::Sender<()>,
    /// Whether there may be strays. Never cleared: the statement of a lost claim may reach the server much later, and a server
    /// that lost a settle may be met again.
    doubt: AtomicBool,
}

impl InHand {
    /// Runs a claim and notes what it brought. What it has already is left out: a claim does not wait for the WAL, so after
    /// a crash of the server the same attempt can come a second time while its first handler is still running.
    pub(crate) async fn claim<T: Brought>(&self, claim: impl Future<Output = Result<T>>) -> Result<T> {
        let _no_search = self.claims.read().await;
        let asked = Asked(Some(self));
        let mut claimed = claim.await;
        match &mut claimed {
            Ok(brought) => {
                if self.with(|known| brought.leave_out(|claim| !known.insert(claim))) {
                    // Its settle may have been refused just now, because the claim was gone: then nobody knows it any more.
                    self.doubt();
                }
            }
            Err(error) if leaves_doubt(error) => return claimed,
            Err(_) => {}
        }
        asked.answered();
        claimed
    }

    /// Gives back what the owner has in the database and nobody knows here; returns how many. Free while there is no doubt.
    pub(crate) async fn return_strays(&self, store: &Store, owner: &str) -> Result<usize> {
        if !self.doubt.load(Ordering::Relaxed) {
            return Ok(0);
        }
        let no_claims = self.claims.write().await;
        self.search(store, owner, no_claims).await
    }

    /// The same for the heartbeat, which must not wait: does nothing while claims are under way that do not end at once.
    pub(crate) async fn return_strays_if_idle(&self, store: &Store, owner: &str) -> Result<usize> {
        if !self.doubt.load(Ordering::Relaxed) {
            return Ok(0);
        }
        match self.between_claims(PATIENCE).await {
            Some(no_claims) => self.search(store, owner, no_claims).await,
            None => Ok(0),
        }
    }

    /// In a process with many consumers some claim is always under way. So new ones wait meanwhile; not for long, because one
    /// whose server does not answer would stop them all.
    pub(super) async fn between_claims(&self, patience: Duration) -> Option<RwLockWriteGuard<'_, ()>> {
        timeout(patience, self.claims.write()).await.ok()
    }

    async fn search(&self, store: &Store, owner: &str, _no_claims: RwLockWriteGuard<'_, ()>) -> Result<usize> {
        let known: Vec<Claim> = self.with(|known| known.iter().copied().collect());
        let count = store.give_back(owner, &known).await?;
        if count > 0 {
            tracing::info!(
                count,
                owner,
                "gave back messages that nothing here knows: their claim or their settle was lost"
            );
        }
        Ok(count)
    }

    /// Asks which of the claims still exist on a server that may have lost its last commits, or be another one; forgets the
    /// rest, and tells the consumers, which stop handling them. Returns how many those were.
    pub(crate) async fn drop_gone(&self, store: &Store, owner: &str) -> Result<usize> {
        let known: Vec<Claim> = self.with(|known| known.iter().copied().collect());
        if known.is_empty() {
            return Ok(0);
        }
        let mine: HashSet<Claim> = store.still_mine(owner, &known).await?.into_iter().collect();
        let gone: Vec<Claim> = known.into_iter().filter(|claim| !mine.contains(claim)).collect();
        if !gone.is_empty() {
            self.forget(gone.iter().copied());
            self.gone.send_replace(());
        }
        Ok(gone.len())
    }

    /// Asks what somebody took away of what was in hand at the last beat, too (what comes and goes between two beats need not
    /// be asked for); forgets it, and tells the consumers, which stop handling it. Returns how many those were.
    pub(super) async fn drop_taken(&self, store: &Store, owner: &str, beats: &mut Beats) -> Result<usize> {
        let known = self.with(|known| known.clone());
        let lasting: Vec<Claim> = known.intersection(&beats.known).copied().collect();
        beats.known = known;
        if lasting.is_empty() {
            return Ok(0);
        }
        let missing_before = std::mem::take(&mut beats.missing);
        let mut taken = Vec::new();
        for (claim, there) in store.taken_from(owner, &lasting).await? {
            // One that was completed and deleted by its own handler is not in hand any more at the next beat.
            if there || missing_before.contains(&claim) {
                taken.push(claim);
            } else {
                beats.missing.insert(claim);
            }
        }
        if !taken.is_empty() {
            self.forget(taken.iter().copied());
            self.taken.send_replace(());
        }
        Ok(taken.len())
    }

    /// There may be strays from now on.
    pub(crate) fn doubt(&self) {
        self.doubt.store(true, Ordering::Relaxed);
    }

    /// Changes when claims were forgotten because they are gone.
    pub(crate) fn gone(&self) -> watch::Receiver<()> {
        self.gone.subscribe()
    }

    /// Changes when claims were forgotten because somebody took their messages away.
    pub(crate) fn taken(&self) -> watch::Receiver<()> {
        self.taken.subscribe()
    }

    /// Waits until a claim is not known any more although it was not settled.
    pub(crate) async fn lost(&self, claim: Claim) {
        let (mut gone, mut taken) = (self.gone(), self.taken());
        while self.has(claim) {
            tokio::select! {
                // The senders live as long as this does.
                _ = gone.changed() => {}
                _ = taken.changed() => {}
            }
        }
    }

    /// Whether it is known, that is not settled, lost or gone.
    pub(crate) fn has(&self, claim: Claim) -> bool {
        self.with(|known| known.contains(&claim))
    }

    /// The lease was lost, and everything with it.
    pub(crate) fn clear(&self) {
        self.with(HashSet::clear);
    }

    /// Forgets what was settled, or belongs to a former owner.
    pub(crate) fn forget(&self, claims: impl IntoIterator<Item = Claim>) {
        self.with(|known| {
            for claim in claims {
                known.remove(&claim);
            }
        });
    }

    /// Forgets the messages when dropped; dropped before [`Settling::done`], their settle may not have happened, and they
    /// are looked for.
    pub(crate) fn settling(self: &Arc<Self>, claims: Vec<Claim>) -> Settling {
        Settling { in_hand: self.clone(), claims, done: false }
    }

    fn with<T>(&self, f: impl FnOnce(&mut HashSet<Claim>) -> T) -> T {
        f(&mut self.known.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What a claim brought.
pub(crate) trait Brought {
    /// Leaves messages out; returns whether there were any of them.
    fn leave_out(&mut self, which: impl FnMut(Claim) -> bool) -> bool;
}

impl Brought for Vec<Claim> {
    fn leave_out(&mut self, mut which: impl FnMut(Claim) -> bool) -> bool {
        let before = self.len();
        self.retain(|claim| !which(*claim));
        self.len() < before
    }
}

impl Brought for Vec<Delivery> {
    fn leave_out(&mut self, mut which: impl FnMut(Claim) -> bool) -> bool {
        let before = self.len();
        self.retain(|delivery| !which(Claim::of(delivery)));
        self.len() < before
    }
}

impl Brought for Looked {
    fn leave_out(&mut self, which: impl FnMut(Claim) -> bool) -> bool {
        self.deliveries.leave_out(which)
    }
}

/// What the last beat saw in hand.
#[derive(Debug, Default)]
pub(super) struct Beats {
    known: HashSet<Claim>,
    /// Of these, what the server did not have.
    missing: HashSet<Claim>,
}

/// Whether a claim that failed this way may have taken messages all the same. An answer of the server means no, unless it
/// is that the session ends.
fn leaves_doubt(error: &Error) -> bool {
    !error.is_lease_lost() && error.sqlstate().is_none_or(|code| code.starts_with("57P") || code.starts_with("08"))
}

/// A claim that was sent; dropped without an answer, it leaves doubt.
struct Asked<'a>(Option<&'a InHand>);

impl Asked<'_> {
    fn answered(mut self) {
        self.0 = None;
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        if let Some(in_hand) = self.0 {
            in_hand.doubt();
        }
    }
}

/// Messages on their way out; see [`InHand::settling`].
#[derive(Debug)]
pub(crate) struct Settling {
    in_hand: Arc<InHand>,
    claims: Vec<Claim>,
    done: bool,
}

impl Settling {
    pub(crate) fn done(mut self) {
        self.done = true;
    }
}

impl Drop for Settling {
    fn drop(&mut self) {
        self.in_hand.forget(self.claims.drain(..));
        if !self.done {
            self.in_hand.doubt();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures::poll;

    use super::*;

    #[tokio::test]
    async fn new_claims_wait_while_strays_are_looked_for_but_not_for_a_claim_that_hangs() {
        let in_hand = InHand::default();
        let under_way = in_hand.claims.read().await;
        let mut search = pin!(in_hand.between_claims(PATIENCE));
        assert!(poll!(search.as_mut()).is_pending());
        let mut next = pin!(in_hand.claims.read());
        assert!(poll!(next.as_mut()).is_pending(), "claims that overlap leave no time between them");
        drop(under_way);
        drop(search.await.expect("nothing is under way"));
        let hangs = next.await;
        assert!(in_hand.between_claims(PATIENCE).await.is_none());
        drop(in_hand.claims.read().await);
        drop(hangs);
    }
}
