//! How `top` looks.

use std::collections::VecDeque;

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style},
    text::{Line, Span},
    widgets::{Block, Paragraph, Row, Sparkline, Table},
};

use super::{history::History, report, sample::Sample};
use crate::{
    duration, output,
    processes::{accepted, beat_age},
};

const PROCESSES: [&str; 5] = ["CONSUMER", "PROCESSING", "LAST BEAT", "STATE", "TARGETS"];

/// Draws all of it, whatever the size.
pub(super) fn draw(frame: &mut Frame<'_>, history: &History) {
    let Some(sample) = &history.last else {
        return frame.render_widget(Paragraph::new("measuring …"), frame.area());
    };
    // Borders, headings, and a line each.
    let processes = 3 + u16::try_from(sample.processes.len()).unwrap_or(u16::MAX - 3);
    let [head, lines, targets, processes] = Layout::vertical([
        Constraint::Length(2),
        Constraint::Length(6),
        Constraint::Min(4),
        Constraint::Max(processes.min(frame.area().height / 3).max(4)),
    ])
    .areas(frame.area());
    frame.render_widget(Paragraph::new(head_lines(sample, history.trouble.as_deref())), head);
    let [left, right] = Layout::horizontal([Constraint::Fill(1), Constraint::Fill(1)]).areas(lines);
    sparkline(frame, left, "completed/s", &history.completed, Color::Green);
    let title = format!("{} (p50 below)", report::latency(sample));
    sparkline(frame, right, &title, &history.latency, Color::Cyan);
    frame.render_widget(target_table(sample, targets.width), targets);
    frame.render_widget(process_table(sample), processes);
}

fn head_lines(sample: &Sample, trouble: Option<&str>) -> Vec<Line<'static>> {
    let total = sample.total();
    let rate = |count| format!("{:.0}/s", sample.per_second(count));
    let sum = |of: fn(&doorbell::operate::TargetStats) -> i64| -> i64 {
        sample.targets.iter().map(|target| of(&target.stats)).sum()
    };
    let oldest = sample.targets.iter().filter_map(|target| target.stats.oldest_age()).max();
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let first = match trouble {
        Some(trouble) => Line::styled(
            format!("the database does not answer, this is old: {}", output::printable(trouble)),
            Style::new().fg(Color::Red),
        ),
        None => Line::from(vec![
            Span::styled("doorbell top", bold),
            Span::raw(format!(
                "   published {}  completed {}  errored {}  failed {}",
                rate(total.published),
                rate(total.completed),
                rate(total.errored),
                rate(total.failed)
            )),
            Span::styled("   q quits", Style::new().fg(Color::DarkGray)),
        ]),
    };
    let second = Line::raw(format!(
        "pending {}  scheduled {}  processing {}  failed {}  oldest pending {}",
        sum(|stats| stats.pending),
        sum(|stats| stats.scheduled),
        sum(|stats| stats.processing),
        sum(|stats| stats.failed),
        oldest.map_or_else(|| "-".to_owned(), duration::coarse)
    ));
    vec![first, second]
}

/// The newest value is at the right.
fn sparkline(frame: &mut Frame<'_>, area: Rect, title: &str, line: &VecDeque<u64>, color: Color) {
    let width = usize::from(area.width.saturating_sub(2));
    let data: Vec<u64> = line.iter().skip(line.len().saturating_sub(width)).copied().collect();
    let block = Block::bordered().title(title.to_owned()).border_style(Style::new().fg(Color::DarkGray));
    frame.render_widget(Sparkline::default().block(block).data(data).style(Style::new().fg(color)), area);
}

/// A column of the table of targets: its place in the report's rows, its heading, its width, and whether a narrow terminal
/// has it.
const COLUMNS: [(usize, &str, u16, bool); 10] = [
    (1, "PUBL/S", 6, true),
    (2, "COMPL/S", 7, true),
    (3, "RETR/S", 6, false),
    (4, "FAIL/S", 6, true),
    (5, "PENDING", 8, true),
    (6, "PROCESSING", 10, true),
    (7, "OLDEST", 6, true),
    (8, "PROCESSES", 9, false),
    (9, "WORKERS", 7, false),
    (10, "STATE", 0, true),
];

/// Narrower than this, the columns that matter least make room for the state.
const WIDE: u16 = 110;

fn target_table(sample: &Sample, width: u16) -> Table<'static> {
    let columns: Vec<_> = COLUMNS.iter().filter(|(.., narrow)| *narrow || width >= WIDE).collect();
    let mut rows: Vec<_> = report::target_rows(sample).into_iter().zip(&sample.targets).collect();
    // Trouble first, where it is seen however many targets there are.
    rows.sort_by_key(|(_, target)| target.closed_gates.is_empty() && !target.is_abandoned());
    let rows = rows.into_iter().map(|(mut cells, target)| {
        let mut style = Style::new();
        if let Some((code, sentence)) = target.closed_gates.first() {
            cells[10] = format!("{}: {sentence}", code.replace('_', " ").to_uppercase());
            style = style.fg(Color::Yellow);
        } else if target.is_abandoned() {
            style = style.fg(Color::Yellow);
        }
        let shown = [&cells[0]].into_iter().chain(columns.iter().map(|(at, ..)| &cells[*at]));
        Row::new(shown.map(|cell| output::printable(cell)).collect::<Vec<_>>()).style(style)
    });
    let longest = sample.targets.iter().map(|target| target.stats.target.chars().count()).max().unwrap_or_default();
    let name = u16::try_from(longest.clamp(6, 24)).unwrap_or(24);
    let widths = columns.iter().map(|(.., width, _)| match width {
        0 => Constraint::Min(12),
        width => Constraint::Max(*width),
    });
    let headings = ["TARGET"].into_iter().chain(columns.iter().map(|(_, heading, ..)| *heading));
    table(rows.collect(), [Constraint::Max(name)].into_iter().chain(widths).collect(), headings.collect(), "targets")
}

fn process_table(sample: &Sample) -> Table<'static> {
    let rows = sample.processes.iter().map(|process| {
        let (state, style) = match process.alive {
            true => ("alive", Style::new()),
            false => ("lost", Style::new().fg(Color::Red)),
        };
        let cells = [
            process.owner.clone(),
            process.processing.to_string(),
            beat_age(process),
            state.to_owned(),
            accepted(process),
        ];
        Row::new(cells.map(|cell| output::printable(&cell))).style(style)
    });
    let widths =
        vec![Constraint::Max(40), Constraint::Max(10), Constraint::Max(9), Constraint::Max(6), Constraint::Fill(1)];
    table(rows.collect(), widths, PROCESSES.to_vec(), "processes")
}

fn table(rows: Vec<Row<'static>>, widths: Vec<Constraint>, headings: Vec<&'static str>, title: &str) -> Table<'static> {
    let block = Block::bordered().title(title.to_owned()).border_style(Style::new().fg(Color::DarkGray));
    let header = Row::new(headings).style(Style::new().add_modifier(Modifier::BOLD));
    Table::new(rows, widths).header(header).block(block)
}
