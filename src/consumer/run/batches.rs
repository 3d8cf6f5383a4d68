//! What the loop does about the ends of batches.

use std::{collections::HashSet, time::Duration};

use super::Loop;
use crate::{
    consumer::{
        running::{Became, Ran},
        workers::Item,
    },
    outcome::Outcome,
    store::{Claim, Verdict},
};

impl Loop {
    /// Takes the end of a task that ran several messages.
    pub(super) fn handled_together(&mut self, claim: Claim, became: Vec<Became>, took: Duration) {
        // Given up, or its lease was lost.
        let Some(items) = self.workers.ended_with(&claim, took) else { return };
        self.became(items, became);
    }

    /// Settles messages of a batch that has ended, and runs again what is to run again. Of a key, what comes after one that was not
    /// done waits for it in the table.
    pub(super) fn became(&mut self, items: Vec<Item>, became: Vec<Became>) {
        let (mut waiting, mut again, mut runs_again) = (HashSet::new(), Vec::new(), HashSet::new());
        let mut keys = Vec::new();
        for (Item { mut delivery, gone }, became) in items.into_iter().zip(became) {
            let (claim, key) = (Claim::of(&delivery), delivery.ordering_key.clone());
            keys.extend(key.clone().map(|key| (claim, key)));
            let is_after = key.as_ref().is_some_and(|key| waiting.contains(key));
            let goes_on = match became {
                _ if gone => false,
                _ if is_after => {
                    self.outbox.release([claim]);
                    false
                }
                Became::Ran(ran) => self.ran(claim, ran, delivery.canary),
                Became::Again | Became::Alone => {
                    delivery.alone = matches!(became, Became::Alone);
                    runs_again.extend(key.clone());
                    again.push(delivery);
                    true
                }
            };
            if !goes_on {
                waiting.extend(key);
            }
        }
        for (claim, key) in keys {
            if waiting.contains(&key) {
                self.outbox.release(self.workers.rest_of_key(&claim));
            } else if !runs_again.contains(&key) {
                self.workers.next_of_key(&claim);
            }
        }
        self.workers.again(again);
    }

    /// One of them has run to its end. Whether what comes after it may run.
    fn ran(&mut self, claim: Claim, ran: Ran, canary: bool) -> bool {
        self.report.ran(&ran, canary);
        match ran {
            Ran::Outcome(outcome) => {
                let done = outcome == Outcome::Done;
                self.outbox.put(claim, Verdict::Outcome(outcome));
                done
            }
            ran @ (Ran::Completed | Ran::LeaseLost) => {
                self.context.process.in_hand().forget([claim]);
                self.looking.room_again();
                matches!(ran, Ran::Completed)
            }
        }
    }
}
