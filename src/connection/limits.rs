//! How long the server lets a statement of ours wait: less long than we wait for it. A client that gives up closes its
//! connection, but a server process that waits for a lock does not look at its socket: without a limit of its own it stays,
//! and each attempt leaves one more, until the server has none left for anybody.
//!
//! And in which isolation it works. Ours skip what others have locked and fence what they settle, so they are right in READ
//! COMMITTED; in a stricter level, which a database may be set to, they would fail because of each other, and have
//! transactions of the application fail because of them. Transactions that handlers and callers are given begin as the
//! role or the database says.

use std::time::Duration;

use doorbell_connection::announced;
use tokio_postgres::{Client, Error, IsolationLevel, SimpleQueryMessage};
use tracing::debug;

/// How often the server looks whether its client is still there, while a statement runs.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Which server process answers, and what the role or the database has set already, in milliseconds; null: the server does
/// not know it.
const FACTS: &str = "select pg_catalog.pg_backend_pid(), \
    (extract(epoch from pg_catalog.current_setting('lock_timeout')::pg_catalog.interval) * 1000)::pg_catalog.int8, \
    (extract(epoch from pg_catalog.current_setting('client_connection_check_interval', true)::pg_catalog.interval) \
        * 1000)::pg_catalog.int8, \
    pg_catalog.current_setting('default_transaction_isolation')";
/// A dead client's session must go within seconds and not after two hours. Without effect on a Unix socket.
const KEEPALIVE: &str = "set tcp_keepalives_idle = 10; set tcp_keepalives_interval = 5; set tcp_keepalives_count = 3; \
    set tcp_user_timeout = 20000";

const READ_ONLY: &str = "set default_transaction_read_only = on";

/// What is said where.
#[derive(Debug, Default)]
pub(super) struct Limits {
    /// How each transaction of ours is to begin. None: all is said for the session, which is ours alone; a pooler gives its
    /// sessions to others, too.
    pub(super) begin: Option<String>,
    /// What the role or the database begins transactions with, where that is not READ COMMITTED.
    pub(super) stricter: Option<IsolationLevel>,
}

impl Limits {
    /// Limits the session: its statements wait for locks for at most `locks`, and end soon after their client has gone. What
    /// the role or the database sets stays where it is stricter. Not startup parameters, which poolers refuse. One that is to
    /// be `read_only` is, or is none.
    pub(super) async fn set(client: &Client, locks: Duration, read_only: bool) -> Result<Self, Error> {
        let facts = match client.simple_query(FACTS).await {
            Ok(facts) => facts,
            Err(error) if error.is_closed() || read_only => return Err(error),
            Err(error) => {
                debug!(?error, "what limits the session was not told");
                return Ok(Self::default());
            }
        };
        let fact = facts.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        let stricter = match fact.and_then(|row| row.get(3)) {
            Some("serializable") => Some(IsolationLevel::Serializable),
            Some("repeatable read") => Some(IsolationLevel::RepeatableRead),
            _ => None,
        };
        let fact = |column| fact.and_then(|row| row.get(column)?.parse::<i64>().ok());
        let wanted = [("lock_timeout", fact(1), locks), ("client_connection_check_interval", fact(2), LOOK_EVERY)];
        let mut settings = Vec::new();
        for (name, now, wanted) in wanted {
            let wanted = (wanted.as_millis() as i64).max(1);
            if now.is_some_and(|now| now == 0 || now > wanted) {
                settings.push(format!("{name} = {wanted}"));
            }
        }
        let backend = fact(0).and_then(|pid| i32::try_from(pid).ok());
        if backend != announced(client).await {
            // A statement that is not over when we have given it up has lost its client.
            settings.push(format!("statement_timeout = {}", (locks * 2).as_millis()));
            let locals: String = settings.iter().map(|setting| format!("; set local {setting}")).collect();
            let mode = if read_only { " read only" } else { "" };
            return Ok(Self {
                begin: Some(format!("begin isolation level read committed{mode}{locals}")),
                stricter: None,
            });
        }
        if read_only {
            client.batch_execute(READ_ONLY).await?;
        }
        let mut sets: Vec<String> = settings.iter().map(|setting| format!("set {setting}")).collect();
        if stricter.is_some() {
            sets.push("set default_transaction_isolation = 'read committed'".to_owned());
        }
        sets.push(KEEPALIVE.to_owned());
        // One by one: what a system does not have (looking at sockets, keepalives) does not take the rest with it.
        for set in sets {
            if let Err(error) = client.batch_execute(&set).await {
                if error.is_closed() {
                    return Err(error);
                }
                debug!(?error, "a session setting is not accepted");
            }
        }
        Ok(Self { begin: None, stricter })
    }
}
