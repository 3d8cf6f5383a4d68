//! Primary or standby, writable or not: what a server is, and what `target_session_attrs` wants it to be.

use std::pin::pin;

use futures::StreamExt;
use tokio_postgres::{Client, SimpleQueryMessage};

use super::{
    deadline::Deadline,
    failure::Failure,
    keys::Values,
    messages::{self, Messages},
};
use crate::error::Result;

/// Answers both questions of `target_session_attrs` in one round trip, on every version and through every pooler.
const ROLE_QUERY: &str =
    "select pg_catalog.pg_is_in_recovery(), pg_catalog.current_setting('transaction_read_only') = 'on'";

/// What a server must be to be taken (`target_session_attrs`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Session {
    Any,
    ReadWrite,
    ReadOnly,
    Primary,
    Standby,
    PreferStandby,
}

impl Session {
    pub(super) fn read(values: &Values) -> Result<Self> {
        let choices = [
            ("any", Self::Any),
            ("read-write", Self::ReadWrite),
            ("read-only", Self::ReadOnly),
            ("primary", Self::Primary),
            ("standby", Self::Standby),
            ("prefer-standby", Self::PreferStandby),
        ];
        Ok(values.choice("target_session_attrs", &choices)?.unwrap_or(Self::Any))
    }
}

/// Gives the session back if it is what `target_session_attrs` asks for.
pub(super) async fn checked(
    connected: (Client, Messages),
    session: Session,
    deadline: Deadline,
) -> Result<(Client, Messages), Failure> {
    if session == Session::Any {
        return Ok(connected);
    }
    let (client, mut messages) = connected;
    let (standby, read_only) = deadline.step("asking for the server's role", role(&client, &mut messages)).await??;
    let (wanted, is) = match session {
        Session::Any | Session::PreferStandby => (true, ""),
        Session::ReadWrite => (!standby && !read_only, "read-only"),
        Session::ReadOnly => (standby || read_only, "not read-only"),
        Session::Primary => (!standby, "a standby"),
        Session::Standby => (standby, "not a standby"),
    };
    match wanted {
        true => Ok((client, messages)),
        false => Err(Failure::new(format!("the server is {is}, which target_session_attrs does not allow"))),
    }
}

/// Whether the server is a standby, and whether its sessions start read-only.
async fn role(client: &Client, messages: &mut Messages) -> Result<(bool, bool), Failure> {
    let mut query = pin!(client.simple_query(ROLE_QUERY));
    let answer = loop {
        tokio::select! {
            answer = &mut query => break answer.map_err(Failure::login)?,
            message = messages.next() => match message {
                Some(message) => messages::log(&message.map_err(Failure::login)?),
                None => return Err(Failure::new("the server closed the connection")),
            },
        }
    };
    let row = answer.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    let is = |column| row.and_then(|row| row.try_get(column).ok().flatten()).map(|value| value == "t");
    match (is(0), is(1)) {
        (Some(standby), Some(read_only)) => Ok((standby, read_only)),
        _ => Err(Failure::new("the server did not tell its role")),
    }
}
