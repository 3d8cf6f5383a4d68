//! The plots, as SVG.

use doorbell_bench::measure::{Case, Scenario, number};
use plotters::{
    coord::{combinators::IntoLogRange, ranged1d::Ranged},
    prelude::*,
};

use super::results::Run;

const SIZE: (u32, u32) = (860, 420);
const COLORS: [RGBColor; 5] = [
    RGBColor(31, 90, 160),
    RGBColor(205, 92, 30),
    RGBColor(60, 140, 70),
    RGBColor(140, 60, 140),
    RGBColor(120, 120, 120),
];

type Points = Vec<(f64, f64)>;
type Drawn = Result<(), DrawingAreaErrorKind<std::io::Error>>;

/// What a plot shows.
enum Plot {
    Lines {
        x: &'static str,
        y: &'static str,
        log_x: bool,
        series: Vec<(String, Points)>,
    },
    /// Groups of bars, one bar per series.
    Bars {
        y: &'static str,
        groups: Vec<String>,
        series: Vec<(String, Vec<f64>)>,
    },
}

/// File name and content of each.
pub(super) fn all(runs: &[Run]) -> Vec<(String, String)> {
    let scenarios = runs.iter().flat_map(|run| run.scenarios.iter().map(move |scenario| (run, scenario)));
    scenarios
        .filter_map(|(run, scenario)| {
            let name = of(scenario, &run.server.version)?;
            let title = format!("{}, PostgreSQL {}", title(scenario), run.server.version);
            Some((name, draw(&title, &plot(scenario)?)))
        })
        .collect()
}

/// The file of a scenario's plot, if there is one.
pub(super) fn of(scenario: &Scenario, version: &str) -> Option<String> {
    let major = version.split('.').next().unwrap_or(version);
    plot(scenario).map(|_| format!("{}-{major}.svg", scenario.scenario))
}

fn title(scenario: &Scenario) -> &'static str {
    match scenario.scenario {
        "publish" => "Publishing, one commit a message, consumers busy",
        "drain" => "Draining a backlog",
        "held-drain" => "Draining what is held",
        "tx-drain" => "Draining in transactions",
        "latency" | "wake" => "From the publisher's acknowledgement to the handler",
        "backlog" => "A claim of 100, by the number of pending messages",
        "pinned" => "Draining with and without a pinned horizon",
        "fleet" => "Consumer processes on one target",
        _ => "WAL per message",
    }
}

