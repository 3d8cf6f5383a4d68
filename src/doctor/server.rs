//! The server: its version, its role, its settings.

use super::{
    finding::{Finding, Level},
    session::{Session, identifier},
};
use crate::error::Result;

const SQL: &str = "select current_setting('server_version'), current_setting('server_version_num')::integer, \
    pg_is_in_recovery(), current_setting('fsync'), current_setting('full_page_writes'), \
    current_setting('synchronous_commit'), current_setting('session_replication_role'), \
    current_setting('default_transaction_read_only'), current_setting('autovacuum'), current_setting('track_counts'), \
    current_setting('max_connections')::integer, \
    (select count(*) from pg_stat_activity a where a.backend_type = 'client backend')::integer, \
    coalesce(current_setting('integration.notify', true), ''), current_user::text, current_database()::text, \
    current_setting('server_encoding')";
/// In what order text is, by the version of the collations that the database was made with, and that the system has now.
const ORDER: &str = "select d.datcollversion, pg_database_collation_actual_version(d.oid) from pg_database d \
    where d.datname = current_database()";
/// A body in plpgsql, which a session loads from the server's files when it first needs it.
const LOADS: &str = "do 'begin end'";

const VERSION_MIN: i32 = 150_000;
/// The minors of November 2025. Before them a listening session could stay connected and hear nothing any more.
const LISTEN_FIXED: [i32; 4] = [150_015, 160_011, 170_007, 180_001];
/// Share of max_connections in use that leaves no room for a deployment, in percent.
const CONNECTIONS_HIGH: i32 = 80;

/// A setting with a value at which something is wrong.
struct Setting {
    name: &'static str,
    well: &'static [&'static str],
    level: Level,
    why: &'static str,
    /// Whether it is the server's, and not one session's.
    system: bool,
}

impl Setting {
    const fn of_server(name: &'static str, why: &'static str) -> Self {
        Self { name, well: &["on"], level: Level::Problem, why, system: true }
    }

