//! What all requests share.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{extract::FromRequestParts, http::request::Parts};
use doorbell::{Broker, Result, operate::Operator};
use tokio::sync::Mutex;

use super::{
    access::Person,
    concealed::Concealed,
    examined::Examined,
    live::Live,
    looking::Looking,
    options::Options,
    page::{Frame, Refusal},
};

/// Connections that pages are read over, all viewers together.
const READERS_MAX: usize = 3;
/// How long a page waits for a connection, and for each answer.
const LOOK_WITHIN: Duration = Duration::from_secs(10);

/// What all requests share.
pub(super) struct App {
    broker: Broker,
    /// Over connections that change nothing.
    reader: Operator,
    options: Options,
    concealed: Concealed,
    eyes: Arc<Looking>,
    live: Live,
    /// What the doctor found last; held while one examines.
    pub(super) examined: Mutex<Option<Examined>>,
}

impl App {
    pub(super) fn new(broker: &Broker, options: Options) -> Result<Self> {
        options.check()?;
        let reader = broker.reading(READERS_MAX, LOOK_WITHIN)?;
        Ok(Self {
            eyes: Arc::new(Looking::new(reader.clone())),
            reader,
            broker: broker.clone(),
            concealed: Concealed::read(&options.redact)?,
            options,
            live: Live::new(),
            examined: Mutex::default(),
        })
    }

    pub(super) fn options(&self) -> &Options {
        &self.options
    }

    /// For looking.
    pub(super) fn reader(&self) -> &Operator {
        &self.reader
    }

    /// A look at everything.
    pub(super) fn eyes(&self) -> &Arc<Looking> {
        &self.eyes
    }

    /// What changes, for whoever watches.
    pub(super) fn live(&self) -> &Live {
        &self.live
    }

    /// For examining, which publishes and takes back.
    pub(super) fn broker(&self) -> &Broker {
        &self.broker
    }

    /// What of payloads is not shown.
    pub(super) fn concealed(&self) -> &Concealed {
        &self.concealed
    }
}

/// One request of somebody who was let in.
pub(super) struct Visit {
    pub(super) app: Arc<App>,
    pub(super) person: Person,
    begun: Instant,
}

impl Visit {
    /// What is around a page, once all of it was read.
    pub(super) fn frame(&self, title: impl Into<String>, here: &'static str) -> Frame {
        let settings = self.app.broker.settings().to_string();
        let database = settings.split_once('@').map_or(settings.as_str(), |(_, place)| place).to_owned();
        Frame {
            title: title.into(),
            here,
            database,
            person: self.person.name.clone(),
            rights: Some(self.person.rights),
            took: format!("{} ms", self.begun.elapsed().as_millis()),
        }
    }

    /// For acting, with the person's name for the audit log.
    pub(super) fn acting(&self) -> Result<Operator> {
        self.app.broker.acting(&format!("doorbell ui ({})", self.person.name))
    }

    /// Whether they may look for messages by their payloads: who may not see a value may not guess it either.
    pub(super) fn may_search_payloads(&self) -> bool {
        self.person.rights.payload && self.app.concealed.is_nothing()
    }
}

impl FromRequestParts<Arc<App>> for Visit {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Refusal> {
        let person = parts.extensions.get::<Person>().cloned().ok_or_else(Refusal::stranger)?;
        Ok(Self { app: app.clone(), person, begun: Instant::now() })
    }
}
