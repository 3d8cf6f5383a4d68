//! Row level security: what hides messages from roles without a word.

use super::{
    finding::{Finding, Level},
    session::Session,
};
use crate::error::Result;

const SQL: &str = "select c.relname::text, row_security_active(c.oid), c.relforcerowsecurity, current_user::text \
    from pg_class c where c.relnamespace = 'integration'::regnamespace and c.relrowsecurity order by 1";

pub(super) async fn check(session: &mut Session) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for row in session.rows(SQL).await? {
        let (table, active, forced, role): (String, bool, bool, String) =
            (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?);
        let (level, what) = match (forced, active) {
            (true, _) => (Level::Problem, format!("row level security of {table} is forced on its owner, too")),
            (_, true) => (Level::Warning, format!("row level security keeps rows of {table} from role {role}")),
            _ => (Level::Note, format!("row level security is on for {table}; not for this role")),
        };
        let evidence = match forced {
            true => "our functions run as the owner: what they may not see is not claimed, counted or cleaned up",
            false => "lists, counts and explain see what a policy lets through, and nothing tells that there is more",
        };
        let finding = Finding::new("policies", level, what).evidence(evidence);
        findings.push(match forced {
            true => finding
                .fix(session.schema().sql(&format!("alter table integration.{table} no force row level security"))),
            false if active => {
                finding.fix("ask as a role that may see all rows, or give this one a policy that lets it")
            }
            false => finding,
        });
    }
    Ok(findings)
}
