//! The schema: its version, and whether somebody altered it behind the back of the migrations.

use super::{finding::Finding, session::Session};
use crate::{
    error::{Error, ErrorKind, Result},
    migrate::{self, Status},
};

pub(super) fn version(status: &Status) -> Finding {
    let wanted = migrate::MIGRATIONS.len();
    match (status.version, status.pending.as_slice()) {
        (version, []) => Finding::ok("schema", format!("schema version {version} is what this program wants")),
        (0, _) => Finding::problem("schema", "the schema is not there").fix("doorbell migrate"),
        (version, pending) => {
            Finding::problem("schema", format!("schema version {version}, this program wants {wanted}"))
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

/// What was recorded, and what is there: name and how they differ.
const COMPARE: &str = "select coalesce(r.kind, n.kind), coalesce(r.name, n.name), \
        case when n.hash is null then 'missing' when r.hash is null then 'added' else 'altered' end \
    from integration.fingerprints r full join ({now}) n using (kind, name) \
    where r.hash is distinct from n.hash and (r.server_major = {major} or r.hash is null or n.hash is null) \
    order by 1, 2";
const RECORDED: &str = "select count(*), min(server_major), {major} from integration.fingerprints";
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
    let (recorded, then, now): (i64, Option<i32>, i32) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    let mut findings = Vec::new();
    if recorded == 0 {
        findings.push(Finding::warning(
            "drift",
            "the schema was not recorded when it was made, so alterations cannot be seen",
        ));
        return Ok(findings);
    }
    if then.is_some_and(|then| then != now) {
        let what = format!("the schema was recorded on PostgreSQL {}, this is {now}", then.unwrap_or_default());
        let evidence = "each writes definitions in its own way: what is missing can be seen, what is altered cannot";
        findings.push(Finding::note("drift", what).evidence(evidence));
    }
    let level: String = session.row(AUDIT_LEVEL).await?.try_get(0)?;
    for row in session.rows(&filled(COMPARE)).await? {
        let (kind, name, how): (String, String, String) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        let by_level = match how.as_str() {
            "missing" => name == AUDIT_TRIGGERS[1] && level == "off",
            _ => name == AUDIT_TRIGGERS[2] && level == "all",
        };
        if !(kind == "trigger" && by_level) {
            findings.push(differs(&kind, &name, &how));
        }
    }
    for row in session.rows(SWITCHED_OFF).await? {
        let (kind, name, state): (String, String, String) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        findings.push(match (kind.as_str(), state.as_str()) {
            ("trigger", "D") => Finding::problem("drift", format!("trigger {name} is disabled"))
                .evidence(purpose(&name))
                .fix(format!("alter table integration.data_staging enable trigger {name}")),
            ("trigger", _) => Finding::warning("drift", format!("trigger {name} fires in replication only, or always"))
                .fix(format!("alter table integration.data_staging enable trigger {name}")),
            _ => Finding::problem("drift", format!("index {name} is not valid: an attempt to build it failed"))
                .fix(format!("reindex index concurrently integration.{name}")),
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
    sql.replace("{now}", migrate::FINGERPRINTS.trim_end()).replace("{major}", migrate::SERVER_MAJOR)
}

fn differs(kind: &str, name: &str, how: &str) -> Finding {
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
            .fix("select integration.set_audit_level('outcomes')"),
        _ => {
            let finding = Finding::problem("drift", what);
            let finding = match kind {
                "trigger" => finding.evidence(purpose(name.rsplit('.').next().unwrap_or(name))),
                _ => finding,
            };
            match original(kind, name) {
                Some(statement) => finding.fix(statement),
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
        "data_staging_changed" => "without it nothing is audited, and retries and redrives wait for the next sweep",
        "data_staging_hand_edit" => "without it an UPDATE by hand can break the rules of the table",
        "data_staging_deleted" => "without it deletions are not audited",
        _ => "a migration made it",
    }
}

/// The statement that made a trigger, an index or a function, from the migrations.
fn original(kind: &str, name: &str) -> Option<String> {
    let name = name.rsplit('.').next()?;
    let opening = match kind {
        "trigger" => format!("create trigger {name} "),
        "index" => format!("create index {name} "),
        // Overloads are told by their parameters, which the catalog writes in its own way.
        "function" => format!("create function integration.{}", &name[..=name.find('(')?]),
        _ => return None,
    };
    let mut found = migrate::MIGRATIONS.iter().flat_map(|migration| {
        migration.sql.match_indices(&opening).map(|(at, _)| statement(kind, &migration.sql[at..]))
    });
    let statement = found.next()?;
    // Which of several it was is for people to see.
    if found.next().is_some() {
        return None;
    }
    Some(match kind {
        "function" => statement.replacen("create function", "create or replace function", 1),
        "index" => statement.replacen("create index", "create index concurrently", 1),
        _ => statement,
    })
}

/// One statement from the beginning of a text.
fn statement(kind: &str, text: &str) -> String {
    let end = match kind {
        "function" => {
            let body = |opening: &str, ending: &str| {
                let start = text.find(opening)?;
                let end = text[start + opening.len()..].find(ending)?;
                Some((start, start + opening.len() + end + ending.len()))
            };
            let bodies = [body("as $$", "$$;"), body("begin atomic", "\n    end;"), body("\n    return ", ";\n")];
            // The kind of body that comes first is this function's.
            bodies.into_iter().flatten().min().map(|(_, end)| end)
        }
        _ => text.find(";\n").map(|end| end + 1),
    };
    text[..end.unwrap_or(text.len())].trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_statement_that_made_a_thing_is_found_whole() {
        let leaves = original("function", "step_down(p_name text)").expect("there is one");
        assert!(leaves.starts_with("create or replace function integration.step_down(p_name text)"), "{leaves}");
        assert!(
            leaves.ends_with("end;") && leaves.contains("leader = null") && !leaves.contains("retention"),
            "{leaves}"
        );
        let channel = original("function", "channel(p_target text)").expect("there is one");
        assert!(channel.ends_with("hashtextextended(p_target, 0));"), "{channel}");
        let park = original("function", "park(p_target text)").expect("there is one");
        assert!(park.ends_with("end $$;") && !park.contains("unpark"), "{park}");
        let trigger = original("trigger", "data_staging.data_staging_published").expect("there is one");
        assert!(trigger.ends_with("execute function integration.on_published();"), "{trigger}");
        assert_eq!(original("function", "complete(p_owner text, p_ids bigint[], p_attempts integer[])"), None);
    }
}
