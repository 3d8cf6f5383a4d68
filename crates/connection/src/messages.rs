//! The receiving half of a connection.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use futures::{
    Stream, StreamExt,
    stream::{self, BoxStream},
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_postgres::{AsyncMessage, Connection, Error};

/// Everything the server says without being asked: notices and notifications.
///
/// It is also the engine of the connection: statements advance only while somebody polls it. It ends when the client
/// was dropped and all is sent, or when the server closes the connection; after an error it must not be polled again.
/// Dropping it closes the socket.
pub struct Messages(BoxStream<'static, Result<AsyncMessage, Error>>);

impl Messages {
    pub(super) fn new<S, T>(mut connection: Connection<S, T>) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        Self(stream::poll_fn(move |context| connection.poll_message(context)).boxed())
    }

    /// Runs a connection on which nobody listens, until it ends: notices are logged, notifications dropped.
    pub async fn drain(mut self) {
        while let Some(message) = self.next().await {
            match message {
                Ok(message) => log(&message),
                // Whoever waits for a statement gets its own error; without one nobody is concerned.
                Err(error) => {
                    tracing::debug!(error = &error as &dyn std::error::Error, "a database connection ended");
                    return;
                }
            }
        }
    }
}

impl Stream for Messages {
    type Item = Result<AsyncMessage, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_next_unpin(context)
    }
}

impl fmt::Debug for Messages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Messages").finish_non_exhaustive()
    }
}

/// Logs a notice of the server at debug level; does nothing with a notification.
pub fn log(message: &AsyncMessage) {
    if let AsyncMessage::Notice(notice) = message {
        tracing::debug!(severity = notice.severity(), code = notice.code().code(), "server: {}", notice.message());
    }
}
