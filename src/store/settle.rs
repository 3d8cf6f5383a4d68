//! Settling: every statement names id, attempt, created_at and owner; what it does not return had lost its lease.

use tokio_postgres::{
    Transaction,
    types::{ToSql, Type},
};

use super::{
    Store,
    fence::{Claim, Fence},
};
use crate::{error::Result, message::storable_ms, outcome::Outcome};

const COMPLETE: &str = "select * from integration.complete($1::text, $2::bigint[], $3::integer[], $4::timestamptz[])";
// From here on the transaction holds the messages' locks: a commit that never reaches the server (the network went
// silent) must not hold them until TCP gives up after hours.
const COMPLETE_IN: &str = "select c.* from integration.complete($1::text, $2::bigint[], $3::integer[], $4::timestamptz[]) c, \
    set_config('idle_in_transaction_session_timeout', $5, true)";
pub(super) const COMPLETE_HELD: &str =
    "select * from integration.complete($1::text, $2::bigint[], $3::integer[], $4::timestamptz[], true)";
const WAS_SETTLED: &str = "select * from integration.was_settled($1, $2, $3)";
const SETTLE: &str = "select id, status from integration.settle($1, $2, $3, $4, $5, $6, $7)";

/// What becomes of one claimed message.
#[derive(Clone, Debug)]
pub(crate) struct Settlement {
    pub(crate) claim: Claim,
    pub(crate) verdict: Verdict,
}

/// How a claimed message leaves its consumer.
#[derive(Clone, Debug)]
pub(crate) enum Verdict {
    Outcome(Outcome),
    /// Given back unstarted.
    Release,
}

impl Store {
    /// Settles messages of one owner: completions in one statement, everything else in another. Returns how many were
    /// settled; the others had lost their lease.
    pub(crate) async fn settle(&self, owner: &str, settlements: &[Settlement]) -> Result<usize> {
        let (mut done, mut others) = (Fence::default(), Fence::default());
        let mut outcomes = Vec::new();
        let mut reasons: Vec<Option<String>> = Vec::new();
        let mut delays_ms: Vec<Option<i64>> = Vec::new();
        for Settlement { claim, verdict } in settlements {
            let (outcome, reason, delay) = match verdict {
                Verdict::Outcome(Outcome::Done) => {
                    done.push(*claim);
                    continue;
                }
                Verdict::Outcome(Outcome::Retry { after, reason }) => ("retry", Some(reason), *after),
                Verdict::Outcome(Outcome::Snooze { after }) => ("snooze", None, Some(*after)),
                Verdict::Outcome(Outcome::Reject { reason }) => ("reject", Some(reason), None),
                Verdict::Outcome(Outcome::Unavailable { .. }) | Verdict::Release => ("release", None, None),
            };
            others.push(*claim);
            outcomes.push(outcome);
            reasons.push(reason.map(|reason| storable(reason)));
            delays_ms.push(delay.map(storable_ms));
        }
        let mut settled = 0;
        if !done.is_empty() {
            let Fence { ids, attempts, created } = done;
            let params: [&(dyn ToSql + Sync); 4] = [&owner, &ids, &attempts, &created];
            settled += self.query("complete messages", COMPLETE, &params).await?.len();
        }
        if !others.is_empty() {
            let Fence { ids, attempts, created } = others;
            let params: [&(dyn ToSql + Sync); 7] = [&owner, &ids, &attempts, &created, &outcomes, &reasons, &delays_ms];
            settled += self.query("settle messages", SETTLE, &params).await?.len();
        }
        Ok(settled)
    }

    /// Completes messages inside the transaction of their handler; fewer than given: a lease was lost, roll back. The
    /// server ends the session if the transaction is not over after the deadline of a statement.
    pub(crate) async fn complete_in(&self, tx: &Transaction<'_>, owner: &str, claims: &[Claim]) -> Result<usize> {
        let Fence { ids, attempts, created } = Fence::of(claims);
        let types = [Type::TEXT, Type::INT8_ARRAY, Type::INT4_ARRAY, Type::TIMESTAMPTZ_ARRAY, Type::TEXT];
        let limit = self.deadline.as_millis().max(1).to_string();
        let params: [&(dyn ToSql + Sync); 5] = [&owner, &ids, &attempts, &created, &limit];
        let typed: Vec<_> = params.into_iter().zip(types).collect();
        Ok(tx.query_typed(&self.sql(COMPLETE_IN), &typed).await?.len())
    }

    /// Completes messages that the transaction holds (see [`Store::hold_in`]); returns how many were.
    pub(crate) async fn complete_held_in(
        &self,
        tx: &deadpool_postgres::Transaction<'_>,
        owner: &str,
        claims: &[Claim],
    ) -> Result<usize> {
        let Fence { ids, attempts, created } = Fence::of(claims);
        Ok(self.query_in(tx, COMPLETE_HELD, &[&owner, &ids, &attempts, &created]).await?.len())
    }

    /// How many of the claims were settled by a statement whose answer was lost.
    pub(crate) async fn were_settled(&self, claims: &[Claim]) -> Result<usize> {
        let Fence { ids, attempts, created } = Fence::of(claims);
        Ok(self.query("re-read settled messages", WAS_SETTLED, &[&ids, &attempts, &created]).await?.len())
    }
}

/// The server cannot even receive a NUL; the rest of the cleaning is SQL's. Bounded, so that a 10 MB error text is not
/// sent to be cut there.
fn storable(reason: &str) -> String {
    reason.chars().filter(|&c| c != '\0').take(8000).collect()
}
