//! TCP sockets that notice when the other side is gone.

use std::{io, net::SocketAddr, time::Duration};

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpSocket, TcpStream};

/// The limits set on every TCP socket; nothing here applies to Unix sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SocketOptions {
    pub(super) keepalive: Option<Keepalive>,
    /// How long sent data may stay unacknowledged. Keepalives do not run then, so that each covers what the other
    /// cannot: an idle listener, and a statement in flight.
    pub(super) user_timeout: Option<Duration>,
}

/// When an idle connection is probed and given up; a missing field is left to the operating system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Keepalive {
    pub(super) idle: Option<Duration>,
    pub(super) interval: Option<Duration>,
    pub(super) count: Option<u32>,
}

/// Connects with the options already set, so that they hold for the handshake too.
pub(super) async fn connect(address: SocketAddr, options: SocketOptions) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // Statements are small and wait for their answer: never hold them back to fill a packet.
    socket.set_nodelay(true)?;
    let raw = SockRef::from(&socket);
    if let Some(keepalive) = options.keepalive {
        raw.set_tcp_keepalive(&keepalive.into())?;
    }
    #[cfg(any(target_os = "linux", target_os = "android", target_os = "fuchsia"))]
    if options.user_timeout.is_some() {
        raw.set_tcp_user_timeout(options.user_timeout)?;
    }
    socket.connect(address).await
}

impl From<Keepalive> for TcpKeepalive {
    fn from(keepalive: Keepalive) -> Self {
        let mut options = Self::new();
        if let Some(idle) = keepalive.idle {
            options = options.with_time(idle);
        }
        #[cfg(not(any(target_os = "openbsd", target_os = "haiku", target_os = "redox", target_os = "solaris")))]
        {
            if let Some(interval) = keepalive.interval {
                options = options.with_interval(interval);
            }
            if let Some(count) = keepalive.count {
                options = options.with_retries(count);
            }
        }
        options
    }
}
