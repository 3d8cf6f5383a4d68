//! A publish and a claim, as this role would do them, in a transaction that is rolled back.

use super::{finding::Finding, session::Session};
use crate::{
    error::{Error, Result},
    schema::Schema,
};

/// What the role is meant to do; the examination of rights says what it lacks for that.
const MEANT: &str = "select has_column_privilege('integration.data_staging', 'data', 'insert'), \
    exists (select from pg_proc p where p.pronamespace = 'integration'::regnamespace and p.proname = 'claim' \
        and has_function_privilege(p.oid, 'execute')), current_user::text, pg_is_in_recovery()";

const PUBLISH: &str = "insert into integration.data_staging (source_app, target_app, record_type, data) \
    values ('doorbell doctor', $1, 'probe', 'null')";
const CLAIM: &str = "select id from integration.claim($1, 'doorbell doctor', 1, p_lease => interval '1 s')";

pub(super) async fn check(session: &mut Session) -> Result<Vec<Finding>> {
    let row = session.row(MEANT).await?;
    let (publishes, consumes, role): (bool, bool, String) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    // A standby is said to be one elsewhere.
    if row.try_get(3)? {
        return Ok(Vec::new());
    }
    let target = format!("doorbell doctor {:016x}", rand::random::<u64>());
    let mut statements = Vec::new();
    if publishes {
        statements.push(PUBLISH);
    }
    if consumes {
        statements.push(CLAIM);
    }
    let answers = session.tried(&statements, &target).await?;
    let doing = |at: usize| if statements[at] == PUBLISH { "publish" } else { "claim" };
    let mut found = 0;
    for (at, answer) in answers.into_iter().enumerate() {
        match answer {
            Ok(rows) => found = rows,
            Err(error) => return Ok(vec![refused(session.schema(), &role, doing(at), &error)]),
        }
    }
    if publishes && consumes && found == 0 {
        let what = "what this role published is not there to be claimed";
        return Ok(vec![
            Finding::problem("trial", what)
                .evidence("the INSERT succeeded, and a claim in the same transaction found nothing")
                .fix("look for a trigger or a policy of your own on data_staging that leaves rows out: see drift"),
        ]);
    }
    Ok(match (publishes, consumes) {
        (false, false) => Vec::new(),
        (true, false) => vec![Finding::ok("trial", "a publish was tried and taken back")],
        (false, true) => vec![Finding::ok("trial", "a claim was tried and taken back")],
        (true, true) => vec![Finding::ok("trial", "a publish and a claim were tried and taken back")],
    })
}

fn refused(schema: &Schema, role: &str, doing: &str, error: &Error) -> Finding {
    let fix = match error.sqlstate() {
        Some("23505") => schema.sql(super::sequence::SET).into_owned(),
        Some("42501") => "look at privileges and policies for what it lacks, or ask as another role".to_owned(),
        _ => {
            "look at what is yours on data_staging: a trigger, a check, a policy; and at the other findings".to_owned()
        }
    };
    Finding::problem("trial", format!("role {role} cannot {doing}: {error}"))
        .evidence("tried in a transaction that was rolled back")
        .fix(fix)
}
