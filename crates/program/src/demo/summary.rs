//! What became of every message, as the database tells it.

use std::path::Path;

use doorbell::{Error, MessageId};
use serde::Serialize;

use super::{ledger::Ledger, victim::Killed, wake::WakeUps};
use crate::{exit::Failure, output};

// Asked about the ids that publishers hold, so that a message which vanished is missed.
const ENDED: &str = "select count(*) from unnest($1::bigint[]) p (id) \
    join integration.data_staging d on d.id = p.id where d.status = $2";
const HANDLED_TWICE: &str =
    "select message_id from demo.ledger group by message_id having count(*) > 1 order by message_id";
// Before them, one was handled that had been published after them for the same order.
const OUT_OF_ORDER: &str = "select count(*) from (select l.message_id, max(l.message_id) over (partition by d.target_app, \
    d.ordering_key order by l.at rows between unbounded preceding and 1 preceding) as before \
    from demo.ledger l join integration.data_staging d on d.id = l.message_id where d.ordering_key is not null) h \
    where h.before > h.message_id";
const FOLLOWED: &str = "select count(*) from (select from integration.data_staging d where d.ordering_key is not null \
    group by d.target_app, d.ordering_key having count(*) > 1) k";
const REASONS: &str = "select format('#%s %s for %s, after %s attempts: %s', id, record_type, target_app, attempt, error_message) \
    from integration.data_staging where status = 'failed' order by id limit 5";

/// The end of the demo; what `--json` prints is what has no `skip`.
#[derive(Serialize)]
pub(super) struct Summary {
    /// Acknowledged to a publisher.
    published: i64,
    completed: i64,
    failed: i64,
    /// Published, and neither completed nor failed nor cancelled.
    lost: i64,
    /// Messages that are in the ledger more than once.
    handled_twice: usize,
    /// Handled after a later message about the same order.
    out_of_order: i64,
    wake_p50_ms: f64,
    wake_p99_ms: f64,
    /// Orders about which a target got more than one message.
    #[serde(skip)]
    followed: i64,
    #[serde(skip)]
    reasons: Vec<String>,
    #[serde(skip)]
    killed: String,
    #[serde(skip)]
    twice_by_the_kill: bool,
}

impl Summary {
    pub(super) async fn count(
        ledger: &Ledger,
        published: &[MessageId],
        wake_ups: &WakeUps,
        killed: &Killed,
    ) -> Result<Self, Failure> {
        let completed = ledger.number(ENDED, &[&published, &"completed"]).await?;
        let failed = ledger.number(ENDED, &[&published, &"failed"]).await?;
        let cancelled = ledger.number(ENDED, &[&published, &"cancelled"]).await?;
        let twice = ledger.rows(HANDLED_TWICE, &[]).await?;
        let twice =
            twice.iter().map(|row| row.try_get(0)).collect::<Result<Vec<MessageId>, _>>().map_err(Error::from)?;
        let reasons = ledger.rows(REASONS, &[]).await?;
        let reasons = reasons.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>().map_err(Error::from)?;
        let count = published.len() as i64;
        Ok(Self {
            published: count,
            completed,
            failed,
            lost: count - (completed + failed + cancelled),
            handled_twice: twice.len(),
            out_of_order: ledger.number(OUT_OF_ORDER, &[]).await?,
            followed: ledger.number(FOLLOWED, &[]).await?,
            wake_p50_ms: wake_ups.p50_ms(),
            wake_p99_ms: wake_ups.p99_ms(),
            reasons,
            killed: format!(
                "process {}, with {} messages in its hands; they were rescued after {:.1} s and handled by others",
                killed.pid,
                killed.held.len(),
                killed.rescued_after.as_secs_f64()
            ),
            twice_by_the_kill: twice.iter().all(|id| killed.held.contains(id)),
        })
    }

    /// Whether everything is there, and was handled in order.
    pub(super) fn is_well(&self) -> bool {
        self.lost == 0 && self.out_of_order == 0
    }

    /// For people.
    pub(super) fn print(&self) -> Result<(), Failure> {
        output::line("\nCounted in the database:")?;
        output::line(format_args!("  published      {:>5}  acknowledged to their publishers", self.published))?;
        output::line(format_args!("  completed      {:>5}", self.completed))?;
        output::line(format_args!("  failed         {:>5}  kept, with the reason:", self.failed))?;
        for reason in &self.reasons {
            output::line(format_args!("                        {reason}"))?;
        }
        output::line(format_args!("  lost           {:>5}", self.lost))?;
        output::line(format_args!("  handled twice  {:>5}  {}", self.handled_twice, self.why_twice()))?;
        output::line(format_args!(
            "  out of order   {:>5}  one at a time of each order, as published; {} orders had more than one for a target",
            self.out_of_order, self.followed
        ))?;
        output::line(format_args!("  killed             1  {}", self.killed))?;
        output::line(format_args!(
            "  wake-up               p50 {:.2} ms, p99 {:.2} ms from acknowledgement to handler, consumer idle",
            self.wake_p50_ms, self.wake_p99_ms
        ))?;
        let program = as_typed();
        output::line(
            "\nThe server and its data are gone; a PostgreSQL that was fetched for it stays in the cache. Next:",
        )?;
        output::line(format_args!("  {program} up                      a server that stays; every command finds it"))?;
        output::line(format_args!(
            "  {program} publish billing --source shop --type order.placed --data '{{\"order\": 7}}'"
        ))?;
        output::line(format_args!("  {program} consume billing --exec cat    in another terminal, before or after"))?;
        output::line(format_args!("  {program} stats --watch"))?;
        output::line(format_args!("  {program} down"))?;
        Ok(())
    }

    fn why_twice(&self) -> &'static str {
        match (self.handled_twice, self.twice_by_the_kill) {
            (0, _) => "(a killed consumer may have handled what it could not complete any more: not this time)",
            (_, true) => {
                "by the consumer that was killed before it could complete them, and then by another: at-least-once"
            }
            (_, false) => "not all of them by the kill: please report this",
        }
    }
}

/// What to type to run this program: its name where the shell finds it, else where it is, as after `cargo run`.
fn as_typed() -> String {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&paths).any(|path| path.join("doorbell").is_file());
    match std::env::current_exe() {
        Ok(program) if !found => {
            let here =
                std::env::current_dir().ok().and_then(|here| program.strip_prefix(here).ok().map(Path::to_owned));
            shell_words::quote(&here.unwrap_or(program).to_string_lossy()).into_owned()
        }
        _ => "doorbell".to_owned(),
    }
}
