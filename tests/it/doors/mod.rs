//! Nobody gets in where he does not belong: attacks as they were run, by the roles of the page about deploying.

mod across;
pub(crate) mod apps;
mod attacks;
mod catalogue;
mod hostile_rows;
pub(crate) mod restored;
mod schema;
mod strangers;

use tokio_postgres::Client;

use crate::support::{Database, connect, grants};

/// A role of the page about deploying, or one that may only connect: ours for this database, and connected.
pub(crate) async fn role(db: &Database, to: &str) -> Client {
    let name = format!("{to}_{}", db.name());
    let grants = if to == "neighbour" { String::new() } else { grants(to, &name) };
    db.client().await.batch_execute(&format!("create role {name} login; {grants}")).await.unwrap();
    connect(&db.url.replace("user=postgres", &format!("user={name}"))).await
}

/// What the server answers: the SQLSTATE, or nothing when it did as it was told.
pub(crate) async fn answer(client: &Client, sql: &str) -> String {
    match client.batch_execute(sql).await {
        Ok(()) => String::new(),
        Err(error) => error.code().map_or_else(|| error.to_string(), |code| code.code().to_owned()),
    }
}
