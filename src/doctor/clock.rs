//! The clocks.

use std::time::{Duration, SystemTime};

use super::{finding::Finding, session::Session};
use crate::error::Result;

const APART: Duration = Duration::from_secs(2);
const SQL: &str = "select clock_timestamp(), extract(epoch from integration.clock() - clock_timestamp())::float8";

/// Compares this machine's clock with the server's: the only place that does. Nothing else in Doorbell cares.
#[expect(clippy::disallowed_methods, reason = "the two clocks are what is compared")]
pub(super) async fn check(session: &mut Session) -> Result<Vec<Finding>> {
    let before = SystemTime::now();
    let row = session.row(SQL).await?;
    let after = SystemTime::now();
    let server: SystemTime = row.try_get(0)?;
    let ours: f64 = row.try_get(1)?;
    let ahead = server.duration_since(after).unwrap_or_default();
    let behind = before.duration_since(server).unwrap_or_default();
    let apart = ahead.max(behind);
    let mut findings = vec![if apart < APART {
        Finding::ok("clock", format!("this machine's clock and the server's agree within {} s", APART.as_secs()))
    } else {
        let where_to = if behind > ahead { "behind" } else { "ahead of" };
        Finding::note("clock", format!("the server's clock is {:.1} s {where_to} this machine's", apart.as_secs_f64()))
            .evidence(
                "Doorbell uses the server's clock alone, so no message is early or late; times in logs will not agree",
            )
            .fix("synchronise both by NTP")
    }];
    if ours.abs() > 1.0 {
        findings.push(
            Finding::problem("clock", format!("integration.clock() is {ours:.0} s away from the server's clock"))
                .evidence("it was replaced, as tests do: messages are early or late by so much")
                .fix("see drift for its original"),
        );
    }
    Ok(findings)
}
