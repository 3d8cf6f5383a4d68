//! One event to many: topics, subscriptions, taps; history for those who come late; what is handed out again; what is answered, of what
//! the latest counts, and what is not wanted any more.

mod batches;
mod capture;
mod coalesce;
mod contracts;
mod expiry;
mod extract;
mod foreign;
mod json_schema;
mod late;
mod many_requests;
mod patterns;
mod replay;
mod requests;
mod topics;

use doorbell::operate::{Operator, Subscription};
use tokio_postgres::Client;

use crate::support::Database;

fn to(topic: &str, target: &str) -> Subscription {
    Subscription { topic: topic.into(), target: target.into(), ..Subscription::default() }
}

/// An operator, with these targets subscribed to `orders`.
async fn subscribed(db: &Database, targets: &[&str]) -> Operator {
    let operator = db.broker().await.operator();
    for target in targets {
        assert!(operator.subscribe(&to("orders", target)).await.unwrap());
    }
    operator
}

/// What a query of one text column says, joined.
async fn said(client: &Client, sql: &str) -> String {
    let rows = client.query(sql, &[]).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    rows.iter().map(|row| row.get::<_, Option<String>>(0).unwrap_or_default()).collect::<Vec<_>>().join(" ")
}
