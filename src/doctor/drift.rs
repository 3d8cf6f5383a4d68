//! The schema: its version, and whether somebody altered it behind the back of the migrations.

use super::{finding::Finding, session::Session};
use crate::{
    error::{Error, ErrorKind, Result},
    migrate::{self, Status},
    schema::Schema,
};

pub(super) fn version(status: &Status) -> Finding {
    let wanted = migrate::STEPS.len();
    match (status.version, status.pending.as_slice()) {
        (version, []) => Finding::ok("schema", format!("schema version {version} is what this program wants")),
        (0, _) => Finding::problem("schema", "the schema is not there").fix("doorbell migrate"),
        (version, pending) => {
            Finding::problem("schema", format!("schema version {version} is not this program's, {wanted}"))
                .evidence(format!("not applied: {}", pending.join(", ")))
                .fix("doorbell migrate")
        }
    }
}

pub(super) fn refused(error: &Error) -> Finding {
    let finding = Finding::problem("schema", error.to_string());
    match error.kind() {
        ErrorKind::Schema => finding.fix("run the doorbell that made this schema, or a newer one"),
        _ => finding,
    }
}

/// What was recorded, and what is there: name and how they differ. What a server of another version wrote cannot be compared.
const COMPARE: &str = "select coalesce(r.kind, n.kind), coalesce(r.name, n.name), \
        case when n.hash is null then 'missing' when r.hash is null then 'added' else 'altered' end \
    from integration.fingerprints r full join ({now}) n using (kind, name) \
    where r.hash is distinct from n.hash \
      and (r.server = {server} or not r.deparsed or r.hash is null or n.hash is null) \
    order by 1, 2";
const RECORDED: &str = "select count(*), coalesce(min(server), 0), {server} from integration.fingerprints";
/// Triggers that do not fire, indexes that cannot be used.
const SWITCHED_OFF: &str = "select 'trigger', t.tgname::text, t.tgenabled::text from pg_trigger t \
     where t.tgrelid in (select c.oid from pg_class c where c.relnamespace = 'integration'::regnamespace) \
       and not t.tgisinternal and t.tgenabled <> 'O' \
    union all \
    select 'index', c.relname::text, '' from pg_index i join pg_class c on c.oid = i.indexrelid \
     where c.relnamespace = 'integration'::regnamespace and not (i.indisvalid and i.indisready) order by 1, 2";
const AUDIT_LEVEL: &str = "select coalesce((select substring(pg_get_triggerdef(t.oid) from '''(all|outcomes|off)''') \
    from pg_trigger t where t.tgrelid = 'integration.data_staging'::regclass and t.tgname = 'data_staging_changed'), 'none')";

/// These come and go with the audit level.
const AUDIT_TRIGGERS: [&str; 3] = [
    "data_staging.data_staging_changed",
    "data_staging.data_staging_deleted",
    "data_staging.data_staging_audit_published",
];

pub(super) async fn check(session: &mut Session) -> Result<Vec<Finding>> {
    let row = session.row(&filled(RECORDED)).await?;
    let (recorded, then, now): (i64, i32, i32) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    let mut findings = Vec::new();
    if recorded == 0 {
        findings.push(Finding::warning(
            "drift",
            "the schema was not recorded when it was made, so alterations cannot be seen",
        ));
        return Ok(findings);
    }
    // The next migrate of the owner records anew what another version wrote, so a minor one is not worth a word.
    if then / 10_000 != now / 10_000 {
        let what = format!("the schema was recorded on PostgreSQL {}, this is {}", then / 10_000, now / 10_000);
        let evidence = "each writes definitions in its own way: of tables and views it can be seen what is missing, not \
            what is altered";
        findings.push(Finding::note("drift", what).evidence(evidence).fix("doorbell migrate"));
    }
    let level: String = session.row(AUDIT_LEVEL).await?.try_get(0)?;
    for row in session.rows(&filled(COMPARE)).await? {
        let (kind, name, how): (String, String, String) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        let by_level = match how.as_str() {
            "missing" => name == AUDIT_TRIGGERS[1] && level == "off",
            _ => name == AUDIT_TRIGGERS[2] && level == "all",
        };
        if !(kind == "trigger" && by_level) {
            findings.push(differs(session.schema(), &kind, &name, &how));
        }
    }
    for row in session.rows(SWITCHED_OFF).await? {
        let (kind, name, state): (String, String, String) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        let schema = session.schema();
        findings.push(match (kind.as_str(), state.as_str()) {
            ("trigger", "D") => Finding::problem("drift", format!("trigger {name} is disabled"))
                .evidence(purpose(&name))
                .fix(format!("alter table {schema}.data_staging enable trigger {name}")),
            ("trigger", _) => Finding::warning("drift", format!("trigger {name} fires in replication only, or always"))
                .fix(format!("alter table {schema}.data_staging enable trigger {name}")),
            _ => Finding::problem("drift", format!("index {name} is not valid: an attempt to build it failed"))
                .fix(format!("reindex index concurrently {schema}.{name}")),
        });
    }
    if findings.is_empty() {
        findings.push(Finding::ok(
            "drift",
            format!("all {recorded} parts of the schema are as the migrations made them (audit level {level})"),
        ));
    }
    Ok(findings)
}

