//! The sequence that gives ids out, against the ids that are there.

use super::{finding::Finding, session::Session};
use crate::error::Result;

const SQL: &str = "select coalesce(max(d.id), 0), coalesce(pg_sequence_last_value('integration.data_staging_id_seq'), 0) \
    from integration.data_staging d";

/// Sets it right.
pub(super) const SET: &str =
    "select setval('integration.data_staging_id_seq', (select max(id) from integration.data_staging))";

/// Rows that were copied here with their ids, by hand or by logical replication, do not move the sequence.
pub(super) async fn check(session: &mut Session) -> Result<Vec<Finding>> {
    let row = session.row(SQL).await?;
    let (greatest, last): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
    if greatest <= last {
        return Ok(vec![Finding::ok("sequence", format!("the sequence of ids is at {last}, ahead of every message"))]);
    }
    let what = "the sequence of ids is behind the table: publishes fail until it has passed what is there";
    Ok(vec![
        Finding::problem("sequence", what)
            .evidence(format!(
                "it gave out {last} last, and there is a message {greatest}; rows were copied with their ids"
            ))
            .fix(session.schema().sql(SET)),
    ])
}
