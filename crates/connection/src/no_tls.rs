//! Stands in for [`super::tls`] in programs that are built without it.

use std::{convert::Infallible, io};

use tokio::net::TcpStream;
use tokio_postgres::tls::NoTlsStream;

use super::ssl::Ssl;
use crate::error::Result;

/// There is none.
pub(super) struct Encryption(Infallible);

/// Nothing to prepare: modes that could do without TLS do without, the others were refused with the settings.
pub(super) async fn prepare(_: &Ssl) -> Result<Option<Encryption>> {
    Ok(None)
}

impl Encryption {
    pub(super) async fn handshake(&self, _: TcpStream, _: &str) -> io::Result<NoTlsStream> {
        match self.0 {}
    }
}
