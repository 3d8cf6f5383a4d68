//! What the loop does about each event.

use futures::FutureExt;
use tokio::time::Instant;
use tracing::warn;

use super::Loop;
use crate::{
    consumer::{
        claiming::Claimed,
        held_batch::{HeldBatch, HeldLook, Kept},
        holding::Then,
        looking::Exhausted,
        observed::Observed,
        opening, parking,
        running::{Became, Handled, Ran, did_not_stop},
        signals::Signal,
        sweeping,
        under_way::{Ended, Kind},
    },
    error::ErrorKind,
    message::{Delivery, Found},
    outcome::Outcome,
    store::{Claim, Looked, Verdict},
    telemetry::Event,
};

impl Loop {
    pub(super) fn ended(&mut self, ended: Ended) {
        match ended {
            Ended::Handled(handled) => {
                self.handled(handled);
                self.give_back_surplus();
            }
            Ended::Settled(settled) => {
                self.outbox.settled();
                self.looking.room_again();
                self.forbidden = self.forbidden.take().or(settled.err());
            }
            Ended::Claimed(claimed) => self.claimed(claimed),
            Ended::HeldLook(look) => self.held_looked(&look),
            Ended::Held(batch) => self.held(batch),
            Ended::Latched(parked) => self.park(parking::Event::Latched(parked)),
            Ended::Swept(true) => {
                self.looking.look_everywhere(Found::Sweep);
                self.begin_suspects();
            }
            Ended::Suspects => self.looking.room_again(),
            Ended::Opened => self.looking.look(Found::Drain),
            Ended::Swept(false) | Ended::Reported | Ended::Kept => {}
        }
    }

    pub(super) fn signalled(&mut self, signal: Signal) {
        match signal {
            Signal::LeaseLost | Signal::Gone | Signal::Taken => self.lost(signal),
            Signal::Rung => {
                self.park(parking::Event::Rung { session: self.context.process.listener().session() });
                self.looking.look(Found::Bell);
            }
            Signal::LookAgain => self.looking.look(Found::Drain),
            Signal::TurnAgain => self.looking.come_back(),
            Signal::LookEverywhere => self.looking.look_everywhere(Found::Drain),
            Signal::Sweep => self.sweep(),
            Signal::Watchdog => self.watch(),
            // Ends the loop; see `run`. What was waited for begins with the next turn.
            Signal::Stop | Signal::Lingered => {}
        }
    }

    /// Takes the ends of handlers.
    pub(super) fn handled(&mut self, handled: Vec<Handled>) {
        for handled in handled {
            let (claim, ran, canary, took, handler) = match handled {
                Handled::One { claim, ran, canary, took, handler } => (claim, ran, canary, took, handler),
                Handled::Several { claim, became, took } => {
                    self.handled_together(claim, became, took);
                    continue;
                }
            };
            // Given up, or its lease was lost.
            if !self.workers.ended(&claim, took) {
                continue;
            }
            self.holding.ran(1, handler);
            self.report.ran(&ran, canary);
            match ran {
                Ran::Completed | Ran::Outcome(Outcome::Done) => self.workers.next_of_key(&claim),
                // What comes after it waits for it.
                _ => self.outbox.release(self.workers.rest_of_key(&claim)),
            }
            match ran {
                Ran::Outcome(outcome) => self.outbox.put(claim, Verdict::Outcome(outcome)),
                Ran::Completed | Ran::LeaseLost => {
                    self.context.process.in_hand().forget([claim]);
                    self.looking.room_again();
                }
            }
        }
    }