fn filled(sql: &str) -> String {
    sql.replace("{now}", migrate::FINGERPRINTS.trim_end()).replace("{server}", migrate::SERVER)
}

fn differs(schema: &Schema, kind: &str, name: &str, how: &str) -> Finding {
    let what = format!("{kind} {name} is {how}");
    match (kind, how) {
        (_, "added") => Finding::note("drift", format!("{what}: it is not Doorbell's")).evidence(match kind {
            "index" => "each index costs time and WAL for every message",
            "trigger" => "a trigger runs inside every publish, claim or settle, and what fails in it fails them",
            _ => "migrations leave it alone",
        }),
        ("settings", _) => Finding::note("drift", format!("the storage settings of {name} are not the migrations'"))
            .evidence("fine where it was meant; autovacuum of a queue table must stay frequent"),
        ("trigger", _) if AUDIT_TRIGGERS.contains(&name) => Finding::problem("drift", what)
            .evidence(purpose(name.rsplit('.').next().unwrap_or(name)))
            .fix(schema.sql("select integration.set_audit_level('outcomes')")),
        _ => {
            let finding = Finding::problem("drift", what);
            let finding = match kind {
                "trigger" => finding.evidence(purpose(name.rsplit('.').next().unwrap_or(name))),
                _ => finding,
            };
            match original(kind, name) {
                Some(statement) => finding.fix(schema.sql(&statement)),
                None => finding.fix("look it up in `doorbell migrate --sql` and make it so again"),
            }
        }
    }
}

fn purpose(trigger: &str) -> &'static str {
    match trigger {
        "data_staging_published" => {
            "without it no bell rings and no dedup key counts: messages wait for the next sweep"
        }
        "data_staging_changed" => {
            "without it nothing is audited or counted, an UPDATE by hand can break the rules of the table, and retries and \
             redrives wait for the next sweep"
        }
        "data_staging_rewritten" => "without it nobody learns that a payload was changed",
        "data_staging_deleted" => "without it deletions are not audited",
        _ => "a migration made it",
    }
}

/// The statement that makes a part as it is in force: of the code, or of the steps.
fn original(kind: &str, name: &str) -> Option<String> {
    let kind = match kind {
        "parameters" => "function",
        kind => kind,
    };
    let code = migrate::parts().into_iter().find(|part| part.kind.name() == kind && part.name == name);
    code.map(|part| format!("{};", part.text)).or_else(|| match kind {
        "index" => index(name),
        _ => None,
    })
}

/// The statement that made an index.
fn index(name: &str) -> Option<String> {
    let opening = format!("create index {name} ");
    let mut found = migrate::STEPS.iter().rev().filter_map(|(_, sql)| {
        let text = &sql[sql.find(&opening)?..];
        Some(text[..text.find(";\n").map_or(text.len(), |end| end + 1)].to_owned())
    });
    Some(found.next()?.replacen("create index", "create index concurrently", 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_statement_in_force_is_found_whole() {
        let leaves = original("function", "step_down(text)").expect("there is one");
        assert!(leaves.starts_with("create or replace function integration.step_down(p_name text)"), "{leaves}");
        assert!(leaves.ends_with("$$;") && leaves.contains("leader = null") && !leaves.contains("note_"), "{leaves}");
        let one = original("function", "complete(bigint,integer,text,timestamp with time zone)")
            .expect("overloads are told apart");
        assert!(one.contains("raise_lease_lost") && !one.contains("complete_out"), "{one}");
        let trigger = original("trigger", "data_staging.data_staging_published").expect("there is one");
        assert!(trigger.ends_with("execute function integration.on_published();"), "{trigger}");
        let index = original("index", "data_staging_ready").expect("there is one");
        assert!(index.starts_with("create index concurrently") && index.ends_with("status = 'pending';"), "{index}");
        assert_eq!(original("index", "somebody_elses"), None);
    }
}
