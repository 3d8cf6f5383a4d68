//! What the connected role may do.

use super::{finding::Finding, session::Session};
use crate::{error::Result, rows::Verb, schema::Schema};

/// The right that tells that a role is meant to have a verb. Everybody may ask for it, also who may call no function.
fn meant(verb: Verb) -> &'static str {
    match verb {
        Verb::Publish => "select has_table_privilege('integration.data_staging', 'insert')",
        Verb::Consume => "select has_table_privilege('integration.data_staging', 'update')",
        Verb::Operate => "select has_table_privilege('integration.targets', 'update')",
        Verb::Look => "select has_table_privilege('integration.audit_log', 'select')",
    }
}

const ROLE: &str = "select current_user::text, has_schema_privilege('integration', 'usage'), \
    pg_has_role(n.nspowner, 'usage') from pg_namespace n where n.nspname = 'integration'";
/// What it may do for some applications only.
const OWN: &str = "select app, verbs, publish_to from integration.own_rights()";
const MAY_ASK: &str = "select has_function_privilege('integration.lacks(text)', 'execute')";

/// How a role stands to a verb.
struct Standing {
    verb: &'static str,
    is_meant: bool,
    /// Rights that belong to the verb and that the role has not; null: it may not even ask.
    lacks: Option<Vec<String>>,
}

pub(super) async fn check(session: &mut Session) -> Result<Vec<Finding>> {
    let row = session.row(ROLE).await?;
    let (role, usage, owner): (String, bool, bool) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    if !usage {
        return Ok(vec![
            Finding::problem("privileges", format!("role {role} may not even look into the schema"))
                .fix(grants(session.schema(), &role)),
        ]);
    }
    let may_ask: bool = session.row(MAY_ASK).await?.try_get(0)?;
    let mut standings = Vec::new();
    for verb in Verb::ALL {
        let is_meant = session.row(meant(verb)).await?.try_get(0)?;
        let verb = verb.as_str();
        let mut lacks = may_ask.then(Vec::new);
        if let Some(lacks) = &mut lacks {
            for row in session.rows(&format!("select object, want from integration.lacks('{verb}')")).await? {
                lacks.push(format!("{} on {}", row.try_get::<_, String>(1)?, row.try_get::<_, String>(0)?));
            }
        }
        standings.push(Standing { verb, is_meant, lacks });
    }
    let mut apps = Vec::new();
    if may_ask {
        for row in session.rows(OWN).await? {
            let (app, verbs, to): (String, Vec<String>, Option<Vec<String>>) =
                (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
            let to = to.map_or_else(String::new, |to| format!(" to {}", to.join(" and ")));
            apps.extend(verbs.iter().map(|verb| match verb.as_str() {
                "publish" => format!("publish as {app}{to}"),
                verb => format!("{verb} for {app}"),
            }));
        }
    }
    Ok(verdict(session.schema(), &role, owner, &standings, &apps))
}

fn verdict(schema: &Schema, role: &str, owner: bool, standings: &[Standing], apps: &[String]) -> Vec<Finding> {
    let may = |standing: &&Standing| standing.lacks.as_ref().is_some_and(Vec::is_empty);
    let mut may: Vec<&str> = standings.iter().filter(may).map(|standing| standing.verb).collect();
    let apps = if owner { &[] } else { apps };
    // Who operates looks.
    let operates = |verb: &str| standings.iter().any(|standing| standing.verb == verb && standing.is_meant);
    let mut findings = Vec::new();
    for standing in standings.iter().filter(|standing| standing.is_meant && !may.contains(&standing.verb)) {
        let verb = standing.verb;
        if verb == "look" && operates("operate") {
            continue;
        }
        let what = format!("role {role} has some of the rights to {verb}, and lacks others");
        let lacks = standing.lacks.as_ref().map_or("nearly all".to_owned(), |lacks| lacks.join(", "));
        findings.push(
            Finding::problem("privileges", what).evidence(format!("it lacks {lacks}")).fix(grant(schema, role, verb)),
        );
    }
    if !findings.is_empty() {
        return findings;
    }
    if may.contains(&"operate") {
        may.retain(|verb| *verb != "look");
    }
    may.extend(apps.iter().map(String::as_str));
    vec![match may.as_slice() {
        [] => Finding::problem("privileges", format!("role {role} may neither publish nor consume"))
            .fix(grants(schema, role)),
        may => Finding::ok(
            "privileges",
            format!("role {role} may {}{}", may.join(", "), if owner { ", and owns the schema" } else { "" }),
        ),
    }]
}

fn grants(schema: &Schema, role: &str) -> String {
    format!(
        "as the owner of the schema, {}; or 'consume', 'look', 'operate'; for one application, see {schema}.grant_app",
        grant(schema, role, "publish")
    )
}

fn grant(schema: &Schema, role: &str, verb: &str) -> String {
    format!("select {schema}.grant_to('{}', '{verb}')", role.replace('\'', "''"))
}
