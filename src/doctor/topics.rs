//! Topics: what nobody gets, and who waits for what he will not get.

use super::{finding::Finding, session::Session};
use crate::{error::Result, written::shell::quoted};

const SQL: &str = "select t.target_app, \
        (select count(*) from integration.subscriptions s where s.topic = t.target_app), \
        (select coalesce(sum(o.messages), 0)::bigint from integration.current_traffic o where o.target_app = t.target_app \
            and o.action = 'unrouted' and o.minute > integration.clock() - interval '1 day'), \
        (select count(*) from integration.processes c where c.lease_until > integration.clock() and c.targets ? t.target_app) \
    from integration.targets t where t.kind = 'topic' order by 1";

const BEHIND: &str = "select s.topic, s.target_app, s.copied_id is null from integration.subscriptions s \
    where s.caught_up_at is null and s.created_at < integration.clock() - interval '10 min' order by 1, 2";

pub(super) async fn check(session: &mut Session) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    let mut topics = 0;
    for row in session.rows(SQL).await? {
        let topic: String = row.try_get(0)?;
        let (subscribers, unrouted, processes): (i64, i64, i64) = (row.try_get(1)?, row.try_get(2)?, row.try_get(3)?);
        topics += 1;
        if subscribers == 0 || unrouted > 0 {
            let what = match subscribers {
                0 => format!("nobody is subscribed to the topic {topic}"),
                _ => format!("messages of the topic {topic} are of record types that nobody is subscribed to"),
            };
            findings.push(
                Finding::warning("topics", what)
                    .evidence(format!("{unrouted} messages of the last day reached nobody; they are kept as completed"))
                    .fix(format!(
                        "doorbell subscribe {} TARGET --since 1d; or refuse such messages: doorbell target set {0} unrouted=reject",
                        quoted(&topic)
                    )),
            );
        }
        if processes > 0 {
            findings.push(
                Finding::warning("topics", format!("{processes} processes consume {topic}, which is a topic"))
                    .evidence("its messages are handed to its subscribers when they are published; nothing is left to consume")
                    .fix(format!("consume a target that is subscribed to it: doorbell subscribe {} TARGET", quoted(&topic))),
            );
        }
    }
    for row in session.rows(BEHIND).await? {
        let (topic, target, waits): (String, String, bool) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        let evidence = match waits {
            true => "it waits for transactions that ran when it subscribed, or nobody does the maintenance",
            false => "its history is being copied",
        };
        findings.push(
            Finding::note("topics", format!("{target} has not caught up with the topic {topic} yet"))
                .evidence(evidence),
        );
    }
    if findings.is_empty() && topics > 0 {
        findings.push(Finding::ok("topics", format!("each of {topics} topics has subscribers")));
    }
    Ok(findings)
}