    fn claimed(&mut self, claimed: Claimed) {
        let Claimed { look, limit, took, looked } = claimed;
        let looked = match looked {
            Ok(looked) => looked,
            Err(error) => {
                self.context.allowance.put_back(limit);
                self.looking.failed(&look, &error);
                // Nothing that is tried again changes that.
                if error.kind() == ErrorKind::Forbidden {
                    self.forbidden.get_or_insert(error);
                }
                return;
            }
        };
        if let Some(holder) = looked.turned_away {
            self.context.allowance.put_back(limit);
            return self.looking.turned_away(&look, holder, Instant::now(), rand::random());
        }
        let (observed, count, opens_in) = (Observed::of(&looked), looked.deliveries.len(), looked.opens_in);
        let full =
            count + looked.passed.len() >= limit || self.context.request(&self.owner).may_be_cut(&looked.deliveries);
        self.context.process.found().add(&self.context.target, look.why(), count);
        self.holding.leased(&look, count, observed.is_keyed());
        self.looking.looked(&look, &observed, full, took);
        if looked.in_parts {
            // What was refused took the places of others, which may lie anywhere.
            self.looking.look_everywhere(Found::Drain);
        }
        let mine = self.mine(looked);
        self.context.allowance.put_back(limit - mine.len());
        self.workers.queue(mine);
        if full {
            // There may be more, and more will come.
            self.park(parking::Event::Busy);
            return;
        }
        if let Some(opens_in) = opens_in {
            let target = &self.context.target;
            self.context.store.telemetry().tell(Event::RateLimited { target, opens_in });
            self.under_way.begin(Kind::Opening, opening::opens(opens_in).map(|()| Ended::Opened));
        }
        self.exhausted(Exhausted::new(&look, &observed));
    }

    /// A look took all there was.
    fn exhausted(&mut self, exhausted: Exhausted) {
        if !self.looking.is_wanted() {
            self.park(parking::Event::Exhausted(exhausted));
            if exhausted.suspects_may_wait() {
                self.begin_suspects();
            }
        }
    }

    /// Without what came with a claim that was under way while the lease was lost: rescued already, or found as a stray
    /// soon.
    pub(super) fn mine(&self, looked: Looked) -> Vec<Delivery> {
        let deliveries = looked.deliveries.into_iter();
        let (mine, lost): (Vec<_>, Vec<_>) = deliveries.partition(|delivery| delivery.owner == self.owner);
        self.context.process.in_hand().forget(lost.iter().map(Claim::of));
        mine
    }

    /// More of the same while batches come full.
    fn held_looked(&mut self, held: &HeldLook) {
        let HeldLook { look, observed, full, took } = held;
        self.looking.looked(look, observed, *full, *took);
        if *full {
            self.park(parking::Event::Busy);
        } else {
            self.exhausted(Exhausted::new(look, observed));
        }
    }

    pub(super) fn held(&mut self, mut batch: HeldBatch) {
        let begun = batch.begun();
        self.context.allowance.put_back(batch.limit - begun);
        self.report.completed(batch.completed);
        self.context.process.found().add(&self.context.target, batch.look.why(), begun);
        // What transactional ones take of a batch says nothing about leased ones, which commit one by one.
        let (count, took) = batch.plain;
        if count > 0 {
            self.workers.were_held(count as u32, took);
        }
        let then = self.holding.ended(&batch);
        self.keep(std::mem::take(&mut batch.kept));
        match then {
            Then::Nothing => {}
            Then::Look(why) => self.looking.look(why),
            Then::LookAgain(why) => self.looking.look_again(why),
        }
    }

    /// Goes on with what was held and is leased now.
    fn keep(&mut self, kept: Vec<Kept>) {
        for kept in kept {
            match kept {
                Kept::Ended(claim, outcome) => {
                    let ran = Ran::Outcome(outcome.clone());
                    self.report.ran(&ran, false);
                    self.outbox.put(claim, Verdict::Outcome(outcome));
                }
                Kept::Running(mut handling) => {
                    let (claim, begun, slot) = (handling.claim(), handling.begun().clone(), handling.take_slot());
                    let abort = self.under_way.begin_handler(|tell| handling.finish(tell));
                    self.workers.started(claim, &begun, &abort, slot);
                }
                Kept::Cut(delivery) => self.workers.queue(vec![*delivery]),
            }
        }
    }

