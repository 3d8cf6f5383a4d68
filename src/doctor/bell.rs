//! The bell, end to end: from an INSERT through the trigger to a listener that came the way consumers come.

use std::time::Duration;

use futures::StreamExt;
use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};
use tokio_postgres::{
    AsyncMessage, Client, Row,
    types::{ToSql, Type},
};
use tokio_util::task::AbortOnDropHandle;

use super::{finding::Finding, options::Options, session::Session};
use crate::{
    connection::Settings,
    error::{Error, ErrorKind, Result},
    schema::Schema,
};

const DIRECT: &str = "give consumers a direct connection, or one through a pooler in session mode; publishers may stay \
    behind it. Where consumers are meant to sweep: insert into integration.targets (target_app, bell) values ('…', 'off')";

const NO_BELL: &str = "look at the other findings: is a trigger missing or disabled, is integration.notify off, is \
    session_replication_role replica?";
const AS_OWNER: &str = "run doorbell doctor as the owner of the schema, too";

pub(super) async fn check(settings: &Settings, publisher: &mut Session, options: &Options) -> Result<Vec<Finding>> {
    let mut ear = Ear::open(settings, options.bell_within).await?;
    let findings = tried(&mut ear, publisher).await;
    ear.leave().await;
    findings
}

/// Notifications arrive; session locks lock others out; an INSERT rings. The first that is not so explains the rest.
async fn tried(ear: &mut Ear, publisher: &mut Session) -> Result<Vec<Finding>> {
    let backend = ear.backend().await?;
    if let Some(finding) = arrives(ear).await? {
        return Ok(vec![finding]);
    }
    if let Some(finding) = locks(ear, backend, publisher).await? {
        return Ok(vec![finding]);
    }
    rings(ear, publisher).await
}

/// What the listener of every process does all the time.
async fn arrives(ear: &mut Ear) -> Result<Option<Finding>> {
    let own = ear.own.clone();
    ear.say(&format!("listen {own}")).await?;
    ear.say(&format!("notify {own}")).await?;
    if ear.hears(&own).await {
        return Ok(None);
    }
    let evidence = format!(
        "a notification to itself did not come back within {} s; a pooler in transaction mode does this",
        ear.within.as_secs_f32()
    );
    let what = "notifications do not arrive over this connection: consumers sweep";
    Ok(Some(Finding::problem("bell", what).evidence(evidence).fix(ear.schema.sql(DIRECT))))
}

async fn locks(ear: &Ear, backend: i32, publisher: &mut Session) -> Result<Option<Finding>> {
    let barrier: Option<i64> = ear.row("select integration.park($1)", &ear.target).await?.try_get(0)?;
    if barrier.is_none() {
        let what = "an idle latch cannot be taken: publishers do not know that anybody waits";
        return Ok(Some(
            Finding::problem("bell", what)
                .evidence("another session holds the advisory locks of this class exclusively")
                .fix("select a.* from pg_locks l join pg_stat_activity a using (pid) where l.locktype = 'advisory'"),
        ));
    }
    let parked = publisher.call("select integration.somebody_is_parked($1)", &ear.target).await?;
    let parked: bool = parked.first().map_or(Ok(false), |row| row.try_get(0))?;
    let other: i32 = publisher.row("select pg_backend_pid()").await?.try_get(0)?;
    let again = ear.backend().await?;
    if parked && other != backend && again == backend {
        return Ok(None);
    }
    let evidence = format!(
        "backend of the listener: {backend}, then {again}; of the publisher: {other}; its latch is {}",
        if parked { "seen" } else { "not seen" }
    );
    let what = "a pooler is in the way: sessions are shared, so session locks lock nobody out";
    Ok(Some(Finding::problem("bell", what).evidence(evidence).fix(ear.schema.sql(DIRECT))))
}

