//! What is to be settled: settlements not sent yet, and how many are on their way.

use crate::store::{Claim, Settlement, Verdict};

/// Most messages settled by one statement.
pub(super) const SETTLE_MAX: usize = 2000;

/// Settlements that come while a settle is under way travel together with the next one: batches grow with load, and no
/// timer delays a lone message.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    unsettled: Vec<Settlement>,
    /// Messages of the settle under way.
    sent: usize,
}

impl Outbox {
    pub(super) fn put(&mut self, claim: Claim, verdict: Verdict) {
        self.unsettled.push(Settlement { claim, verdict });
    }

    /// Messages to be given back.
    pub(super) fn release(&mut self, claims: impl IntoIterator<Item = Claim>) {
        claims.into_iter().for_each(|claim| self.put(claim, Verdict::Release));
    }

    /// The next settlements to send, the oldest first; `None`: there are none, or others are under way.
    pub(super) fn send(&mut self) -> Option<Vec<Settlement>> {
        if self.sent > 0 || self.unsettled.is_empty() {
            return None;
        }
        let rest = self.unsettled.split_off(self.unsettled.len().min(SETTLE_MAX));
        let settlements = std::mem::replace(&mut self.unsettled, rest);
        self.sent = settlements.len();
        Some(settlements)
    }

    /// What was sent is settled, or lost with its lease.
    pub(super) fn settled(&mut self) {
        self.sent = 0;
    }

    /// Messages that this consumer still has to answer for.
    pub(super) fn len(&self) -> usize {
        self.unsettled.len() + self.sent
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets what is not sent yet: its lease was lost. Returns how many messages that were.
    pub(super) fn clear(&mut self) -> usize {
        self.unsettled.drain(..).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consumer::workers::tests::claim;

    #[test]
    fn what_comes_while_a_settle_is_under_way_travels_with_the_next_one() {
        let mut outbox = Outbox::default();
        assert!(outbox.send().is_none());
        outbox.release([claim(1)]);
        assert_eq!(outbox.send().unwrap().len(), 1);
        outbox.release([claim(2), claim(3)]);
        assert!(outbox.send().is_none());
        assert_eq!(outbox.len(), 3);
        outbox.settled();
        let sent: Vec<Claim> = outbox.send().unwrap().iter().map(|settlement| settlement.claim).collect();
        assert_eq!(sent, [claim(2), claim(3)]);
        outbox.settled();
        assert!(outbox.is_empty());
    }

    #[test]
    fn a_statement_settles_so_many_at_most_the_oldest_first() {
        let mut outbox = Outbox::default();
        outbox.release((0..SETTLE_MAX as i64 + 1).map(claim));
        let first = outbox.send().unwrap();
        assert_eq!((first.len(), first[0].claim), (SETTLE_MAX, claim(0)));
        outbox.settled();
        assert_eq!(outbox.send().unwrap()[0].claim, claim(SETTLE_MAX as i64));
    }

    #[test]
    fn a_lost_lease_takes_what_is_not_sent() {
        let mut outbox = Outbox::default();
        outbox.release([claim(1)]);
        assert!(outbox.send().is_some());
        outbox.release([claim(2)]);
        assert_eq!(outbox.clear(), 1);
        assert_eq!(outbox.len(), 1);
    }
}
