//! One target: what keeps it, what happened to it, what is next.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use askama::Template;
use axum::{extract::Query, http::StatusCode, response::Response};
use doorbell::{
    operate::{ErrorRate, Filter, Status, Traffic},
    written::duration,
};
use serde::Deserialize;
use serde_json::Value;

use crate::{
    app::Visit,
    lines::MessageLine,
    page::{Frame, Refusal, page},
    standing::Standing,
    words,
};

/// How far back, by the word in the address.
const SPANS: [(&str, Duration); 3] =
    [("1h", Duration::from_secs(3600)), ("24h", Duration::from_secs(86_400)), ("2d", Duration::from_secs(172_800))];
/// Messages that are shown of those that are next.
const NEXT: u32 = 10;
/// Blocked keys are counted so far.
const BLOCKED_MAX: u32 = 1000;
/// What happened to messages, in the order of their lives.
const ACTIONS: [&str; 6] = ["published", "completed", "errored", "failed", "rescued", "redriven"];
const BAR_HEIGHT: i64 = 60;

#[derive(Deserialize)]
pub(crate) struct Wanted {
    #[serde(default)]
    name: String,
    #[serde(default)]
    span: String,
}

#[derive(Template)]
#[template(path = "target.html")]
struct TargetPage {
    frame: Frame,
    standing: Standing,
    /// How many ordering keys are blocked.
    blocked: Option<String>,
    span: &'static str,
    chart: Chart,
    happened: Vec<(&'static str, String)>,
    found: Vec<(&'static str, String)>,
    rates: Vec<Rate>,
    settings: Vec<Setting>,
    /// The key of its breaker.
    breaker: String,
    next: Vec<MessageLine>,
    processes: Vec<(String, String, String)>,
    act: bool,
}

impl TargetPage {
    fn spans(&self) -> impl Iterator<Item = (&'static str, bool)> {
        SPANS.iter().map(|(word, _)| (*word, *word == self.span))
    }
}

/// How messages of one source fared.
struct Rate {
    source: String,
    failed: String,
    published: String,
    percent: String,
    any: bool,
}

struct Setting {
    name: String,
    value: String,
    own: bool,
}

/// Bars of what was completed, and what failed on top of them.
struct Chart {
    bars: Vec<Bar>,
    width: usize,
    most: String,
    step: String,
}

struct Bar {
    x: usize,
    completed: i64,
    failed: i64,
}

pub(crate) async fn show(visit: Visit, Query(wanted): Query<Wanted>) -> Result<Response, Refusal> {
    let name = wanted.name.as_str();
    let (span, length) = SPANS.iter().find(|(word, _)| *word == wanted.span).copied().unwrap_or(SPANS[0]);
    let reader = visit.app.reader();
    let pending = Filter { status: Some(Status::Pending), target: Some(name.to_owned()), ..Filter::default() };
    let (state, settings, traffic, next, processes, blocked, rates) = tokio::try_join!(
        reader.target_state(name),
        reader.target(name),
        reader.traffic(Some(name), length),
        reader.list(&pending, None, NEXT, None),
        reader.processes(),
        reader.blocked_keys(Some(name), BLOCKED_MAX),
        reader.error_rates(name),
    )?;
    let (Some(state), Some(settings)) = (state, settings) else {
        return Err(Refusal::absent(format!("no message, setting or process names the target {name:?}")));
    };
    let sum = |action: &str| -> i64 { traffic.actions.values().filter_map(|step| step.get(action)).sum() };
    let shares = [("by bell", sum("found_bell")), ("while busy", sum("found_drain")), ("by sweep", sum("found_sweep"))];
    let all: i64 = shares.iter().map(|(_, count)| count).sum();
    let percent = |count: i64| format!("{:.1} %", count as f64 * 100.0 / all as f64);
    let template = TargetPage {
        standing: Standing::from(&state),
        blocked: match blocked.len() {
            0 => None,
            1 => Some("1 ordering key is blocked".to_owned()),
            many => Some(format!("{} ordering keys are blocked", words::count(many as i64))),
        },
        span,
        chart: chart(&traffic),
        happened: ACTIONS.iter().map(|action| (*action, words::count(sum(action)))).collect(),
        found: if all > 0 { shares.map(|(how, count)| (how, percent(count))).into() } else { Vec::new() },
        rates: rates.into_iter().map(Rate::from).collect(),
        breaker: breaker(name, &read(&settings)),
        settings: read(&settings),
        next: next.messages.iter().map(MessageLine::from).collect(),
        processes: processes
            .iter()
            .filter(|process| process.alive && process.target_names().iter().any(|target| target == name))
            .map(|process| (process.owner.clone(), process.host.clone(), words::count(process.processing)))
            .collect(),
        act: visit.person.rights.act,
        frame: visit.frame(name, "Targets"),
    };
    Ok(page(StatusCode::OK, &template))
}

impl From<ErrorRate> for Rate {
    fn from(rate: ErrorRate) -> Self {
        Self {
            failed: words::count(rate.failed),
            published: words::count(rate.published),
            percent: format!("{:.1} %", rate.failed as f64 * 100.0 / rate.published.max(1) as f64),
            any: rate.failed > 0,
            source: rate.source,
        }
    }
}

/// From the first step in which something happened to the last; what is between and empty has a bar of no height.
fn chart(traffic: &Traffic) -> Chart {
    let counts: BTreeMap<SystemTime, (i64, i64)> = traffic
        .actions
        .iter()
        .map(|(at, actions)| {
            let of = |action: &str| actions.get(action).copied().unwrap_or_default();
            (*at, (of("completed"), of("errored") + of("failed")))
        })
        .collect();
    let most = counts.values().map(|(completed, failed)| completed + failed).max().unwrap_or_default();
    let first = counts.keys().next().copied();
    let at = |time: &SystemTime| {
        let since = first.and_then(|first| time.duration_since(first).ok()).unwrap_or_default();
        (since.as_secs() / traffic.step.as_secs().max(1)) as usize
    };
    let height = |count: i64| if count > 0 { (count * BAR_HEIGHT / most.max(1)).max(1) } else { 0 };
    let bars: Vec<Bar> = counts
        .iter()
        .map(|(time, (completed, failed))| Bar { x: at(time), completed: height(*completed), failed: height(*failed) })
        .collect();
    let width = bars.last().map_or(0, |bar| bar.x + 1);
    Chart { bars, width, most: words::count(most), step: duration::coarse(traffic.step) }
}

/// Its own, unless its settings name one that it shares.
fn breaker(target: &str, settings: &[Setting]) -> String {
    let shared = settings.iter().find(|setting| setting.name == "breaker_key" && setting.own);
    shared.map_or_else(|| target.to_owned(), |setting| setting.value.clone())
}

/// The settings out of what the database says, which is ours.
fn read(json: &str) -> Vec<Setting> {
    let told: Value = serde_json::from_str(json).unwrap_or_default();
    let own: Vec<&str> = told["own"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let settings = told["settings"].as_object().into_iter().flatten();
    settings
        .map(|(name, value)| Setting {
            name: name.clone(),
            value: match value {
                Value::Null => words::NOTHING.to_owned(),
                Value::String(text) => text.clone(),
                other => other.to_string(),
            },
            own: own.contains(&name.as_str()),
        })
        .collect()
}