fn plot(scenario: &Scenario) -> Option<Plot> {
    let cases = &scenario.cases;
    let plot = match scenario.scenario {
        "publish" => {
            let busy = |what: &str| {
                cases
                    .iter()
                    .filter(|case| case.case.starts_with(what) && case.case.ends_with("busy"))
                    .collect::<Vec<_>>()
            };
            let line = |cases: &[&Case], of: fn(&Case) -> f64| points(cases.iter().copied(), "producers", of);
            let (ours, plain) = (busy("publish()"), busy("plain INSERT"));
            Plot::Lines {
                x: "producers",
                y: "messages a second",
                log_x: true,
                series: vec![
                    ("publish()".to_owned(), line(&ours, |case| case.figure)),
                    ("INSERT".to_owned(), line(&plain, |case| case.figure)),
                    ("INSERT without triggers".to_owned(), line(&ours, |case| case.floor)),
                ],
            }
        }
        "drain" | "held-drain" | "tx-drain" => {
            let of =
                |connections: &str| cases.iter().filter(|case| case.case.contains(connections)).collect::<Vec<_>>();
            let (one, two) = (of("with 1"), of("with 2"));
            let ours = if one.is_empty() { &two } else { &one };
            Plot::Bars {
                y: "messages a second",
                groups: ours.iter().map(|case| case.case.split(',').next().unwrap_or_default().to_owned()).collect(),
                series: [
                    ("ours".to_owned(), ours.iter().map(|case| case.figure).collect::<Vec<_>>()),
                    ("floor, 1 connection".to_owned(), one.iter().map(|case| case.floor).collect()),
                    ("floor, 2 connections".to_owned(), two.iter().map(|case| case.floor).collect()),
                ]
                .into_iter()
                .filter(|(_, values)| !values.is_empty())
                .collect(),
            }
        }
        "latency" | "wake" => {
            let curves = cases.iter().flat_map(|case| {
                let name = |what: &str| match what {
                    "wake_ms" => Some("idle".to_owned()),
                    "acknowledged_ms" => Some(case.case.clone()),
                    _ => None,
                };
                case.series.iter().filter_map(move |(what, samples)| Some((name(what)?, distribution(samples))))
            });
            Plot::Lines { x: "ms", y: "share of messages", log_x: true, series: curves.collect() }
        }
        "backlog" => {
            let pending = cases.iter().filter(|case| case.unit == "buffers" && !case.case.contains("beside"));
            let depth =
                |case: &Case| case.case.split(' ').next().and_then(|text| text.replace(',', "").parse::<f64>().ok());
            let shallow = cases.first().map(|case| (1000.0, case.floor));
            let buffers = shallow.into_iter().chain(pending.filter_map(|case| Some((depth(case)?, case.figure))));
            Plot::Lines {
                x: "pending messages",
                y: "buffers per claim",
                log_x: true,
                series: vec![("buffers".to_owned(), buffers.collect())],
            }
        }
        "pinned" => {
            let case = cases.iter().find(|case| case.series.contains_key("pinned_rates"))?;
            let tenth = case.also.get("tenth_messages").copied().unwrap_or(1.0);
            let line = |name: &str| {
                let rates = case.series.get(name).into_iter().flatten();
                rates.enumerate().map(|(at, rate)| ((at + 1) as f64 * tenth, *rate)).collect()
            };
            Plot::Lines {
                x: "messages drained",
                y: "messages a second",
                log_x: false,
                series: vec![
                    ("unpinned".to_owned(), line("unpinned_rates")),
                    ("pinned".to_owned(), line("pinned_rates")),
                ],
            }
        }
        "fleet" => {
            let blocks = cases.iter().filter(|case| case.unit == "blocks");
            Plot::Lines {
                x: "processes",
                y: "blocks per message",
                log_x: true,
                series: vec![("blocks".to_owned(), points(blocks, "processes", |case| case.figure))],
            }
        }
        "schema" => Plot::Bars {
            y: "bytes",
            groups: cases.iter().map(|case| case.case.replace(", audit", "")).collect(),
            series: [("publish", "publish_bytes"), ("claim and complete", "claim_and_complete_bytes")]
                .map(|(name, key)| {
                    (name.to_owned(), cases.iter().map(|case| case.also.get(key).copied().unwrap_or(0.0)).collect())
                })
                .to_vec(),
        },
        _ => return None,
    };
    Some(plot)
}

fn points<'a>(cases: impl Iterator<Item = &'a Case>, x: &str, y: fn(&Case) -> f64) -> Points {
    cases.filter_map(|case| Some((*case.also.get(x)?, y(case)))).collect()
}

/// The share of samples up to each value. What came before the acknowledgement stands at the left end.
fn distribution(samples: &[f64]) -> Points {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let count = sorted.len() as f64;
    sorted.iter().enumerate().map(|(at, value)| (value.max(0.01), (at + 1) as f64 / count)).collect()
}

fn draw(title: &str, plot: &Plot) -> String {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        // Drawing into a string cannot fail but for an empty range, which leaves an empty plot.
        let _ = area.fill(&WHITE);
        let _ = match plot {
            Plot::Lines { x, y, log_x, series } => lines(&area, title, (x, y), *log_x, series),
            Plot::Bars { y, groups, series } => bars(&area, title, y, groups, series),
        };
        let _ = area.present();
    }
    svg
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

