//! Getting a session: of one host after the other, address after address, each within its time.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    net::SocketAddr,
    path::Path,
    sync::atomic::Ordering,
};

use bytes::BytesMut;
use postgres_protocol::message::frontend;
use rand::seq::SliceRandom;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};
use tokio_postgres::{
    Client, Config, NoTls,
    config::{SslMode as DriverMode, SslNegotiation},
    tls::{TlsConnect, TlsStream},
};

use super::{
    authentication::Watched,
    deadline::Deadline,
    failure::{self, Failure},
    host::Host,
    messages::Messages,
    race,
    role::{Session, checked},
    settings::Settings,
    socket,
    ssl::SslMode,
    tls::{self, Encryption},
};
use crate::error::Result;

type Connected = (Client, Messages);

/// How the driver is told about a stream on which the question of TLS is settled: its own negotiation is passed over.
const PLAIN: (NoTls, DriverMode) = (NoTls, DriverMode::Disable);
const ENCRYPTED: (Established, DriverMode) = (Established, DriverMode::Require);

impl Settings {
    /// Opens a connection to the first host that lets us in and is what `target_session_attrs` asks for.
    ///
    /// The caller must poll the [`Messages`], or nothing else moves. Cancelling leaves nothing behind but a socket that
    /// is closed.
    ///
    /// # Errors
    ///
    /// `Config` where certificate files cannot be used or a server asks for something that the settings do not have
    /// (a password); `Database` where a server refused the user, or all of them the session (the SQLSTATE says why);
    /// else `Connect`. The message has one line for each host that was tried.
    pub async fn connect(&self) -> Result<(Client, Messages)> {
        let encryption = match self.needs_tls() {
            true => tls::prepare(&self.ssl).await?,
            false => None,
        };
        let hosts = self.order();
        if self.session == Session::PreferStandby {
            if let Ok(connected) = self.first_of(&hosts, Session::Standby, encryption.as_ref()).await {
                return Ok(connected);
            }
            return self.first_of(&hosts, Session::Any, encryption.as_ref()).await;
        }
        self.first_of(&hosts, self.session, encryption.as_ref()).await
    }

    fn needs_tls(&self) -> bool {
        self.ssl.mode != SslMode::Disable && self.hosts.iter().any(|host| host.socket().is_none())
    }

    /// The hosts as they are to be tried. The one that let us in last comes first: who connects again must not wait for the
    /// silent ones in front of it. Where load is to be balanced the order is left to chance.
    pub(super) fn order(&self) -> Vec<&Host> {
        let mut hosts: Vec<_> = self.hosts.iter().collect();
        if self.shuffle {
            hosts.shuffle(&mut rand::rng());
        } else if let Some(before) = hosts.get_mut(..=self.last_good.load(Ordering::Relaxed)) {
            before.rotate_right(1);
        }
        hosts
    }

    async fn first_of(&self, hosts: &[&Host], session: Session, encryption: Option<&Encryption>) -> Result<Connected> {
        match race::first(hosts, |host| self.through(host, session, encryption)).await {
            Ok((at, connected)) => {
                let place = self.hosts.iter().position(|host| host == hosts[at]);
                self.last_good.store(place.unwrap_or_default(), Ordering::Relaxed);
                Ok(connected)
            }
            Err(failures) => Err(failure::report(failures)),
        }
    }

    /// One host, all its addresses, one deadline.
    async fn through(
        &self,
        host: &Host,
        session: Session,
        encryption: Option<&Encryption>,
    ) -> Result<Connected, Failure> {
        let deadline = Deadline::after(self.deadline);
        let login = deadline.step("reading the password file", self.login(host)).await?;
        if let Some(path) = host.socket() {
            let stream = local(&path, deadline).await?;
            let stream = Watched::new(stream, &self.require_auth, false);
            let connected = start(stream, PLAIN, &login, deadline).await?;
            return checked(connected, session, deadline).await;
        }
        let addresses = self.resolve(host, deadline).await?;
        let mut earlier: Option<Failure> = None;
        for (tried, &address) in addresses.iter().enumerate() {
            let way = Way { settings: self, host, address, login: &login, encryption };
            let share = deadline.share(addresses.len() - tried);
            let failure = match way.connect(share).await {
                Ok(connected) => match checked(connected, session, share).await {
                    Ok(connected) => return Ok(connected),
                    Err(failure) => failure,
                },
                Err(failure) => failure,
            };
            let failure = if addresses.len() > 1 { failure.context(address) } else { failure };
            let failure = failure.after(earlier);
            if failure.is_final() {
                return Err(failure);
            }
            earlier = Some(failure);
        }
        Err(earlier.unwrap_or_else(|| Failure::new("the name has no address")))
    }

    async fn resolve(&self, host: &Host, deadline: Deadline) -> Result<Vec<SocketAddr>, Failure> {
        if let Some(ip) = host.address {
            return Ok(vec![SocketAddr::new(ip, host.port)]);
        }
        let lookup = tokio::net::lookup_host((host.name.as_str(), host.port));
        match deadline.step("resolving the name", lookup).await? {
            Ok(found) => {
                let mut addresses: Vec<_> = found.collect();
                if self.shuffle {
                    addresses.shuffle(&mut rand::rng());
                }
                Ok(addresses)
            }
            Err(error) => Err(Failure::new(error.to_string())),
        }
    }
}

/// One address of a TCP host.
struct Way<'a> {
    settings: &'a Settings,
    host: &'a Host,
    address: SocketAddr,
    login: &'a Config,
    encryption: Option<&'a Encryption>,
}

