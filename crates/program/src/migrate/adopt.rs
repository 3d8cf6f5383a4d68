//! `doorbell migrate --adopt`: tables of the integration document that were there before Doorbell.

use doorbell::{
    Broker,
    migrate::{Adopt, Adoption, Report},
};
use serde_json::{Value, json};

use crate::{
    consent,
    exit::{Exit, Failure},
    output,
};

#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// Make the schema where the integration document's own tables are, and their rows messages
    ///
    /// In one transaction, for which whoever publishes or consumes waits. Says what it will do and asks; without a terminal
    /// it needs --yes. The old tables stay, in a schema of their own.
    #[arg(long, conflicts_with_all = ["sql", "check"])]
    adopt: bool,

    /// Say what adopting would do, and do nothing; exit with 4 when it would be refused
    #[arg(short = 'n', long, requires = "adopt")]
    dry_run: bool,

    /// The zone in which times without one are read: Europe/Berlin, UTC [default: that of the database's sessions]
    #[arg(long, value_name = "ZONE", requires = "adopt")]
    times_in: Option<String>,

    /// A column that the document does not have and that may stay in the old table, instead of being kept; can be given several
    /// times
    #[arg(long, value_name = "TABLE.COLUMN", requires = "adopt")]
    leave: Vec<String>,

    /// Do not ask
    #[arg(short, long, requires = "adopt")]
    yes: bool,
}

impl Args {
    pub(super) fn is_asked(&self) -> bool {
        self.adopt
    }

    pub(super) async fn run(self, broker: &Broker, as_json: bool) -> Result<Exit, Failure> {
        let mut how = Adopt::default();
        how.times_in = self.times_in;
        how.leave = self.leave;
        let Some(adoption) = broker.adoption(&how).await? else {
            if self.dry_run {
                eprintln!("there is nothing to adopt; doorbell migrate makes the schema, or brings it up to date");
                return Ok(Exit::Done);
            }
            return report(&broker.migrate().await?, as_json);
        };
        let is_refused = !adoption.differences.is_empty();
        if as_json && (self.dry_run || is_refused) {
            output::json(&json_of(&adoption))?;
        } else if !as_json {
            sentences(&adoption).iter().try_for_each(output::line)?;
        }
        if is_refused {
            return Ok(Exit::CheckFailed);
        }
        if self.dry_run || !self.yes && !confirmed(&adoption).await? {
            return Ok(if self.dry_run { Exit::Done } else { Exit::Failed });
        }
        report(&broker.adopt(&how).await?, as_json)
    }
}

fn json_of(adoption: &Adoption) -> Value {
    json!({
        "before": adoption.before, "times_in": adoption.times_in, "rows": adoption.rows, "kept": adoption.kept,
        "left": adoption.left, "differences": adoption.differences,
    })
}

/// What a migration did, with what it adopted.
pub(super) fn report(report: &Report, as_json: bool) -> Result<Exit, Failure> {
    if as_json {
        let mut said = json!({ "version": report.version, "applied": report.applied });
        if let Some(adoption) = &report.adopted {
            said["adopted"] = json_of(adoption);
        }
        output::json(&said)?;
        return Ok(Exit::Done);
    }
    report.applied.iter().try_for_each(output::line)?;
    eprintln!("the schema is up to date, version {}", report.version);
    Ok(Exit::Done)
}

async fn confirmed(adoption: &Adoption) -> Result<bool, Failure> {
    if consent::can_ask() {
        let question = format!("adopt {} rows?", all_rows(adoption));
        return Ok(tokio::task::spawn_blocking(move || consent::ask(&question)).await.unwrap_or(false));
    }
    Err(Failure::new(Exit::Usage, "nothing was adopted; say so with --yes, or only look with --dry-run"))
}

fn all_rows(adoption: &Adoption) -> i64 {
    adoption.rows.iter().filter(|(name, _)| !name.contains('.')).map(|(_, rows)| rows).sum()
}

/// What will be done, or why not.
fn sentences(adoption: &Adoption) -> Vec<String> {
    let mut said = Vec::new();
    for (table, rows) in adoption.rows.iter().filter(|(name, _)| !name.contains('.')) {
        let statuses = adoption.rows.iter().filter_map(|(name, rows)| {
            Some(format!("{rows} {}", name.strip_prefix(table.as_str())?.strip_prefix('.')?))
        });
        let statuses = statuses.collect::<Vec<_>>().join(", ");
        let statuses = if statuses.is_empty() { statuses } else { format!(": {statuses}") };
        said.push(format!("{table}: {rows} rows{statuses}"));
    }
    if !adoption.differences.is_empty() {
        said.push("cannot be adopted as they are:".to_owned());
        said.extend(adoption.differences.iter().map(|what| format!("  {what}")));
        return said;
    }
    said.push("in one transaction, for which whoever publishes or consumes waits:".to_owned());
    said.push(format!("  the tables move to the schema {}, and stay there until you drop it", adoption.before));
    said.push("  the schema is made, and all rows are copied, with their ids, statuses and times".to_owned());
    if let Some(zone) = &adoption.times_in {
        said.push(format!("  times without a zone are read in {zone} (--times-in takes another)"));
    }
    said.push("  ids go on where they were; who could select, insert, update or delete still can".to_owned());
    if adoption.rows.iter().any(|(name, rows)| matches!(&**name, "data_staging_archive" | "audit_log") && *rows > 0) {
        said.push("  archive_retention and audit_retention become 100 years: nobody deleted there".to_owned());
    }
    said.push(
        "afterwards doorbell archives what was completed 7 days ago, and deletes what failed 30 days ago".to_owned(),
    );
    if !adoption.kept.is_empty() {
        said.push("the new tables will have, too:".to_owned());
        said.extend(adoption.kept.iter().map(|what| format!("  {what}")));
    }
    if !adoption.left.is_empty() {
        said.push("only the old tables will have:".to_owned());
        said.extend(adoption.left.iter().map(|what| format!("  {what}")));
    }
    said
}
