//! What the connected role may do.

use std::collections::BTreeMap;

use super::{
    finding::Finding,
    session::{Session, identifier},
};
use crate::error::Result;

/// The rights that a verb needs; the first one tells that a role is meant to use it.
const NEEDED: [(&str, &str, &str); 23] = [
    ("publish", "data_staging", "insert"),
    ("publish", "data_staging", "select (id)"),
    ("publish", "data_staging_id_seq", "usage"),
    ("consume", "data_staging", "update"),
    ("consume", "data_staging", "select"),
    ("consume", "breakers", "select"),
    ("consume", "breakers", "insert"),
    ("consume", "breakers", "update"),
    ("consume", "processes", "select"),
    ("consume", "processes", "insert"),
    ("consume", "processes", "update"),
    ("consume", "processes", "delete"),
    ("consume", "settings", "select"),
    ("consume", "targets", "select"),
    ("consume", "retry_policies", "select"),
    ("consume", "migrations", "select"),
    ("consume", "places", "select"),
    ("consume", "places", "insert"),
    ("consume", "places", "update"),
    ("consume", "audit_log", "insert"),
    ("operate", "targets", "insert"),
    ("operate", "targets", "update"),
    ("operate", "audit_log", "insert"),
];

const ROLE: &str = "select current_user::text, has_schema_privilege('integration', 'usage'), \
    pg_has_role(n.nspowner, 'usage') from pg_namespace n where n.nspname = 'integration'";

pub(super) async fn check(session: &mut Session) -> Result<Vec<Finding>> {
    let row = session.row(ROLE).await?;
    let (role, usage, owner): (String, bool, bool) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    if !usage {
        return Ok(vec![Finding::problem("privileges", format!("role {role} may not even look into the schema")).fix(
            format!(
                "grant usage on schema integration to {}; and the rights of a publisher or consumer, see docs/deploy.md, Roles",
                identifier(&role)
            ),
        )]);
    }
    // By oid: names would need the right to use the schema for each.
    let wanted: Vec<String> = NEEDED
        .iter()
        .enumerate()
        .map(|(at, (_, object, right))| format!("({at}, '{object}', '{}')", right.trim_end_matches(" (id)")))
        .collect();
    let sql = format!(
        "select w.at from (values {}) w (at, object, want) join pg_class c on c.relname = w.object \
         and c.relnamespace = 'integration'::regnamespace \
         where case when c.relkind = 'S' then not has_sequence_privilege(c.oid, w.want) \
                    when w.at = 1 then not has_column_privilege(c.oid, 'id', 'select') \
                    else not has_table_privilege(c.oid, w.want) end order by w.at",
        wanted.join(", ")
    );
    let mut missing = Vec::new();
    for row in session.rows(&sql).await? {
        missing.push(row.try_get::<_, i32>(0)? as usize);
    }
    Ok(verdict(&role, owner, &missing))
}

fn verdict(role: &str, owner: bool, missing: &[usize]) -> Vec<Finding> {
    let mut verbs: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    let mut meant: BTreeMap<&str, bool> = BTreeMap::new();
    for (at, (verb, ..)) in NEEDED.iter().enumerate() {
        meant.entry(verb).or_insert(!missing.contains(&at));
        verbs.entry(verb).or_default().extend(missing.contains(&at).then_some(at));
    }
    let may: Vec<&str> = ["publish", "consume", "operate"].into_iter().filter(|verb| verbs[verb].is_empty()).collect();
    let mut findings = Vec::new();
    for (verb, lacks) in verbs.iter().filter(|(verb, lacks)| meant[*verb] && !lacks.is_empty()) {
        let named = |at: &usize| format!("{} on {}", NEEDED[*at].2, NEEDED[*at].1);
        let grants: Vec<String> = lacks.iter().map(|at| grant(role, NEEDED[*at])).collect();
        findings.push(
            Finding::problem("privileges", format!("role {role} has some of the rights to {verb}, and lacks others"))
                .evidence(format!("it lacks {}", lacks.iter().map(named).collect::<Vec<_>>().join(", ")))
                .fix(grants.join("; ")),
        );
    }
    if !findings.is_empty() {
        return findings;
    }
    vec![match may.as_slice() {
        [] => Finding::problem("privileges", format!("role {role} may neither publish nor consume"))
            .fix("grant it the rights of a publisher or a consumer, see docs/deploy.md, Roles"),
        may => Finding::ok(
            "privileges",
            format!("role {role} may {}{}", may.join(", "), if owner { ", and owns the schema" } else { "" }),
        ),
    }]
}

fn grant(role: &str, (_, object, right): (&str, &str, &str)) -> String {
    let kind = if object.ends_with("_seq") { "sequence " } else { "" };
    format!("grant {right} on {kind}integration.{object} to {}", identifier(role))
}
