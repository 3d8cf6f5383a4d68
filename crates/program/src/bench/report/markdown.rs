//! The report as text.

use std::fmt::{self, Write};

use doorbell_bench::measure::{Case, Scenario, number};

use super::{
    peers, plots,
    results::{Results, Run},
};
use crate::bench::show::{ratio, span, target};

const INTRODUCTION: &str = "\
Every figure stands beside its floor: the same work by raw prepared statements on the same table, in sessions without \
triggers, in the same run on the same server, in turns (floor, ours, floor, ours, …). Figures are medians of the turns, with \
their range; the ratio is what counts, absolute figures say more of the machine. Client and server share its processors. \
`≥` and `≤` are what the design promises of a ratio; a missed promise is printed as missed.";

/// The whole file.
pub(super) fn render(results: &Results) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write(&mut text, results);
    text
}

fn write(out: &mut String, results: &Results) -> fmt::Result {
    writeln!(out, "# Benchmarks\n\nWritten by `{}`; do not edit, run it again.\n\n{INTRODUCTION}\n", results.command)?;
    let machine = &results.machine;
    table(
        out,
        &["", ""],
        [
            ("measured", format!("{}, commit {}", results.date, results.commit)),
            ("processor", format!("{}, {} cores", machine.cpu, machine.cores)),
            ("memory", format!("{:.0} GiB", machine.memory_gib)),
            ("system", machine.system.clone()),
            ("load before", machine.load.clone()),
        ]
        .into_iter()
        .chain(results.runs.iter().map(|run| ("server", server(run))))
        .map(|(name, value)| vec![name.to_owned(), value]),
    )?;

    writeln!(out, "## Promises\n")?;
    for run in &results.runs {
        writeln!(out, "PostgreSQL {}:\n", run.server.version)?;
        let promised = run.scenarios.iter().flat_map(|scenario| {
            scenario.cases.iter().filter(|case| case.target.is_some()).map(move |case| (scenario, case))
        });
        table(
            out,
            &["scenario", "case", "figure", "floor", "unit", "ratio", "promised"],
            promised.map(|(scenario, case)| {
                let name = format!("[{0}](#{1})", scenario.scenario, anchor(scenario, run));
                vec![
                    name,
                    case.case.clone(),
                    number(case.figure),
                    number(case.floor),
                    case.unit.to_owned(),
                    ratio(case.ratio),
                    target(case),
                ]
            }),
        )?;
    }
    if let Some(notes) = &results.notes {
        writeln!(out, "## What is missed, and why\n\n{}\n", notes.trim())?;
    }
    for run in &results.runs {
        writeln!(out, "## All figures, PostgreSQL {}\n", run.server.version)?;
        for scenario in &run.scenarios {
            one(out, results, run, scenario)?;
        }
    }
    writeln!(out, "## Others\n\n{}\n", peers::ABOUT)?;
    table(
        out,
        &["", "drain, messages/s", "wake-up p50, ms", "finished messages are"],
        peers::PEERS
            .iter()
            .map(|(name, drain, wake, done)| [name, drain, wake, done].map(|cell| (*cell).to_owned()).to_vec()),
    )
}

fn one(out: &mut String, results: &Results, run: &Run, scenario: &Scenario) -> fmt::Result {
    writeln!(out, "### {}\n", heading(scenario, run))?;
    if let Some(plot) = plots::of(scenario, &run.server.version) {
        writeln!(out, "![{}]({}/{plot})\n", scenario.scenario, results.plots)?;
    }
    table(
        out,
        &["case", "figure", "floor", "unit", "ratio", "promised", "range", "range of the floor", "floor or comparison"],
        scenario.cases.iter().map(|case| {
            vec![
                case.case.clone(),
                number(case.figure),
                number(case.floor),
                case.unit.to_owned(),
                ratio(case.ratio),
                target(case),
                span(case.figure_range),
                span(case.floor_range),
                case.floor_is.clone(),
            ]
        }),
    )?;
    let besides: Vec<&Case> = scenario.cases.iter().filter(|case| !case.also.is_empty()).collect();
    if !besides.is_empty() {
        writeln!(out, "<details><summary>Also seen, and the settings</summary>\n")?;
        for case in besides {
            let also: Vec<String> =
                case.also.iter().map(|(name, value)| format!("{name} {}", number(*value))).collect();
            writeln!(out, "- {}: {}", case.case, also.join(", "))?;
        }
        writeln!(out)?;
        for (name, value) in &scenario.settings {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            writeln!(out, "- `{name}`: {value}")?;
        }
        writeln!(out, "\n</details>\n")?;
    }
    Ok(())
}

