//! One message that cannot be changed, one locked row, one failed step: nothing else stops.

mod deadlines;
mod history;
mod locked;
mod refused;
mod settling;
mod upkeep;

use tokio_postgres::Client;

use crate::support::count;

/// New rows are checked, and old ones cannot be updated any more.
const REFUSE: &str = "alter table integration.data_staging add constraint has_tenant check (data ? 'tenant') not valid";
const MEND: &str = "alter table integration.data_staging drop constraint has_tenant; select integration.look_again()";

/// The same ones stay as they are, and nobody is told.
const LEAVE_OUT: &str = "create or replace function leave_out() returns trigger language plpgsql as $$ begin \
        return case when new.data ? 'tenant' then new end; end $$; \
    create trigger leave_out before update on integration.data_staging for each row execute function leave_out()";

const LEFT_IN: &str = "drop trigger leave_out on integration.data_staging; select integration.look_again()";

/// One message that [`REFUSE`] concerns, which gets the lowest id, and so many that it does not.
async fn one_bad_among(client: &Client, target: &str, good: i32) -> i64 {
    let sql = "with bad as (insert into integration.data_staging (source_app, target_app, record_type, data) \
            values ('shop', $1, 'n', '{\"a\": 1}') returning id), \
        good as (insert into integration.data_staging (source_app, target_app, record_type, data) \
            select 'shop', $1, 'n', '{\"tenant\": 1}' from bad, generate_series(1, $2) returning 1) \
        select id from bad, (select count(*) from good) g";
    client.query_one(sql, &[&target, &good]).await.unwrap().get(0)
}

/// Under which verb and SQLSTATE a message is set aside.
async fn aside(client: &Client, id: i64) -> (String, String) {
    let sql = "select verb, sqlstate from integration.set_aside_now where id = $1";
    let row = client.query_one(sql, &[&id]).await.unwrap();
    (row.get(0), row.get(1))
}

fn as_refused(verb: &str) -> (String, String) {
    (verb.to_owned(), "23514".to_owned())
}

async fn with_status(client: &Client, target: &str, status: &str) -> i64 {
    let sql =
        format!("select count(*) from integration.data_staging where target_app = '{target}' and status = '{status}'");
    count(client, &sql).await
}
