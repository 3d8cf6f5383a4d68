//! How a server may ask who we are: `require_auth`, and no password within earshot of a network.
//!
//! The driver answers whatever it is asked. So what the server sends is read on its way to the driver, up to the end of the
//! login, and a question that must not be answered ends the connection instead.

use std::{
    fmt, io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, TlsStream};

use super::keys::Values;
use crate::error::Result;

/// A way to log in, by the name that `require_auth` has for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    None,
    Password,
    Md5,
    Gss,
    Sspi,
    Scram,
}

use Method::{Gss, Md5, None as Nothing, Password, Scram, Sspi};

const METHODS: [(&str, Method); 6] =
    [("none", Nothing), ("password", Password), ("md5", Md5), ("gss", Gss), ("sspi", Sspi), ("scram-sha-256", Scram)];

/// Which ways are allowed.
#[derive(Clone, Debug)]
pub(super) struct RequireAuth {
    allowed: Vec<Method>,
    /// Those allowed were named, not what is left of all.
    named: bool,
}

impl RequireAuth {
    /// Reads `require_auth`: names, or names that are excluded by a `!` each.
    pub(super) fn read(values: &Values) -> Result<Self> {
        let all = || METHODS.iter().map(|(_, method)| *method);
        let Some(text) = values.get("require_auth").filter(|text| !text.is_empty()) else {
            return Ok(Self { allowed: all().collect(), named: false });
        };
        let excluding = text.starts_with('!');
        let mut listed = Vec::new();
        for word in text.split(',') {
            let (name, excluded) = word.strip_prefix('!').map_or((word, false), |name| (name, true));
            let Some((_, method)) = METHODS.iter().find(|(known, _)| *known == name) else {
                let known = METHODS.map(|(known, _)| known).join(", ");
                return Err(values.refuse("require_auth", format_args!("must list some of {known}")));
            };
            if excluded != excluding {
                return Err(values.refuse("require_auth", "must exclude all that it lists, or none"));
            }
            listed.push(*method);
        }
        let allowed = all().filter(|method| listed.contains(method) != excluding).collect();
        Ok(Self { allowed, named: !excluding })
    }
}

/// Why a login was ended by us.
#[derive(Debug)]
pub(super) struct Refusal {
    reason: String,
    /// With TLS it would not have been.
    pub(super) for_want_of_tls: bool,
}

impl Refusal {
    fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), for_want_of_tls: false }
    }

    /// The refusal in an error of the driver, if that is what it is.
    pub(super) fn of(error: &tokio_postgres::Error) -> Option<&Self> {
        std::error::Error::source(error)?.downcast_ref::<io::Error>()?.get_ref()?.downcast_ref()
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for Refusal {}

/// A stream to a server whose questions are looked at until it lets us in.
pub(super) struct Watched<S> {
    stream: S,
    watch: Option<Watch>,
}

impl<S> Watched<S> {
    /// `in_clear`: others may listen to what is sent.
    pub(super) fn new(stream: S, rules: &RequireAuth, in_clear: bool) -> Self {
        let watch = Watch { rules: rules.clone(), in_clear, asked: false, head: Vec::new(), skip: 0 };
        Self { stream, watch: Some(watch) }
    }
}

/// What has been seen of a login.
struct Watch {
    rules: RequireAuth,
    in_clear: bool,
    /// The server has asked for something.
    asked: bool,
    /// The beginning of a message: its type, its length and, of a question, which one it is.
    head: Vec<u8>,
    /// What is left of a message whose beginning was seen.
    skip: usize,
}

impl Watch {
    /// Looks at the next bytes of the server; true when the login is over.
    fn sees(&mut self, mut bytes: &[u8]) -> Result<bool, Refusal> {
        loop {
            let passed = self.skip.min(bytes.len());
            self.skip -= passed;
            bytes = &bytes[passed..];
            let Some((&byte, rest)) = bytes.split_first() else { return Ok(false) };
            bytes = rest;
            self.head.push(byte);
            let [kind, length @ ..] = self.head.as_slice() else { continue };
            let wanted = if *kind == b'R' { 8 } else { 4 };
            if length.len() < wanted {
                continue;
            }
            let number = |at: usize| length[at..at + 4].iter().fold(0, |number, byte| number << 8 | usize::from(*byte));
            let Some(left) = number(0).checked_sub(wanted) else {
                return Err(Refusal::new("the server does not speak PostgreSQL's protocol"));
            };
            let question = (*kind == b'R').then(|| number(4));
            self.skip = left;
            self.head.clear();
            if question.map_or(Ok(false), |question| self.judges(question))? {
                return Ok(true);
            }
        }
    }

    fn judges(&mut self, question: usize) -> Result<bool, Refusal> {
        let method = match question {
            0 if self.asked => return Ok(true),
            0 => Nothing,
            3 => Password,
            5 => Md5,
            7 | 8 => Gss,
            9 => Sspi,
            10 => Scram,
            // The rest of a conversation, or nothing that the driver knows an answer to.
            _ => return Ok(false),
        };
        let what = match method {
            Nothing => "lets everybody in without a question",
            Password => "asks for the password in clear text",
            Md5 => "asks for the password as an MD5 hash",
            Gss | Sspi => "asks for Kerberos",
            Scram => "asks for SCRAM",
        };
        if !self.rules.allowed.contains(&method) {
            return Err(Refusal::new(format!("the server {what}, which `require_auth` does not allow")));
        }
        if self.in_clear && !self.rules.named && matches!(method, Password | Md5) {
            let name = if method == Password { "password" } else { "md5" };
            let reason = format!(
                "the server {what} on a connection that is not encrypted: set sslmode=require, or require_auth={name} \
                 where nobody else can listen"
            );
            return Err(Refusal { reason, for_want_of_tls: true });
        }
        self.asked = true;
        Ok(method == Nothing)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        if let Some(watch) = &mut self.watch {
            match watch.sees(&buffer.filled()[before..]) {
                Ok(false) => {}
                Ok(true) => self.watch = None,
                Err(refusal) => {
                    buffer.set_filled(before);
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::PermissionDenied, refusal)));
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

impl<S: TlsStream + Unpin> TlsStream for Watched<S> {
    fn channel_binding(&self) -> ChannelBinding {
        self.stream.channel_binding()
    }
}
