//! Whether a session is the listener's own, found out before anything is left in it that others would get next.
//!
//! A transaction pooler gives the server's session to somebody else between two statements. Another session rings while
//! this one is idle: such a pooler has nobody then to whom it could hand the notification. (One that the session sends to
//! itself comes back now and then, by luck, while the pool is idle.)

use std::time::Duration;

use tokio::{sync::Notify, time::timeout};
use tokio_postgres::{Client, SimpleQueryMessage};
use tracing::debug;

use crate::{
    connection,
    error::{Error, ErrorKind, Result},
    store::Store,
};

/// How often it is looked, behind a pooler, whether sessions are shared, before something is left in one.
const LOOKS: u32 = 3;
/// How often the session with the LISTEN is looked for when they were after all.
const LOOKS_BACK_MAX: u32 = 50;

/// Listens on `channel` alone; `pong` is told of its notifications, `another` rings. When it was no session of our own, the
/// LISTEN is taken back.
pub(super) async fn own_session(
    client: &Client,
    another: &Store,
    channel: &str,
    pong: &Notify,
    within: Duration,
) -> Result<()> {
    let silent = |_| Error::new(ErrorKind::Timeout, "the listening session did not answer");
    if !timeout(within * 2, connection::is_direct(client)).await.map_err(silent)?? {
        look_for_others(client, another, within).await?;
    }
    let backend = backend(client, &format!("listen \"{channel}\""), within).await?;
    let proof = async {
        another.ring(channel).await?;
        heard(pong, within).await?;
        match self::backend(client, "", within).await? == backend {
            true => Ok(()),
            false => Err(shared(CHANGES)),
        }
    };
    let proof = proof.await;
    if proof.is_err() {
        undo(client, channel, &backend, within).await;
    }
    proof
}

/// Fails where our statements meet the session of another connection, or not the same one twice.
async fn look_for_others(client: &Client, another: &Store, within: Duration) -> Result<()> {
    for _ in 0..LOOKS {
        let ours = backend(client, "", within).await?;
        if another.backend().await?.to_string() == ours || backend(client, "", within).await? != ours {
            return Err(shared(CHANGES));
        }
    }
    Ok(())
}

/// Waits for a notification.
pub(super) async fn heard(pong: &Notify, within: Duration) -> Result<()> {
    timeout(within, pong.notified()).await.map_err(|_| shared("a notification to itself did not arrive"))
}

const CHANGES: &str = "the listener shares its session with others";

fn shared(what: &str) -> Error {
    Error::new(
        ErrorKind::Timeout,
        format!(
            "{what}: is a transaction pooler between the consumer and PostgreSQL? Give consumers a direct connection"
        ),
    )
}

/// Each statement may meet another session of the pooler's; ours is the one with the LISTEN.
async fn undo(client: &Client, channel: &str, left: &str, within: Duration) {
    for _ in 0..LOOKS_BACK_MAX {
        match backend(client, &format!("unlisten \"{channel}\""), within).await {
            Ok(backend) if backend == left => return,
            Ok(_) => {}
            Err(error) => return debug!(?error, "the LISTEN could not be taken back"),
        }
    }
    debug!("the session with the LISTEN was not met again; nobody rings on that channel");
}

/// Runs a statement, in one message with the question which server process did it.
async fn backend(client: &Client, statement: &str, within: Duration) -> Result<String> {
    let sql = format!("{statement}; select pg_catalog.pg_backend_pid()");
    let silent = |_| Error::new(ErrorKind::Timeout, "the listening session did not answer");
    let answer = timeout(within * 2, client.simple_query(&sql)).await.map_err(silent)?;
    let answer = answer.map_err(|error| Error::from(error).context("listen"))?;
    let pid = answer.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    });
    pid.ok_or_else(|| Error::new(ErrorKind::Schema, "listen: the server did not tell its process"))
}
