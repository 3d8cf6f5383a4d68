//! Schedules: what comes when.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use askama::Template;
use axum::{Form, http::StatusCode, response::Response};
use doorbell::{operate::ScheduleRow, written::duration};
use serde::Deserialize;

use crate::{
    app::Visit,
    page::{Frame, Refusal, go_to, page},
    words::{self, Time, time},
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
