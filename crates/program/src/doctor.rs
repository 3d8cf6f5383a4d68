//! `doorbell doctor`: what is wrong, and what to type.

use std::io::stdout;

use clap::Args;
use doorbell::doctor::{Finding, Level, Options, Report};
use serde_json::json;

use crate::{
    Global,
    exit::{Exit, Failure},
    output,
};

/// Examine the database, the schema, the way to it and the fleet
///
/// Says what is wrong, what was seen, and what to type. It changes nothing: the bell is tried with a message that is taken
/// back before anybody can see it. Ask with the connection string of the process that has a problem, and once as the owner
/// of the schema, who sees most.
#[derive(Args, Debug)]
#[command(after_help = "\
Exit codes:
     0  well, or with notes and warnings
     4  there is a problem (with --strict: or a warning)

Examples:
  doorbell doctor
  doorbell doctor --quiet                                     only what is not well
  doorbell doctor --json | jq -r '.findings[] | select(.level == \"problem\") | .fix'

JSON: {\"worst\", \"findings\": [{\"check\", \"level\": \"ok\" | \"note\" | \"warning\" | \"problem\", \"what\", \"evidence\", \
\"fix\"}]}.")]
pub(crate) struct Doctor {
    /// Fail for warnings, too
    #[arg(long)]
    strict: bool,
    /// Leave out what is well
    #[arg(short, long)]
    quiet: bool,
}

impl Doctor {
    pub(crate) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        let broker = global.database.broker().await?;
        let report = broker.operator().doctor(&Options::default()).await?;
        let shown = report.findings.iter().filter(|finding| !self.quiet || finding.level > Level::Ok);
        if global.json {
            let findings: Vec<&Finding> = shown.collect();
            output::json(&json!({ "worst": report.worst(), "findings": findings }))?;
        } else {
            shown.map(lines).try_for_each(output::line)?;
            eprintln!("{}", summary(&report));
        }
        let failing = if self.strict { Level::Warning } else { Level::Problem };
        Ok(if report.worst() >= failing { Exit::CheckFailed } else { Exit::Done })
    }
}

fn lines(finding: &Finding) -> String {
    let level = match finding.level {
        Level::Ok => "ok     ",
        Level::Note => "note   ",
        Level::Warning => "warning",
        Level::Problem => "problem",
    };
    let colours = output::colours(&stdout());
    let level = match finding.level {
        Level::Warning if colours => format!("\x1b[33m{level}\x1b[0m"),
        Level::Problem if colours => format!("\x1b[31m{level}\x1b[0m"),
        _ => level.to_owned(),
    };
    let mut text = format!("{level}  {:<12}  {}", finding.check, output::printable(&finding.what));
    if let Some(evidence) = &finding.evidence {
        text.push_str(&format!("\n{:25}{}", "", output::printable(evidence)));
    }
    if let Some(fix) = &finding.fix {
        // Several lines where it is a statement of the migrations, to be copied as it is.
        text.push_str(&format!(
            "\n{:23}> {}",
            "",
            fix.lines().map(output::printable).collect::<Vec<_>>().join(&format!("\n{:25}", ""))
        ));
    }
    text
}

fn summary(report: &Report) -> String {
    let counted =
        [(Level::Problem, "problem"), (Level::Warning, "warning"), (Level::Note, "note")].map(|(level, word)| {
            let count = report.findings.iter().filter(|finding| finding.level == level).count();
            (count > 0).then(|| format!("{count} {word}{}", if count == 1 { "" } else { "s" }))
        });
    match counted.into_iter().flatten().collect::<Vec<_>>().join(", ") {
        none if none.is_empty() => "all is well".to_owned(),
        some => some,
    }
}