    fn sweep(&mut self) {
        // Of consumers that accept only some record types, each is somewhere else.
        if !self.under_way.has(Kind::Keep)
            && self.context.config.record_types.is_none()
            && let Some(places) = self.looking.keep()
        {
            let context = self.context.clone();
            self.under_way.begin(Kind::Keep, async {
                sweeping::keep(context, places).await;
                Ended::Kept
            });
        }
        let waiting = sweeping::sweep(&self.context, self.parking.is_parked());
        self.under_way.begin(Kind::Sweep, async { Ended::Swept(waiting.await) });
        self.plan_sweep();
    }

    pub(super) fn plan_sweep(&mut self) {
        let pause = sweeping::pause(&self.context, self.looking.everywhere_in());
        self.signals.sweep_at(pause.map(|pause| Instant::now() + pause));
    }

    /// Once a second.
    fn watch(&mut self) {
        self.under_way.reap();
        self.give_up_overdue();
        self.workers.notice_slow(Instant::now());
        self.give_back_surplus();
        self.begin_report();
    }

    /// Fails messages whose handlers their timeout did not stop because they never yield. Nothing renews a lease for
    /// them.
    fn give_up_overdue(&mut self) {
        let Some(limit) = self.context.config.handler_timeout else { return };
        for (claim, batch) in self.workers.overdue(limit, Instant::now()) {
            if !batch.is_empty() {
                warn!(target_app = %self.context.target, messages = batch.len(),
                    "a batch did not stop at its timeout; is its handler blocking its thread? Its messages are handled one by one");
                let alone = vec![Became::Alone; batch.len()];
                self.became(batch, alone);
                continue;
            }
            self.report.gave_up();
            self.outbox.release(self.workers.rest_of_key(&claim));
            let (target_app, id, attempt) = (&self.context.target, claim.id(), claim.attempt());
            warn!(%target_app, id, attempt, "the handler did not stop at its timeout; is it blocking its thread?");
            self.outbox.put(claim, Verdict::Outcome(did_not_stop(limit)));
        }
    }

    fn give_back_surplus(&mut self) {
        self.outbox.release(self.workers.surplus());
    }

    /// Messages are not this consumer's any more: stops handling them.
    pub(super) fn lost(&mut self, loss: Signal) {
        match loss {
            Signal::LeaseLost => {
                self.under_way.drop_one(Kind::Suspects);
                self.start_over();
            }
            Signal::Gone => {
                self.drop_gone("handlers are cancelled: the server does not know their messages any more");
                // It may be another server, where places mean nothing.
                self.looking.start_over();
            }
            _ => {
                self.drop_gone("handlers are cancelled: their messages were taken away by an operator or by hand");
                self.looking.room_again();
            }
        }
    }

    fn drop_gone(&mut self, why: &'static str) {
        let in_hand = self.context.process.in_hand();
        let (unstarted, stopped, behind) = self.workers.drop_gone(|claim| !in_hand.has(claim));
        let gone = unstarted + stopped;
        if gone > 0 {
            warn!(target_app = %self.context.target, gone, "{why}");
            self.context.store.telemetry().lease_lost(&self.context.target, gone);
        }
        self.context.allowance.put_back(unstarted);
        self.outbox.release(behind);
    }

    /// The lease was lost: stop everything that ran under it.
    fn start_over(&mut self) {
        let owner = self.signals.owner();
        if owner == self.owner {
            return;
        }
        let unstarted = self.workers.take_unstarted().len();
        let lost = unstarted + self.workers.stop().len() + self.outbox.clear();
        if lost > 0 {
            warn!(target_app = %self.context.target, lost, owner = %self.owner, "handlers are cancelled: their lease was lost");
            self.context.store.telemetry().lease_lost(&self.context.target, lost);
        }
        self.context.allowance.put_back(unstarted);
        self.owner = owner;
        self.looking.start_over();
    }
}
