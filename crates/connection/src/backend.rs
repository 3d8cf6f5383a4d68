//! Which server process is at the other end: a pooler names one of its own at the login, and hands the session on.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::{
    Client, Error, SimpleQueryMessage,
    tls::{ChannelBinding, TlsConnect, TlsStream},
};

/// Where a request for cancellation has the process that it is meant for: behind its length and code.
const PROCESS_ID: std::ops::Range<usize> = 8..12;

/// Whether the server process that answers is the one that was named at the login: a pooler names one of its own.
///
/// # Errors
///
/// Those of the one question that is asked.
pub async fn is_direct(client: &Client) -> Result<bool, Error> {
    Ok(backend(client).await? == announced(client).await)
}

/// The server process that answers.
async fn backend(client: &Client) -> Result<Option<i32>, Error> {
    let answer = client.simple_query("select pg_catalog.pg_backend_pid()").await?;
    Ok(answer.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0)?.parse().ok(),
        _ => None,
    }))
}

/// The server process that was named at the login. The driver keeps it for requests for cancellation, so one is written
/// down here. None: there was none.
pub async fn announced(client: &Client) -> Option<i32> {
    let mut note = Note::default();
    client.cancel_token().cancel_query_raw(&mut note, Quietly).await.ok()?;
    note.0.get(PROCESS_ID)?.try_into().ok().map(i32::from_be_bytes)
}

/// Keeps what is written, and goes nowhere.
#[derive(Default)]
struct Note(Vec<u8>);

impl AsyncRead for Note {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Note {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.0.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// A note needs no encryption.
struct Quietly;

impl<'a> TlsConnect<&'a mut Note> for Quietly {
    type Stream = Unencrypted<'a>;
    type Error = Infallible;
    type Future = Ready<Result<Unencrypted<'a>, Infallible>>;

    fn connect(self, note: &'a mut Note) -> Self::Future {
        ready(Ok(Unencrypted(note)))
    }
}

struct Unencrypted<'a>(&'a mut Note);

impl TlsStream for Unencrypted<'_> {
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

impl AsyncRead for Unencrypted<'_> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0).poll_read(context, to)
    }
}

impl AsyncWrite for Unencrypted<'_> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0).poll_shutdown(context)
    }
}
