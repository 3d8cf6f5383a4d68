//! `doorbell contracts`: what messages have to say.

use clap::Args;
use doorbell::operate::ContractRow;
use serde_json::{Value, json};

use crate::{
    Global,
    exit::{Exit, Failure},
    output,
    timestamp::rfc3339,
};

const HEADINGS: [&str; 6] = ["TARGET", "TYPE", "VERSION", "RULE", "POLICY", "BREACHES"];

/// List the contracts, and how many messages of their targets have broken one
///
/// BREACHES counts those that were stored, for the target's contracts together; what is rejected is not there to be counted.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  doorbell contracts
  doorbell audit --action breached --since 1d

JSON: {\"contracts\": [{\"target\", \"type\", \"of_version\", \"rule\", \"policy\", \"breaches\", \"created_at\"}]}.")]
pub(crate) struct Contracts {}

impl Contracts {
    pub(crate) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        let contracts = global.database.broker().await?.operator().contracts().await?;
        if global.json {
            output::json(&json!({ "contracts": contracts.iter().map(contract_json).collect::<Vec<_>>() }))?;
            return Ok(Exit::Done);
        }
        if contracts.is_empty() {
            eprintln!("there are no contracts");
        }
        output::table(&HEADINGS, &contracts.iter().map(cells).collect::<Vec<_>>())?;
        Ok(Exit::Done)
    }
}

fn contract_json(row: &ContractRow) -> Value {
    json!({
        "target": row.target, "type": row.record_type, "of_version": row.version, "rule": row.rule,
        "policy": row.policy, "breaches": row.breaches, "created_at": rfc3339(row.created_at),
    })
}

fn cells(row: &ContractRow) -> Vec<String> {
    vec![
        row.target.clone(),
        row.record_type.clone(),
        row.version.to_string(),
        row.rule.clone(),
        row.policy.clone(),
        row.breaches.to_string(),
    ]
}
