//! Settling: every statement names id, attempt and owner; what it does not return had lost its lease.

use tokio_postgres::{
    Transaction,
    types::{ToSql, Type},
};

use super::Store;
use crate::{
    error::Result,
    message::{MessageId, storable_ms},
    outcome::Outcome,
};

const COMPLETE: &str = "select * from integration.complete($1::text, $2::bigint[], $3::integer[])";
// From here on the transaction holds the messages' locks: a commit that never reaches the server (the network went silent)
// must not hold them until TCP gives up after hours.
const COMPLETE_IN: &str = "select c.* from integration.complete($1::text, $2::bigint[], $3::integer[]) c, \
    set_config('idle_in_transaction_session_timeout', $4, true)";
const COMPLETE_HELD: &str = "select * from integration.complete($1::text, $2::bigint[], $3::integer[], true)";
const WAS_SETTLED: &str = "select * from integration.was_settled($1, $2)";
const SETTLE: &str = "select id, status from integration.settle($1, $2, $3, $4, $5, $6)";

/// What becomes of one claimed message.
#[derive(Clone, Debug)]
pub(crate) struct Settlement {
    pub(crate) id: MessageId,
    pub(crate) attempt: i32,
    pub(crate) verdict: Verdict,
}

/// How a claimed message leaves its consumer.
#[derive(Clone, Debug)]
pub(crate) enum Verdict {
    Outcome(Outcome),
    /// Given back unstarted.
    Release,
    /// Completed already, in the transaction of its handler.
    Completed,
    /// The transaction of its handler found the lease lost, and was rolled back.
    LeaseLost,
}
impl Store {
    /// Completes messages of one owner; returns the ids that were.
    pub(crate) async fn complete(&self, owner: &str, ids: &[MessageId], attempts: &[i32]) -> Result<Vec<MessageId>> {
        let rows = self.query("complete messages", COMPLETE, &[&owner, &ids, &attempts]).await?;
        rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
    }

    /// Completes messages inside the transaction of their handler; fewer than given: a lease was lost, roll back. The
    /// server ends the session if the transaction is not over after the deadline of a statement.
    pub(crate) async fn complete_in(
        &self,
        tx: &Transaction<'_>,
        owner: &str,
        ids: &[MessageId],
        attempts: &[i32],
    ) -> Result<usize> {
        let types = [Type::TEXT, Type::INT8_ARRAY, Type::INT4_ARRAY, Type::TEXT];
        let limit = self.deadline.as_millis().max(1).to_string();
        let params: [&(dyn ToSql + Sync); 4] = [&owner, &ids, &attempts, &limit];
        let typed: Vec<_> = params.into_iter().zip(types).collect();
        Ok(tx.query_typed(&self.sql(COMPLETE_IN), &typed).await?.len())
    }

    /// Completes messages that the transaction holds (see [`Store::hold_in`]); returns how many were.
    pub(crate) async fn complete_held_in(
        &self,
        tx: &deadpool_postgres::Transaction<'_>,
        owner: &str,
        ids: &[MessageId],
        attempts: &[i32],
    ) -> Result<usize> {
        let statement = tx.prepare_cached(&self.sql(COMPLETE_HELD)).await?;
        Ok(tx.query(&statement, &[&owner, &ids, &attempts]).await?.len())
    }

    /// Which of the attempts were settled by a statement whose answer was lost.
    pub(crate) async fn was_settled(&self, ids: &[MessageId], attempts: &[i32]) -> Result<Vec<MessageId>> {
        let rows = self.query("re-read settled messages", WAS_SETTLED, &[&ids, &attempts]).await?;
        rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
    }

    /// Settles messages of one owner with any outcome but completion; returns the ids and the status each one got.
    pub(crate) async fn settle(&self, owner: &str, settlements: &[Settlement]) -> Result<Vec<(MessageId, String)>> {
        let ids: Vec<MessageId> = settlements.iter().map(|s| s.id).collect();
        let attempts: Vec<i32> = settlements.iter().map(|s| s.attempt).collect();
        let mut outcomes = Vec::with_capacity(ids.len());
        let mut reasons: Vec<Option<String>> = Vec::with_capacity(ids.len());
        let mut delays_ms: Vec<Option<i64>> = Vec::with_capacity(ids.len());
        for settlement in settlements {
            let (outcome, reason, delay) = match &settlement.verdict {
                Verdict::Release => ("release", None, None),
                Verdict::Outcome(Outcome::Retry { after, reason }) => ("retry", Some(reason), *after),
                Verdict::Outcome(Outcome::Snooze { after }) => ("snooze", None, Some(*after)),
                Verdict::Outcome(Outcome::Unavailable { .. }) => ("release", None, None),
                Verdict::Outcome(Outcome::Reject { reason }) => ("reject", Some(reason), None),
                Verdict::Outcome(Outcome::Done) | Verdict::Completed | Verdict::LeaseLost => {
                    unreachable!("completions go through complete, and what is settled is not settled again")
                }
            };
            outcomes.push(outcome);
            reasons.push(reason.map(|reason| storable(reason)));
            delays_ms.push(delay.map(storable_ms));
        }
        let rows =
            self.query("settle messages", SETTLE, &[&owner, &ids, &attempts, &outcomes, &reasons, &delays_ms]).await?;
        rows.iter().map(|row| Ok((row.try_get("id")?, row.try_get("status")?))).collect()
    }
}

/// The server cannot even receive a NUL; the rest of the cleaning is SQL's. Bounded, so that a 10 MB error text is not
/// sent to be cut there.
fn storable(reason: &str) -> String {
    reason.chars().filter(|&c| c != '\0').take(8000).collect()
}