fn heading(scenario: &Scenario, run: &Run) -> String {
    format!("{}, PostgreSQL {}", scenario.scenario, run.server.version)
}

/// As GitHub makes anchors of headings.
fn anchor(scenario: &Scenario, run: &Run) -> String {
    let kept = |c: char| c.is_alphanumeric() || c == '-' || c == ' ';
    heading(scenario, run).to_lowercase().chars().filter(|&c| kept(c)).collect::<String>().replace(' ', "-")
}

fn server(run: &Run) -> String {
    let settings: Vec<String> = run.server.settings.iter().map(|(name, value)| format!("{name}={value}")).collect();
    format!("PostgreSQL {}, {} ({:.1} minutes)", run.server.version, settings.join(", "), run.minutes)
}

fn table(out: &mut String, headings: &[&str], rows: impl Iterator<Item = Vec<String>>) -> fmt::Result {
    writeln!(out, "| {} |\n|{}", headings.join(" | "), "---|".repeat(headings.len()))?;
    for row in rows {
        let cells: Vec<String> = row.iter().map(|cell| cell.replace('|', "\\|")).collect();
        writeln!(out, "| {} |", cells.join(" | "))?;
    }
    writeln!(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::{
        place::ServerFacts,
        report::{machine::Machine, plots},
    };

    fn results() -> Results {
        let cases = vec![
            Case::new("100 B | floor with 2 connections", "messages/s", &[80.0], &[100.0])
                .against("claim + complete")
                .target(0.9)
                .also("payload_bytes", 100.0),
            Case::new("1 KB, floor with 1 connection", "messages/s", &[95.0], &[100.0]).target(0.9),
        ];
        let scenario = Scenario::new("drain", serde_json::json!({ "rounds": 3 }), cases).expect("there are cases");
        let server = ServerFacts {
            version: "15.18".to_owned(),
            private: true,
            settings: vec![("fsync".to_owned(), "on".to_owned())],
        };
        Results {
            date: "2026-11-24 07:00 UTC".to_owned(),
            command: "doorbell bench report".to_owned(),
            commit: "abc1234".to_owned(),
            machine: Machine { cpu: "a processor".to_owned(), cores: 2, ..Machine::default() },
            runs: vec![Run { server, scenarios: vec![scenario], minutes: 1.5 }],
            notes: Some("The settle is what it waits for.".to_owned()),
            plots: "docs/benchmarks".to_owned(),
        }
    }

    #[test]
    fn a_missed_promise_is_printed_as_missed() {
        let text = render(&results());
        assert!(text.contains("| 80.0 | 100 | messages/s | 0.80 | ≥ 0.90 missed |"), "{text}");
        assert!(text.contains("| 95.0 | 100 | messages/s | 0.95 | ≥ 0.90 reached |"), "{text}");
    }

    #[test]
    fn the_report_says_where_and_what_was_measured() {
        let text = render(&results());
        for part in [
            "commit abc1234",
            "a processor, 2 cores",
            "fsync=on",
            "- `rounds`: 3",
            "payload_bytes 100",
            "The settle is what",
        ] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
    }

    #[test]
    fn cells_do_not_break_tables_and_links_find_their_headings() {
        let text = render(&results());
        assert!(text.contains("100 B \\| floor"), "{text}");
        assert!(text.contains("(#drain-postgresql-1518)") && text.contains("### drain, PostgreSQL 15.18"), "{text}");
    }

    #[test]
    fn every_plot_that_is_linked_is_drawn() {
        let results = results();
        let text = render(&results);
        for (name, svg) in plots::all(&results.runs) {
            assert!(text.contains(&format!("docs/benchmarks/{name}")), "{name}");
            assert!(svg.starts_with("<svg") && svg.contains("messages"), "{svg}");
        }
        assert_eq!(text.matches("](docs/benchmarks/").count(), plots::all(&results.runs).len());
    }
}
