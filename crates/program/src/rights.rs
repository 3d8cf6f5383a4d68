//! `doorbell rights`: who may what.

use clap::Args;
use doorbell::operate::RightsRow;
use serde_json::json;

use crate::{
    Global,
    exit::{Exit, Failure},
    output,
};

const HEADINGS: [&str; 6] = ["ROLE", "APPLICATION", "MAY", "TO", "LIMITS", "REMARK"];

/// List who may what: by role, for one application or for all of them
///
/// Superusers and the owner of the schema may everything and are not listed; nor are the members of a role that is.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  doorbell rights
  doorbell rights --json | jq -r '.rights[] | select(.app == \"billing\") | .role'

JSON: {\"rights\": [{\"role\", \"app\", \"verbs\", \"publish_to\", \"max_priority\", \"max_pending\", \"wrong\"}]}; \
app is null for all applications, wrong says why a line is not so.")]
pub(crate) struct Rights {
    /// Of this role only
    role: Option<String>,
}

impl Rights {
    pub(crate) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        let mut rights = global.database.broker().await?.operator().rights().await?;
        rights.retain(|row| self.role.as_ref().is_none_or(|role| *role == row.role));
        if global.json {
            output::json(&json!({ "rights": rights }))?;
            return Ok(Exit::Done);
        }
        if rights.is_empty() {
            eprintln!("nothing is granted; superusers and the owner of the schema may everything");
        }
        output::table(&HEADINGS, &rights.iter().map(cells).collect::<Vec<_>>())?;
        Ok(Exit::Done)
    }
}

fn cells(row: &RightsRow) -> Vec<String> {
    let priority = row.max_priority.map(|priority| format!("priority {priority}"));
    let pending = row.max_pending.map(|pending| format!("{pending} waiting"));
    vec![
        row.role.clone(),
        row.app.clone().unwrap_or_else(|| "(all)".to_owned()),
        row.verbs.join(", "),
        row.publish_to.join(", "),
        priority.into_iter().chain(pending).collect::<Vec<_>>().join(", "),
        row.wrong.clone().unwrap_or_default(),
    ]
}
