//! The counters, compared with the table: a copy by logical replication, or a restore without triggers, leaves them behind.

use super::{finding::Finding, session::Session};
use crate::error::Result;

/// How large the table is: a comparison reads all of it.
const SIZE: &str = "select pg_table_size('integration.data_staging')";
const SIZE_MAX: i64 = 1 << 30;
const WRONG: &str = "select count(*), coalesce(string_agg(format('%s %s: counted %s, there are %s', \
        c.target_app, c.status, c.counted, c.messages), '; ' order by c.target_app, c.status) filter (where c.n <= 5), '') \
    from (select w.*, row_number() over (order by w.target_app, w.status) as n from integration.check_counters() w) c";

const RECOUNT: &str = "select integration.recount()";

pub(super) async fn check(session: &mut Session) -> Result<Vec<Finding>> {
    let bytes: i64 = session.row(SIZE).await?.try_get(0)?;
    if bytes > SIZE_MAX {
        let look = session.schema().sql("select * from integration.check_counters()").into_owned();
        let what = "the counters are not compared here: that reads all of a large table";
        return Ok(vec![Finding::note("counters", what).evidence("maintenance does it once a day").fix(look)]);
    }
    let row = session.row(WRONG).await?;
    let (wrong, which): (i64, String) = (row.try_get(0)?, row.try_get(1)?);
    Ok(vec![match wrong {
        0 => Finding::ok("counters", "the counters say what is in the table"),
        _ => Finding::problem("counters", format!("{wrong} counters do not say what is in the table"))
            .evidence(format!("{which}; rows came or went while the triggers were off, as in a copy or a restore"))
            .fix(session.schema().sql(RECOUNT)),
    }])
}
