//! Settling: every statement names id, attempt, created_at and owner; what it does not return had lost its lease.

use std::{collections::HashSet, time::Duration};

use tokio_postgres::{
    Row, Transaction,
    types::{ToSql, Type},
};
use tracing::debug;

use super::{
    Store,
    fence::{Claim, Fence},
};
use crate::{
    error::Result,
    message::{MessageId, storable_ms},
    outcome::Outcome,
};

// For a row that somebody has locked nobody waits who settles others with it, see SETTLE_OR_OWE.
const COMPLETE: &str = "select c.id from (select set_config('lock_timeout', '500ms', true)) x \
    left join integration.complete_many($1::text, $2::bigint[], $3::integer[], $4::timestamptz[]) c (id) on true";
// From here on the transaction holds the messages' locks: a commit that never reaches the server (the network went
// silent) must not hold them until TCP gives up after hours.
const COMPLETE_IN: &str = "select c.* from integration.complete_many($1::text, $2::bigint[], $3::integer[], $4::timestamptz[]) c, \
    set_config('idle_in_transaction_session_timeout', $5, true)";
pub(super) const COMPLETE_HELD: &str =
    "select * from integration.complete_many($1::text, $2::bigint[], $3::integer[], $4::timestamptz[], true)";
const WAS_SETTLED: &str = "select * from integration.was_settled($1, $2, $3)";
const SETTLE: &str = "select s.id from (select set_config('lock_timeout', '500ms', true)) x \
    left join integration.settle($1, $2, $3, $4, $5, $6, $7) s on true";
// Rows that are locked, or that the database refuses to change, are left to the database to settle later.
const SETTLE_OR_OWE: &str = "select s.id from (select set_config('lock_timeout', '500ms', true)) x \
    left join integration.settle_or_owe($1, $2, $3, $4, $5, $6, $7) s on true";

/// What a handler said that is not so.
const NOT_SETTLED: &str = "its handler said Settled, but no transaction of its own has completed the message";

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
    /// Settles messages of one owner: completions in one statement, everything else in
    /// another; those that handlers completed themselves are asked for. What cannot be settled now,
    /// because somebody has locked it or the database refuses to change it, the database settles later. Returns how many
    /// messages the owner is rid of; the others had lost their lease.
    pub(crate) async fn settle(&self, owner: &str, settlements: &[Settlement]) -> Result<usize> {
        let (mut done, mut others, mut themselves) = (Batch::default(), Batch::default(), Vec::new());
        for Settlement { claim, verdict } in settlements {
            match verdict {
                Verdict::Outcome(Outcome::Done) => done.push(*claim, "complete", None, None),
                Verdict::Outcome(Outcome::Settled) => themselves.push(*claim),
                Verdict::Outcome(Outcome::Retry { after, reason }) => {
                    others.push(*claim, "retry", Some(reason), *after)
                }
                Verdict::Outcome(Outcome::Snooze { after }) => others.push(*claim, "snooze", None, Some(*after)),
                Verdict::Outcome(Outcome::Reject { reason }) => others.push(*claim, "reject", Some(reason), None),
                Verdict::Outcome(Outcome::Unavailable { .. }) | Verdict::Release => {
                    others.push(*claim, "release", None, None);
                }
            }
        }
        let mut settled = 0;
        if !themselves.is_empty() {
            let ended = self.settled_of(&themselves).await?;
            settled += ended.len();
            // Or the effects are not there, and the message would wait for ever.
            let missing = themselves.iter().filter(|claim| !ended.contains(&claim.id()));
            missing.for_each(|claim| others.push(*claim, "retry", Some(&NOT_SETTLED.to_owned()), None));
        }
        if !done.fence.is_empty() {
            let Fence { ids, attempts, created } = &done.fence;
            let params: [&(dyn ToSql + Sync); 4] = [&owner, ids, attempts, created];
            settled += self.settle_batch("complete messages", COMPLETE, &params, owner, &done).await?;
        }
        if !others.fence.is_empty() {
            let params = others.params(&owner);
            settled += self.settle_batch("settle messages", SETTLE, &params, owner, &others).await?;
        }
        Ok(settled)
    }

    async fn settle_batch(
        &self,
        doing: &str,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
        owner: &str,
        batch: &Batch,
    ) -> Result<usize> {
        let in_parts =
            async || count(&self.query("settle messages in parts", SETTLE_OR_OWE, &batch.params(&owner)).await?);
        match self.query(doing, sql, params).await {
            Err(error) if error.is_refusal() || error.sqlstate() == Some("55P03") => {
                debug!(?error, owner, "settling was refused; what cannot be settled the database will settle later");
                in_parts().await
            }
            rows => match count(&rows?)? {
                // Their lease was lost, or a trigger of somebody's left them out: then they are owed.
                settled if settled < batch.fence.ids.len() => Ok(settled + in_parts().await?),
                settled => Ok(settled),
            },
        }
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

    /// How many of the claims were settled by a statement whose answer was lost.
    pub(crate) async fn were_settled(&self, claims: &[Claim]) -> Result<usize> {
        Ok(self.settled_of(claims).await?.len())
    }

    /// Waits for transactions that are settling them right now.
    async fn settled_of(&self, claims: &[Claim]) -> Result<HashSet<MessageId>> {
        let Fence { ids, attempts, created } = Fence::of(claims);
        let rows = self.query("re-read settled messages", WAS_SETTLED, &[&ids, &attempts, &created]).await?;
        rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
    }
}

/// The server cannot even receive a NUL; the rest of the cleaning is SQL's. Bounded, so that a 10 MB error text is not
/// sent to be cut there.
fn storable(reason: &str) -> String {
    reason.chars().filter(|&c| c != '\0').take(8000).collect()
}

/// Settlements as the functions take them.
#[derive(Default)]
struct Batch {
    fence: Fence,
    outcomes: Vec<&'static str>,
    reasons: Vec<Option<String>>,
    delays_ms: Vec<Option<i64>>,
}

impl Batch {
    fn push(&mut self, claim: Claim, outcome: &'static str, reason: Option<&String>, delay: Option<Duration>) {
        self.fence.push(claim);
        self.outcomes.push(outcome);
        self.reasons.push(reason.map(|reason| storable(reason)));
        self.delays_ms.push(delay.map(storable_ms));
    }

    fn params<'a>(&'a self, owner: &'a &str) -> [&'a (dyn ToSql + Sync); 7] {
        let Fence { ids, attempts, created } = &self.fence;
        [owner, ids, attempts, created, &self.outcomes, &self.reasons, &self.delays_ms]
    }
}

/// Rows that name a message: there is one that does not where there is none.
fn count(rows: &[Row]) -> Result<usize> {
    let mut count = 0;
    for row in rows {
        count += usize::from(row.try_get::<_, Option<MessageId>>(0)?.is_some());
    }
    Ok(count)
}