async fn rings(ear: &mut Ear, publisher: &mut Session) -> Result<Vec<Finding>> {
    let refused = |error: &Error| error.sqlstate() == Some("42501");
    let channel: String = ear.row("select integration.channel($1)", &ear.target).await?.try_get(0)?;
    let rung = Instant::now();
    let mut called = publisher.call("select integration.probe_bell($1)", &ear.target).await;
    let by_trigger = !called.as_ref().is_err_and(refused);
    if !by_trigger {
        called = publisher.call("select integration.ring($1)", &ear.target).await;
    }
    if called.as_ref().is_err_and(refused) {
        let what = "notifications arrive; whether an INSERT rings was not tried: this role may not";
        return Ok(vec![Finding::note("bell", what).fix(AS_OWNER)]);
    }
    called?;
    let way = if by_trigger { "an INSERT and its trigger".into() } else { ear.schema.sql("integration.ring()") };
    if !ear.hears(&channel).await {
        let seconds = ear.within.as_secs_f32();
        let evidence = format!("{way} for a parked listener was committed, and nothing came within {seconds} s");
        let what = "an INSERT rings no bell: messages wait for the next sweep";
        return Ok(vec![Finding::problem("bell", what).evidence(evidence).fix(ear.schema.sql(NO_BELL))]);
    }
    let took = rung.elapsed().as_secs_f64() * 1000.0;
    let mut findings = vec![Finding::ok("bell", format!("{way} woke a parked listener after {took:.1} ms"))];
    if !by_trigger {
        let what = "whether the trigger rings was not tried: this role may not take a probe back";
        findings.push(Finding::note("bell", what).fix(AS_OWNER));
    }
    Ok(findings)
}

/// A session that listens.
struct Ear {
    client: Client,
    schema: Schema,
    heard: mpsc::UnboundedReceiver<String>,
    within: Duration,
    /// A target and a channel that nobody else has.
    target: String,
    own: String,
    _driver: AbortOnDropHandle<()>,
}

impl Ear {
    async fn open(settings: &Settings, within: Duration) -> Result<Self> {
        let (client, mut messages) = settings.connect().await?;
        let (tell, heard) = mpsc::unbounded_channel();
        let driver = AbortOnDropHandle::new(tokio::spawn(async move {
            while let Some(Ok(message)) = messages.next().await {
                if let AsyncMessage::Notification(bell) = message {
                    let _ = tell.send(bell.channel().to_owned());
                }
            }
        }));
        let alone: u64 = rand::random();
        let (target, own) = (format!("doorbell doctor {alone:016x}"), format!("doorbell_doctor_{alone:016x}"));
        Ok(Self { client, schema: settings.schema().clone(), heard, within, target, own, _driver: driver })
    }

    /// Whether this channel rings in time. Others may have rung before.
    async fn hears(&mut self, channel: &str) -> bool {
        let rings = async { while self.heard.recv().await.is_some_and(|heard| heard != channel) {} };
        timeout(self.within, rings).await.is_ok() && !self.heard.is_closed()
    }

    /// Behind a pooler the session goes on without us: it must not keep what we took.
    async fn leave(self) {
        let unlisten = format!("unlisten {}", self.own);
        let _ = self.say(&unlisten).await;
        let _ = self.row("select integration.unpark($1)", &self.target).await;
    }

    async fn say(&self, sql: &str) -> Result<()> {
        timeout(self.within, self.client.batch_execute(sql)).await.map_err(|_| silent())?.map_err(Error::from)
    }

    async fn backend(&self) -> Result<i32> {
        let rows = timeout(self.within, self.client.query_typed("select pg_backend_pid()", &[])).await;
        Ok(rows.map_err(|_| silent())??.pop().ok_or_else(silent)?.try_get(0)?)
    }

    async fn row(&self, sql: &str, text: &str) -> Result<Row> {
        let typed = [(&text as &(dyn ToSql + Sync), Type::TEXT)];
        let rows = timeout(self.within, self.client.query_typed(&self.schema.sql(sql), &typed)).await;
        rows.map_err(|_| silent())??.pop().ok_or_else(silent)
    }
}

fn silent() -> Error {
    Error::new(ErrorKind::Timeout, "the listening session did not answer")
}