fn lines(area: &Area<'_>, title: &str, labels: (&str, &str), log_x: bool, series: &[(String, Points)]) -> Drawn {
    let all = || {
        series
            .iter()
            .flat_map(|(_, points)| points.iter().copied())
            .filter(|point| point.0.is_finite() && point.1.is_finite())
    };
    let least = all().map(|point| point.0).fold(f64::INFINITY, f64::min);
    let greatest = all().map(|point| point.0).fold(f64::NEG_INFINITY, f64::max);
    if least.is_infinite() {
        return Ok(());
    }
    let top = all().map(|point| point.1).fold(0.0, f64::max) * 1.05;
    let mut builder = ChartBuilder::on(area);
    builder.caption(title, ("sans-serif", 20)).margin(14).margin_right(40).x_label_area_size(42).y_label_area_size(84);
    let greatest = if greatest > least { greatest } else { least + 1.0 };
    if log_x {
        finish(builder.build_cartesian_2d((least..greatest).log_scale(), 0.0..top)?, labels, series)
    } else {
        finish(builder.build_cartesian_2d(0.0..greatest, 0.0..top)?, labels, series)
    }
}

fn finish<'a, 'b: 'a, X>(
    mut chart: ChartContext<'a, SVGBackend<'b>, Cartesian2d<X, plotters::coord::types::RangedCoordf64>>,
    (x, y): (&str, &str),
    series: &[(String, Points)],
) -> Drawn
where
    X: Ranged<ValueType = f64> + plotters::coord::ranged1d::ValueFormatter<f64>,
{
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .x_desc(x)
        .y_desc(y)
        .x_label_formatter(&|value| mark(*value))
        .y_label_formatter(&|value| mark(*value))
        .draw()?;
    for ((name, points), color) in series.iter().zip(COLORS.iter().cycle()) {
        let color = *color;
        let finite = points.iter().copied().filter(|point| point.1.is_finite());
        chart
            .draw_series(LineSeries::new(finite.clone(), color.stroke_width(2)))?
            .label(name)
            .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 18, y)], color.stroke_width(2)));
        if points.len() <= 12 {
            chart.draw_series(finite.map(|point| Circle::new(point, 4, color.filled())))?;
        }
    }
    legend(&mut chart, SeriesLabelPosition::LowerRight)
}

/// A value on an axis, without digits that say nothing.
fn mark(value: f64) -> String {
    let text = number(value);
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

fn bars(area: &Area<'_>, title: &str, y: &str, groups: &[String], series: &[(String, Vec<f64>)]) -> Drawn {
    let top =
        series.iter().flat_map(|(_, values)| values).copied().filter(|value| value.is_finite()).fold(0.0, f64::max)
            * 1.4;
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 20))
        .margin(14)
        .margin_right(40)
        .x_label_area_size(42)
        .y_label_area_size(84)
        .build_cartesian_2d(0.0..groups.len() as f64, 0.0..top.max(1.0))?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(WHITE)
        .y_desc(y)
        .x_labels(0)
        .y_label_formatter(&|value| mark(*value))
        .draw()?;
    let width = 0.8 / series.len() as f64;
    for (nth, ((name, values), color)) in series.iter().zip(COLORS.iter().cycle()).enumerate() {
        let color = *color;
        let bar = |(at, value): (usize, &f64)| {
            let left = at as f64 + 0.1 + nth as f64 * width;
            Rectangle::new([(left, 0.0), (left + width * 0.92, *value)], color.filled())
        };
        chart
            .draw_series(values.iter().enumerate().filter(|(_, value)| value.is_finite()).map(bar))?
            .label(name)
            .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 14, y + 5)], color.filled()));
    }
    let style = TextStyle::from(("sans-serif", 13)).pos(plotters::style::text_anchor::Pos::new(
        plotters::style::text_anchor::HPos::Center,
        plotters::style::text_anchor::VPos::Top,
    ));
    for (at, group) in groups.iter().enumerate() {
        let (x, y) = chart.backend_coord(&(at as f64 + 0.5, 0.0));
        area.draw(&Text::new(group.clone(), (x, y + 8), style.clone()))?;
    }
    // There is room for it above the bars.
    legend(&mut chart, SeriesLabelPosition::UpperRight)
}

fn legend<'a, 'b: 'a, X, Y>(
    chart: &mut ChartContext<'a, SVGBackend<'b>, Cartesian2d<X, Y>>,
    position: SeriesLabelPosition,
) -> Drawn
where
    X: Ranged<ValueType = f64>,
    Y: Ranged<ValueType = f64>,
{
    chart
        .configure_series_labels()
        .position(position)
        .background_style(WHITE.mix(0.85))
        .border_style(BLACK.mix(0.3))
        .draw()
}
