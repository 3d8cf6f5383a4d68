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

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_kernel_is_told() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let seconds = |n| Some(Duration::from_secs(n));
        let keepalive = Keepalive { idle: seconds(10), interval: seconds(5), count: Some(3) };
        let options = SocketOptions { keepalive: Some(keepalive), user_timeout: seconds(20) };
        let stream = connect(listener.local_addr().unwrap(), options).await.unwrap();
        let socket = SockRef::from(&stream);
        assert!(socket.keepalive().unwrap() && socket.tcp_nodelay().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(10));
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), Duration::from_secs(5));
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), 3);
        assert_eq!(socket.tcp_user_timeout().unwrap(), seconds(20));

        let stream = connect(listener.local_addr().unwrap(), SocketOptions { keepalive: None, user_timeout: None });
        assert!(!SockRef::from(&stream.await.unwrap()).keepalive().unwrap());
    }
}
