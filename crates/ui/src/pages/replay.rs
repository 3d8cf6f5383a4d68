//! What was handled, once more: first how much it is, then part by part.

use askama::Template;
use axum::{Form, extract::Query, http::StatusCode, response::Response};
use doorbell::{
    MessageId,
    operate::{Replay, ReplayPart},
    written::{
        shell::quoted,
        timestamp::{parse, rfc3339},
    },
};
use serde::Deserialize;

use crate::{
    app::Visit,
    lines::TargetLine,
    page::{Frame, Refusal, page},
    words::{self, given, lines},
};

/// Messages that are walked over to count, and that a request walks over to copy, before somebody says to go on.
const COUNTED_MAX: u32 = 100_000;
const COPIED_MAX: u32 = 10_000;

/// What is to be replayed; without a target nothing yet.
#[derive(Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Wanted {
    target: String,
    to: String,
    since: String,
    until: String,
    types: String,
    sources: String,
    /// Where it goes on.
    after: MessageId,
    /// How many were replayed before.
    so_far: usize,
}

impl Wanted {
    fn replay(&self, dry_run: bool) -> Result<Replay, Refusal> {
        let moment = |text: &str| given(text).map(parse).transpose().map_err(Refusal::wrong);
        Ok(Replay {
            target: given(&self.target).ok_or_else(|| Refusal::wrong("of which target?"))?.to_owned(),
            to: given(&self.to).map(str::to_owned),
            since: moment(&self.since)?,
            until: moment(&self.until)?,
            types: lines(&self.types),
            sources: lines(&self.sources),
            dry_run,
        })
    }

    /// What a part was about, with its times as they were then.
    fn at(self, part: &ReplayPart) -> Self {
        Self { since: part.since.map(rfc3339).unwrap_or_default(), until: rfc3339(part.until), ..self }
    }

    /// As fields of a form that nobody sees.
    fn hidden(&self) -> [(&'static str, &str); 6] {
        let Self { target, to, since, until, types, sources, .. } = self;
        [("target", target), ("to", to), ("since", since), ("until", until), ("types", types), ("sources", sources)]
    }

    fn command(&self) -> String {
        let mut command = format!("doorbell replay {}", quoted(&self.target));
        for (name, value) in [("to", &self.to), ("since", &self.since), ("until", &self.until)] {
            command += &given(value).map(|value| format!(" --{name} {}", quoted(value))).unwrap_or_default();
        }
        for (name, values) in [("type", &self.types), ("source", &self.sources)] {
            command += &lines(values).iter().map(|value| format!(" --{name} {}", quoted(value))).collect::<String>();
        }
        command
    }
}

#[derive(Template)]
#[template(path = "replay.html")]
struct ReplayPage {
    frame: Frame,
    wanted: Wanted,
    shown: Option<Shown>,
    act: bool,
}

/// What would be replayed.
struct Shown {
    count: String,
    some: bool,
    /// There may be more.
    more: bool,
    taker: Option<TargetLine>,
    /// The same with its times as they were then.
    wanted: Wanted,
    command: String,
}

pub(crate) async fn preview(visit: Visit, Query(wanted): Query<Wanted>) -> Result<Response, Refusal> {
    let act = visit.person.rights.act;
    if given(&wanted.target).is_none() {
        let frame = visit.frame("Replay", "Topics");
        return Ok(page(StatusCode::OK, &ReplayPage { frame, wanted, shown: None, act }));
    }
    let reader = visit.app.reader();
    let part = reader.replay_part(&wanted.replay(true)?, 0, Some(COUNTED_MAX)).await?;
    let taker = given(&wanted.to).unwrap_or(&wanted.target);
    let taker = reader.target_state(taker).await?;
    let shown = Shown {
        count: words::count(part.copied as i64),
        some: part.copied > 0 || part.next.is_some(),
        more: part.next.is_some(),
        taker: taker.as_ref().map(TargetLine::from),
        command: wanted.command(),
        wanted: wanted.clone().at(&part),
    };
    let frame = visit.frame("Replay", "Topics");
    Ok(page(StatusCode::OK, &ReplayPage { frame, wanted, shown: Some(shown), act }))
}

#[derive(Template)]
#[template(path = "replayed.html")]
struct ReplayedPage {
    frame: Frame,
    copied: usize,
    wanted: Wanted,
    over: bool,
}

/// The next part of it.
pub(crate) async fn perform(visit: Visit, Form(wanted): Form<Wanted>) -> Result<Response, Refusal> {
    let operator = visit.acting()?;
    let part = operator.replay_part(&wanted.replay(false)?, wanted.after, Some(COPIED_MAX)).await?;
    let copied = wanted.so_far + part.copied;
    tracing::info!(person = visit.person.name, target = wanted.target, copied = part.copied, "replayed messages");
    let template = ReplayedPage {
        frame: visit.frame(format!("{copied} replayed"), "Topics"),
        copied,
        over: part.next.is_none(),
        wanted: Wanted { after: part.next.unwrap_or_default(), so_far: copied, ..wanted.at(&part) },
    };
    Ok(page(StatusCode::OK, &template))
}
