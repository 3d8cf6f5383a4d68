//! TEMPORARY stand-in until the connection layer lands.
use crate::error::*;
use std::time::Duration;
#[derive(Clone)]
pub struct Settings(tokio_postgres::Config);
impl std::fmt::Display for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("pg")
    }
}
impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("pg")
    }
}
pub(crate) struct Messages(
    futures::stream::BoxStream<'static, std::result::Result<tokio_postgres::AsyncMessage, tokio_postgres::Error>>,
);
impl futures::Stream for Messages {
    type Item = std::result::Result<tokio_postgres::AsyncMessage, tokio_postgres::Error>;
    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        self.0.as_mut().poll_next(cx)
    }
}
impl Settings {
    /// x
    pub fn parse(s: &str) -> Result<Self> {
        Ok(Self(s.parse().map_err(|e: tokio_postgres::Error| Error::config("bad").with_source(e))?))
    }
    /// x
    pub fn from_env() -> Result<Self> {
        Self::parse(&std::env::var("DATABASE_URL").unwrap_or_default())
    }
    pub(crate) fn application(&self) -> &str {
        self.0.get_application_name().unwrap_or("")
    }
    pub(crate) async fn connect(&self) -> Result<(tokio_postgres::Client, Messages)> {
        let (c, mut n) = self
            .0
            .connect(tokio_postgres::NoTls)
            .await
            .map_err(|e| Error::new(ErrorKind::Connect, "cannot connect").with_source(e))?;
        Ok((c, Messages(Box::pin(futures::stream::poll_fn(move |cx| n.poll_message(cx))))))
    }
}
#[derive(Clone, Debug)]
pub(crate) struct Pool(deadpool_postgres::Pool);
pub(crate) struct Pooled(deadpool_postgres::Object);
impl Pool {
    pub(crate) fn new(s: Settings, max: usize, _w: Duration) -> Result<Self> {
        let m = deadpool_postgres::Manager::new(s.0, tokio_postgres::NoTls);
        Ok(Self(deadpool_postgres::Pool::builder(m).max_size(max).build().unwrap()))
    }
    pub(crate) async fn get(&self) -> Result<Pooled> {
        Ok(Pooled(self.0.get().await?))
    }
    pub(crate) fn close(&self) {
        self.0.close()
    }
}
impl Pooled {
    pub(crate) fn discard(self) {
        drop(deadpool_postgres::Object::take(self.0))
    }
}
impl std::ops::Deref for Pooled {
    type Target = deadpool_postgres::ClientWrapper;
    fn deref(&self) -> &Self::Target {
        &self.0
    }
}
impl std::ops::DerefMut for Pooled {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0
    }
}
