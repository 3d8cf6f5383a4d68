//! For tests: one private server for the whole process, and a database for each test.

use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::{OnceCell, oneshot};
use tokio_postgres::NoTls;

use super::ephemeral::{EphemeralOptions, Server};
use crate::error::{Error, ErrorKind, Result};

/// Tests run side by side, each with connections of its own.
const CONNECTIONS_MAX: u32 = 400;
/// What PostgreSQL allows none of by itself.
const PREPARED_MAX: u32 = 20;

/// A new, empty database on a private server; returns the string to connect to it with. All that a test needs:
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use doorbell::{Broker, Message, Outcome};
///
/// let database = doorbell_server::scratch().await?;
///
/// let broker = Broker::connect(&database).await?;
/// broker.migrate().await?;
/// broker.producer("shop").publish(&Message::new("billing", "order.placed", &7)?).await?;
/// let (charge, mut charged) = tokio::sync::mpsc::unbounded_channel();
/// let billing = broker.consumer("billing").on("order.placed", move |order: i32, _delivery| {
///     let told = charge.send(order);
///     async move { told.map(|()| Outcome::Done).map_err(Into::into) }
/// });
/// let billing = billing.start().await?;
/// assert_eq!(charged.recv().await, Some(7));
/// billing.shutdown().await?;
/// # Ok(())
/// # }
/// ```
///
/// The first call of a process starts the server, in about a second for the first of a version and then in 0.1 s; it
/// vanishes with the process, however that ends, and its databases with it. Call it from any runtime: the server does not
/// belong to the caller's. Cancelled, it may leave an empty database behind.
///
/// # Errors
/// Those of [`Server::ephemeral`], and [`Io`](ErrorKind::Io) when the server does not make the database.
pub async fn scratch() -> Result<String> {
    static SERVER: OnceCell<Scratch> = OnceCell::const_new();
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let server = SERVER.get_or_try_init(Scratch::start).await?;
    let name = format!("scratch_{}", NEXT.fetch_add(1, Ordering::Relaxed));
    let failed = |e| Error::new(ErrorKind::Io, format!("cannot create the database {name}")).with_source(e);
    let (client, connection) =
        tokio_postgres::connect(&server.connection_string("postgres"), NoTls).await.map_err(failed)?;
    let sql = format!("create database {name} template template0");
    let making = async move { client.batch_execute(&sql).await };
    // The connection ends by itself when the client, gone with its statement, is dropped.
    let (made, _) = tokio::join!(making, connection);
    made.map_err(failed)?;
    Ok(server.connection_string(&name))
}

/// The process's server, kept by a thread of its own: every test has a runtime that ends with it.
struct Scratch(std::path::PathBuf);

impl Scratch {
    async fn start() -> Result<Self> {
        let failed =
            |e: std::io::Error| Error::new(ErrorKind::Io, "cannot start a thread for the server").with_source(e);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.map_err(failed)?;
        let (tell, told) = oneshot::channel();
        let keep = move || {
            runtime.block_on(async {
                let settings = vec![("max_prepared_transactions".to_owned(), PREPARED_MAX.to_string())];
                let options =
                    EphemeralOptions { max_connections: CONNECTIONS_MAX, settings, ..EphemeralOptions::default() };
                match Server::ephemeral(options).await {
                    Ok(server) => {
                        if tell.send(Ok(server.directory().to_owned())).is_ok() {
                            std::future::pending::<()>().await;
                        }
                    }
                    Err(error) => drop(tell.send(Err(error))),
                }
            });
        };
        std::thread::Builder::new().name("scratch server".to_owned()).spawn(keep).map_err(failed)?;
        let gone = |e| Error::new(ErrorKind::Io, "the thread of the server ended").with_source(e);
        Ok(Self(told.await.map_err(gone)??))
    }

    fn connection_string(&self, database: &str) -> String {
        super::connection_string(&self.0, database)
    }
}
