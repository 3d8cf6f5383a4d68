//! The bell, end to end: from an INSERT through the trigger to a listener that came the way consumers come.

use std::time::Duration;

use futures::StreamExt;
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, timeout},
};
use tokio_postgres::{
    AsyncMessage, Client, Row,
    types::{ToSql, Type},
};

use super::{
    Options,
    finding::{Finding, Level},
    session::Session,
};
use crate::{
    connection::Settings,
    error::{Error, ErrorKind, Result},
};

const DIRECT: &str = "give consumers a direct connection, or one through a pooler in session mode; publishers may stay \
    behind it. Where consumers are meant to sweep: insert into integration.targets (target_app, bell) values ('…', 'off')";

const AS_OWNER: &str = "run doorbell doctor as the owner of the schema, too";

pub(super) async fn check(settings: &Settings, publisher: &mut Session, options: &Options) -> Result<Vec<Finding>> {
    let within = options.bell_within;
    let mut ear = Ear::open(settings, within).await?;
    let target = format!("doorbell doctor {:016x}", rand::random::<u64>());
    // What the listener of every process does all the time.
    let own = format!("doorbell_doctor_{:016x}", rand::random::<u64>());
    ear.say(&format!("listen {own}")).await?;
    let backend = ear.backend().await?;
    ear.say(&format!("notify {own}")).await?;
    if !ear.hears(&own, within).await {
        return Ok(vec![
            Finding::new("bell", Level::Problem, "notifications do not arrive over this connection: consumers sweep")
                .evidence(format!(
                    "a notification to itself did not come back within {} s; a pooler in transaction mode does this",
                    within.as_secs_f32()
                ))
                .fix(DIRECT),
        ]);
    }
    let barrier: Option<i64> = ear.row("select integration.park($1)", &target).await?.try_get(0)?;
    if barrier.is_none() {
        return Ok(vec![
            Finding::new(
                "bell",
                Level::Problem,
                "an idle latch cannot be taken: publishers do not know that anybody waits",
            )
            .evidence("another session holds the advisory locks of this class exclusively")
            .fix("select a.* from pg_locks l join pg_stat_activity a using (pid) where l.locktype = 'advisory'"),
        ]);
    }
    let parked: bool = publisher.call("select integration.somebody_is_parked($1)", &target).await?[0].try_get(0)?;
    let (other, again): (i32, i32) =
        (publisher.row("select pg_backend_pid()").await?.try_get(0)?, ear.backend().await?);
    if !parked || other == backend || again != backend {
        return Ok(vec![
            Finding::new(
                "bell",
                Level::Problem,
                "a pooler is in the way: sessions are shared, so session locks lock nobody out",
            )
            .evidence(format!(
                "backend of the listener: {backend}, then {again}; of the publisher: {other}; its latch is {}",
                if parked { "seen" } else { "not seen" }
            ))
            .fix(DIRECT),
        ]);
    }
    let channel: String = ear.row("select integration.channel($1)", &target).await?.try_get(0)?;
    let rung = Instant::now();
    let (way, called) = match publisher.call("select integration.probe_bell($1)", &target).await {
        Err(error) if error.sqlstate() == Some("42501") => {
            ("integration.ring()", publisher.call("select integration.ring($1)", &target).await)
        }
        called => ("an INSERT and its trigger", called),
    };
    if called.as_ref().is_err_and(|error| error.sqlstate() == Some("42501")) {
        return Ok(vec![
            Finding::new(
                "bell",
                Level::Note,
                "notifications arrive; whether an INSERT rings was not tried: this role may not",
            )
            .fix(AS_OWNER),
        ]);
    }
    called?;
    if !ear.hears(&channel, within).await {
        let fix = "look at the other findings: is a trigger missing or disabled, is integration.notify off, is session_replication_role replica?";
        return Ok(vec![
            Finding::new("bell", Level::Problem, "an INSERT rings no bell: messages wait for the next sweep")
                .evidence(format!(
                    "{way} for a parked listener was committed, and nothing came within {} s",
                    within.as_secs_f32()
                ))
                .fix(fix),
        ]);
    }
    let took = rung.elapsed();
    let mut findings =
        vec![Finding::ok("bell", format!("{way} woke a parked listener after {:.1} ms", took.as_secs_f64() * 1000.0))];
    if way != "an INSERT and its trigger" {
        findings.push(
            Finding::new(
                "bell",
                Level::Note,
                "whether the trigger rings was not tried: this role may not take a probe back",
            )
            .fix("run doorbell doctor as the owner of the schema, too"),
        );
    }
    Ok(findings)
}

/// A session that listens.
struct Ear {
    client: Client,
    heard: mpsc::UnboundedReceiver<String>,
    within: Duration,
    _driver: JoinSet<()>,
}

impl Ear {
    async fn open(settings: &Settings, within: Duration) -> Result<Self> {
        let (client, mut messages) = settings.connect().await?;
        let (tell, heard) = mpsc::unbounded_channel();
        let mut driver = JoinSet::new();
        driver.spawn(async move {
            while let Some(Ok(message)) = messages.next().await {
                if let AsyncMessage::Notification(bell) = message {
                    let _ = tell.send(bell.channel().to_owned());
                }
            }
        });
        Ok(Self { client, heard, within, _driver: driver })
    }

    /// Whether this channel rings in time. Others may have rung before.
    async fn hears(&mut self, channel: &str, within: Duration) -> bool {
        let rings = async { while self.heard.recv().await.is_some_and(|heard| heard != channel) {} };
        timeout(within, rings).await.is_ok() && !self.heard.is_closed()
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
        let rows = timeout(self.within, self.client.query_typed(sql, &typed)).await;
        rows.map_err(|_| silent())??.pop().ok_or_else(silent)
    }
}

fn silent() -> Error {
    Error::new(ErrorKind::Timeout, "the listening session did not answer")
}