impl Way<'_> {
    /// Connects with or without TLS, in the order that `sslmode` says.
    async fn connect(&self, deadline: Deadline) -> Result<Connected, Failure> {
        let Some(encryption) = self.encryption else {
            return self.plain(deadline).await;
        };
        match self.settings.ssl.mode {
            SslMode::Disable => self.plain(deadline).await,
            SslMode::Allow => match self.plain(deadline).await {
                Err(first) if first.is_about_encryption() => {
                    let second = self.encrypted(encryption, deadline).await;
                    second.map_err(|second| second.context("with TLS").after(Some(first.context("without TLS"))))
                }
                outcome => outcome,
            },
            SslMode::Prefer => {
                let (stream, offered) = self.offer(deadline).await?;
                if !offered {
                    return self.unencrypted(stream, deadline).await;
                }
                match self.secure(stream, encryption, deadline).await {
                    Err(first) if first.is_about_encryption() => {
                        let second = self.plain(deadline).await;
                        second.map_err(|second| second.context("without TLS").after(Some(first.context("with TLS"))))
                    }
                    outcome => outcome,
                }
            }
            SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => self.encrypted(encryption, deadline).await,
        }
    }

    async fn plain(&self, deadline: Deadline) -> Result<Connected, Failure> {
        let stream = self.reach(deadline).await?;
        self.unencrypted(stream, deadline).await
    }

    async fn unencrypted(&self, stream: TcpStream, deadline: Deadline) -> Result<Connected, Failure> {
        let elsewhere = !self.address.ip().to_canonical().is_loopback();
        let stream = Watched::new(stream, &self.settings.require_auth, elsewhere);
        let connected = start(stream, PLAIN, self.login, deadline).await?;
        let meant = self.settings.ssl.mode == SslMode::Disable;
        if elsewhere && !meant && !self.settings.warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                host = %self.host,
                "the connection to the database is not encrypted: others on the way can read it; \
                 set sslmode=require, or sslmode=disable where that is meant"
            );
        }
        Ok(connected)
    }

    async fn encrypted(&self, encryption: &Encryption, deadline: Deadline) -> Result<Connected, Failure> {
        match self.offer(deadline).await? {
            (stream, true) => self.secure(stream, encryption, deadline).await,
            (_, false) => Err(Failure::new("the server does not offer TLS")),
        }
    }

    async fn reach(&self, deadline: Deadline) -> Result<TcpStream, Failure> {
        let connecting = socket::connect(self.address, self.settings.socket);
        let reached = deadline.step("connecting", connecting).await?;
        reached.map_err(|error| Failure::new(error.to_string()))
    }

    /// Reaches the server and asks whether it speaks TLS; with `sslnegotiation=direct` that is taken for granted.
    async fn offer(&self, deadline: Deadline) -> Result<(TcpStream, bool), Failure> {
        let mut stream = self.reach(deadline).await?;
        if self.settings.ssl.direct {
            return Ok((stream, true));
        }
        let asking = async {
            let mut request = BytesMut::new();
            frontend::ssl_request(&mut request);
            stream.write_all(&request).await?;
            // One byte and no more: whatever came unencrypted behind it must not pass for the server's.
            stream.read_u8().await
        };
        match deadline.step("asking for TLS", asking).await? {
            Ok(b'S') => Ok((stream, true)),
            Ok(b'N') => Ok((stream, false)),
            Ok(_) => Err(Failure::new("the answer to the request for TLS is not PostgreSQL's")),
            Err(error) => Err(Failure::io("no answer to the request for TLS", &error)),
        }
    }

    async fn secure(
        &self,
        stream: TcpStream,
        encryption: &Encryption,
        deadline: Deadline,
    ) -> Result<Connected, Failure> {
        let shaking = encryption.handshake(stream, &self.host.name);
        let stream = deadline.step("waiting for the TLS handshake", shaking).await?.map_err(Failure::handshake)?;
        let stream = Watched::new(stream, &self.settings.require_auth, false);
        start(stream, ENCRYPTED, self.login, deadline).await
    }
}

#[cfg(unix)]
async fn local(path: &Path, deadline: Deadline) -> Result<tokio::net::UnixStream, Failure> {
    let connecting = tokio::net::UnixStream::connect(path);
    let reached = deadline.step("connecting to the socket", connecting).await?;
    reached.map_err(|error| Failure::new(error.to_string()))
}

#[cfg(not(unix))]
async fn local(_: &Path, _: Deadline) -> Result<TcpStream, Failure> {
    Err(Failure::new("this system has no Unix sockets"))
}

/// Logs in over a stream that is as safe as it is going to be.
async fn start<S, T>(
    stream: S,
    (tls, mode): (T, DriverMode),
    login: &Config,
    deadline: Deadline,
) -> Result<Connected, Failure>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    T: TlsConnect<S>,
    T::Stream: Send + 'static,
{
    let mut login = login.clone();
    login.ssl_negotiation(SslNegotiation::Direct).ssl_mode(mode);
    let (client, connection) =
        deadline.step("logging in", login.connect_raw(stream, tls)).await?.map_err(Failure::login)?;
    Ok((client, Messages::new(connection)))
}

/// Stands in for the handshake that the driver would make: the stream is encrypted already.
struct Established;

impl<S: TlsStream + Unpin> TlsConnect<S> for Established {
    type Stream = S;
    type Error = Infallible;
    type Future = Ready<Result<S, Infallible>>;

    fn connect(self, stream: S) -> Self::Future {
        ready(Ok(stream))
    }
}