    const fn of_session(name: &'static str, well: &'static [&'static str], level: Level, why: &'static str) -> Self {
        Self { name, well, level, why, system: false }
    }

    fn finding(&self, value: &str) -> Finding {
        let name = self.name;
        let fix = match self.system {
            true => format!("alter system set {name} = on; select pg_reload_conf()"),
            false => "take it out of: alter role … set, alter database … set, the connection string, postgresql.conf"
                .to_owned(),
        };
        Finding::new("settings", self.level, format!("{name} is {value}: {}", self.why)).fix(fix)
    }
}

/// By the column of the query.
const SETTINGS: [(usize, Setting); 7] = [
    (3, Setting::of_server("fsync", "a crash of the machine destroys the database")),
    (4, Setting::of_server("full_page_writes", "a crash of the machine can destroy pages")),
    (8, Setting::of_server("autovacuum", "the tables grow without end and claims become slow")),
    (9, Setting::of_server("track_counts", "autovacuum does not know when to run")),
    (6, {
        let why = "no trigger fires: no bell, no audit, no guard";
        Setting::of_session("session_replication_role", &["origin"], Level::Problem, why)
    }),
    (7, {
        let why = "nothing can be published or claimed";
        Setting::of_session("default_transaction_read_only", &["off"], Level::Problem, why)
    }),
    (
        12,
        Setting::of_session("integration.notify", &["", "on"], Level::Note, "publishers with this setting never ring"),
    ),
];

pub(super) async fn check(session: &mut Session) -> Result<Vec<Finding>> {
    let row = session.row(SQL).await?;
    let text = |at: usize| row.try_get::<_, String>(at);
    let number: i32 = row.try_get(1)?;
    let mut findings = vec![version(&text(0)?, number, &text(13)?, &text(14)?)];
    if row.try_get(2)? {
        findings
            .push(Finding::problem("server", "this server is a standby: nothing can be published or claimed here").fix(
            "connect to the primary; with several hosts in the connection string, add target_session_attrs=read-write",
        ));
    }
    for (at, setting) in SETTINGS {
        if !setting.well.contains(&text(at)?.as_str()) {
            findings.push(setting.finding(&text(at)?));
        }
    }
    findings.extend(encoding(&text(15)?));
    findings.extend(order(session).await?);
    findings.extend(session.says(LOADS).await?.as_deref().and_then(replaced));
    let synchronous_commit = text(5)?;
    if synchronous_commit == "off" {
        let what = "synchronous_commit is off: a crash of the server may lose messages whose publish was acknowledged";
        findings.push(
            Finding::warning("settings", what)
                .evidence("claims go without it by themselves; publishes and settles should not")
                .fix(format!("alter database {} set synchronous_commit = on", identifier(&text(14)?))),
        );
    }
    let (most, used): (i32, i32) = (row.try_get(10)?, row.try_get(11)?);
    let level = if used * 100 >= most * CONNECTIONS_HIGH { Level::Warning } else { Level::Ok };
    let connections = Finding::new("connections", level, format!("{used} of {most} connections are in use"));
    findings.push(match level {
        Level::Ok => connections,
        _ => connections
            .fix("lower connections_max of the processes, put publishers behind a pooler, or raise max_connections"),
    });
    Ok(findings)
}

fn encoding(encoding: &str) -> Option<Finding> {
    let what = format!("the database is encoded in {encoding}: Doorbell needs UTF8");
    (encoding != "UTF8").then(|| {
        Finding::problem("server", what).evidence("it cannot hold every text that a message may be").fix(
            "make another database, create database … encoding 'UTF8' template template0, and move what is in this one",
        )
    })
}

/// After an upgrade of the system's C library or ICU: indexes were built in an order that is not the present one.
async fn order(session: &mut Session) -> Result<Option<Finding>> {
    let row = session.row(ORDER).await?;
    let (made, now): (Option<String>, Option<String>) = (row.try_get(0)?, row.try_get(1)?);
    let (Some(made), Some(now)) = (made, now) else { return Ok(None) };
    if made == now {
        return Ok(None);
    }
    let what = "the order of text has changed since the database was made: indexes on text may not find what is there";
    let database: String = session.row("select current_database()::text").await?.try_get(0)?;
    let database = identifier(&database);
    Ok(Some(
        Finding::warning("server", what)
            .evidence(format!(
                "collations of version {made} then, {now} now. Names and keys of Doorbell are in the order of their bytes, which \
                 no upgrade changes; your own tables may not be"
            ))
            .fix(format!(
                "when nobody uses it: reindex database {database}; alter database {database} refresh collation version"
            )),
    ))
}

/// What a server says whose files a package manager has replaced while it runs.
fn replaced(said: &str) -> Option<Finding> {
    let is_so =
        ["could not load library", "incompatible library", "could not find function"].iter().any(|s| said.contains(s));
    is_so.then(|| {
        Finding::problem("server", "new sessions cannot load the server's own libraries: its files were replaced")
            .evidence(said)
            .fix("restart the server: it runs an older version than the one installed")
    })
}

fn version(version: &str, number: i32, role: &str, database: &str) -> Finding {
    let what = format!("PostgreSQL {version}, database {database}, role {role}");
    if number < VERSION_MIN {
        return Finding::problem("server", format!("{what}: too old, Doorbell needs 15 or newer"))
            .fix("upgrade the server");
    }
    let deaf = LISTEN_FIXED.iter().any(|fixed| number / 10_000 == fixed / 10_000 && number < *fixed);
    if deaf {
        return Finding::warning("server", format!("{what}: a listener can go deaf on this minor version"))
            .evidence("fixed in 15.15, 16.11, 17.7, 18.1 (November 2025); Doorbell notices within ten seconds and connects anew")
            .fix("install the newest minor version and restart");
    }
    Finding::ok("server", what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_servers_are_named_and_new_ones_are_well() {
        let level = |number| version("x", number, "app", "app").level;
        assert_eq!(level(140_020), Level::Problem);
        assert_eq!((level(150_014), level(150_015), level(160_010)), (Level::Warning, Level::Ok, Level::Warning));
        assert_eq!((level(180_000), level(180_001), level(190_000)), (Level::Warning, Level::Ok, Level::Ok));
    }
}
