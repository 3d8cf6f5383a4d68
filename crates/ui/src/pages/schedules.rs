//! Schedules: what comes when.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use askama::Template;
use axum::{Form, http::StatusCode, response::Response};
use doorbell::{
    Message,
    operate::{Schedule as Wanted, ScheduleRow, When},
    written::duration,
};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    app::Visit,
    page::{Frame, Refusal, go_to, page},
    words::{self, Time, given, time},
};

/// Ticks that are shown of each.
const TICKS: u32 = 3;

#[derive(Template)]
#[template(path = "schedules.html")]
struct SchedulesPage {
    frame: Frame,
    schedules: Vec<Schedule>,
    act: bool,
}

struct Schedule {
    name: String,
    target: String,
    record_type: String,
    when: String,
    next: Vec<Time>,
    last: Option<Time>,
    last_id: Option<i64>,
    fired: String,
    paused_by: Option<String>,
}

pub(crate) async fn show(visit: Visit) -> Result<Response, Refusal> {
    let reader = visit.app.reader();
    let (schedules, mut ticks) = tokio::try_join!(reader.schedules(), reader.next_ticks(TICKS))?;
    let schedules = schedules.into_iter().map(|row| Schedule::of(row, &mut ticks)).collect();
    let act = visit.person.rights.act;
    Ok(page(StatusCode::OK, &SchedulesPage { frame: visit.frame("Schedules", "Schedules"), schedules, act }))
}

#[derive(Deserialize)]
pub(crate) struct Wish {
    name: String,
    verb: String,
}

/// One verb of `doorbell schedule` on the one of that name.
pub(crate) async fn steer(visit: Visit, Form(form): Form<Wish>) -> Result<Response, Refusal> {
    let name = form.name.as_str();
    let operator = visit.acting()?;
    let changed = match form.verb.as_str() {
        "pause" => operator.pause_schedule(name, true).await?,
        "resume" => operator.pause_schedule(name, false).await?,
        "remove" => operator.unschedule(name).await?,
        "fire" => operator.fire_schedule(name).await.map(|_| true)?,
        other => return Err(Refusal::wrong(format!("schedules are not made to {other:?}"))),
    };
    if !changed {
        return Err(Refusal::changed(format!("nothing changed: {name:?} was so, or there is no such schedule")));
    }
    Ok(go_to("schedules"))
}

/// A schedule that somebody wishes for.
#[derive(Deserialize)]
pub(crate) struct New {
    name: String,
    target: String,
    #[serde(rename = "type")]
    record_type: String,
    #[serde(default)]
    data: String,
    #[serde(default)]
    cron: String,
    #[serde(default)]
    zone: String,
    #[serde(default)]
    every: String,
    #[serde(default)]
    skip_overlap: String,
}

/// Makes one, or changes the one of that name.
pub(crate) async fn add(visit: Visit, Form(form): Form<New>) -> Result<Response, Refusal> {
    let when = match (given(&form.cron), given(&form.every)) {
        (Some(cron), None) => {
            When::Cron { expression: cron.to_owned(), zone: given(&form.zone).unwrap_or("UTC").to_owned() }
        }
        (None, Some(every)) => When::Every(duration::parse(every).map_err(Refusal::wrong)?),
        _ => return Err(Refusal::wrong("when? Say it as cron, or every so long, and not both")),
    };
    let data = RawValue::from_string(given(&form.data).unwrap_or("{}").to_owned());
    let data = data.map_err(|error| Refusal::wrong(format!("the payload is no JSON: {error}")))?;
    let message = Message::from_raw(form.target, form.record_type, data);
    let wanted = Wanted { skip_overlap: !form.skip_overlap.is_empty(), ..Wanted::new(form.name, when, message) };
    visit.acting()?.schedule(&wanted).await?;
    Ok(go_to("schedules"))
}

impl Schedule {
    fn of(row: ScheduleRow, ticks: &mut BTreeMap<String, Vec<SystemTime>>) -> Self {
        let every = row.every_seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        let when = row.cron.map(|cron| format!("{cron} {}", row.zone));
        Self {
            next: ticks.remove(&row.name).unwrap_or_default().into_iter().map(time).collect(),
            when: when.or(every.map(|every| format!("every {}", duration::coarse(every)))).unwrap_or_default(),
            last: row.last_at.map(time),
            last_id: row.last_id,
            fired: words::count(row.fired),
            paused_by: row.paused_by,
            name: row.name,
            target: row.target,
            record_type: row.record_type,
        }
    }
}
