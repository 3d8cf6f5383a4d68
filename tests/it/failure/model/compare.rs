//! The rows and their audit in the database, beside those of the model. What stands behind others of its key is pending.

use std::collections::BTreeMap;

use super::Lab;

impl Lab {
    /// Where the database and the model disagree, one line each.
    pub(super) async fn differences(&self) -> String {
        const ROWS: &str = "
            select d.id, d.target_app, case when d.behind_at is null then d.status else 'pending' end, d.priority, d.attempt, d.owner, d.retry_count, d.crash_count, d.redrive_count,
                   d.max_retries, extract(epoch from d.created_at - z.t)::float8 * 1000, extract(epoch from case when d.behind_at is null then d.available_at end - z.t)::float8 * 1000,
                   extract(epoch from d.lease_until - z.t)::float8 * 1000, d.processed_at is not null, a.n, a.last
              from integration.data_staging d
             cross join (select '2030-01-01 00:00:00 UTC'::timestamptz as t) z
              left join (select staging_id, count(*) as n, (array_agg(action order by id desc))[1] as last
                           from integration.audit_log where action <> 'edited' group by staging_id) a on a.staging_id = d.id";
        let ms = |time: Option<f64>| time.map(|ms| ms.round() as i64);
        let mut there = BTreeMap::new();
        for row in self.client.query(ROWS, &[]).await.unwrap() {
            let last: Option<String> = row.get(15);
            there.insert(
                row.get::<_, i64>(0),
                format!(
                    "{:?}",
                    (
                        (row.get::<_, String>(1), row.get::<_, String>(2), row.get::<_, i32>(3), row.get::<_, i32>(4)),
                        (
                            row.get::<_, Option<String>>(5),
                            row.get::<_, i32>(6),
                            row.get::<_, i32>(7),
                            row.get::<_, i32>(8)
                        ),
                        (row.get::<_, Option<i32>>(9), ms(row.get(10)).unwrap_or(-1), ms(row.get(11)), ms(row.get(12))),
                        (row.get::<_, bool>(13), row.get::<_, Option<i64>>(14).unwrap_or(0), last.unwrap_or_default()),
                    )
                ),
            );
        }
        let mut lines = String::new();
        for (id, row) in &self.model.rows {
            let expected = format!(
                "{:?}",
                (
                    (row.target, &row.status, row.priority, row.attempt),
                    (&row.owner, row.retry_count, row.crash_count, row.redrive_count),
                    (row.max_retries, row.created_at, row.available_at, row.lease_until),
                    (row.is_processed, row.events, row.last_event),
                )
            );
            match there.remove(id) {
                Some(actual) if actual == expected => {}
                actual => lines += &format!("message {id}\n  is        {actual:?}\n  should be {expected:?}\n"),
            }
        }
        for (id, actual) in there {
            lines += &format!("message {id} should not be: {actual}\n");
        }
        lines
    }
}
