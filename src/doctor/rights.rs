//! Who else may do what: the owner of the schema, what was granted, and what should not have been.

use super::{
    finding::Finding,
    session::{Session, identifier},
};
use crate::error::Result;

const OWNER: &str = "select r.rolname::text, r.rolsuper, r.rolcanlogin, \
        array(select o.nspname::text from pg_namespace o where o.nspowner = r.oid and o.oid <> n.oid \
            and o.nspname !~ '^pg_' and o.nspname not in ('public', 'information_schema') order by 1), \
        array(select m.rolname::text from pg_roles m where m.oid <> r.oid and not m.rolsuper \
            and pg_has_role(m.oid, r.oid, 'usage') order by 1) \
    from pg_namespace n join pg_roles r on r.oid = n.nspowner where n.nspname = 'integration'";

/// What belongs to somebody else: he can replace what runs in everybody's publishes.
const FOREIGN: &str = "select string_agg(o.name || ' (' || pg_get_userbyid(o.owner) || ')', ', ' order by o.name) from ( \
        select c.oid::regclass::text, c.relowner from pg_class c \
         where c.relnamespace = 'integration'::regnamespace and c.relkind in ('r', 'p', 'v', 'm', 'f', 'S') \
        union all \
        select p.oid::regprocedure::text, p.proowner from pg_proc p where p.pronamespace = 'integration'::regnamespace) \
        o (name, owner) \
    where o.owner <> (select n.nspowner from pg_namespace n where n.nspname = 'integration')";

/// Rights that belong to no verb, on whatever is in the schema, known or not, and on columns; and those that may be passed
/// on. Grantee 0 is everybody.
const STRAY: &str = "with owner as (select n.oid as schema, n.nspowner as oid, n.nspacl from pg_namespace n \
        where n.nspname = 'integration'), \
    known as materialized (select distinct r.kind, r.oid, r.columns, r.want \
        from unnest('{publish, consume, operate, look, publish_app, consume_app}'::text[]) v (verb) \
        cross join lateral integration.rights_of(v.verb) r), \
    rights (kind, object, oid, columns, acl) as ( \
        select 'schema', 'integration', o.schema, null::text, o.nspacl from owner o \
        union all \
        select case c.relkind when 'S' then 'sequence' else 'table' end, c.oid::regclass::text, c.oid, null, c.relacl \
          from owner o join pg_class c on c.relnamespace = o.schema \
        union all \
        select 'table', c.oid::regclass::text, c.oid, quote_ident(t.attname), t.attacl \
          from owner o join pg_class c on c.relnamespace = o.schema join pg_attribute t on t.attrelid = c.oid \
        union all \
        select 'function', p.oid::regprocedure::text, p.oid, null, coalesce(p.proacl, acldefault('f', p.proowner)) \
          from owner o join pg_proc p on p.pronamespace = o.schema), \
    stray (grantee, statement) as ( \
        select a.grantee, concat(case when k.kind is not null then 'grant option for ' end, lower(a.privilege_type), \
               ' (' || r.columns || ')', ' on ', r.kind, ' ', r.object) \
          from rights r cross join owner o cross join lateral aclexplode(r.acl) a \
          left join known k on k.kind = r.kind and k.oid = r.oid and k.want = lower(a.privilege_type) \
           and k.columns is not distinct from r.columns and a.grantee <> 0 \
         where a.grantee <> o.oid and (k.kind is null or a.is_grantable)) \
    select case s.grantee when 0 then 'PUBLIC' else g.rolname::text end, array_agg(s.statement order by s.statement) \
      from stray s left join pg_roles g on g.oid = s.grantee \
     where not coalesce(g.rolsuper, false) group by 1 order by 1";
const MAY_COMPARE: &str = "select has_function_privilege('integration.rights_of(text)', 'execute')";

/// What the owner's new objects are given away with; PUBLIC's default right to execute is taken away by each migration.
const DEFAULTS: &str = "select string_agg(distinct a.privilege_type || ' to ' || \
        case a.grantee when 0 then 'PUBLIC' else pg_get_userbyid(a.grantee)::text end, ', ') \
    from pg_default_acl d join pg_namespace n on n.nspname = 'integration' and d.defaclrole = n.nspowner \
     and d.defaclnamespace in (0, n.oid) \
    cross join lateral aclexplode(d.defaclacl) a \
    where a.grantee <> d.defaclrole and not (a.grantee = 0 and d.defaclobjtype = 'f')";

/// Columns were granted to limited roles for as long as row security keeps others' rows from them.
const BARE: &str = "select string_agg(distinct g.role_name::text, ', ') from integration.grants g \
    join pg_roles r on r.rolname = g.role_name, pg_class t \
    where t.oid = 'integration.data_staging'::regclass and not t.relrowsecurity \
      and has_column_privilege(r.oid, t.oid, 'data', 'select') and not has_table_privilege(r.oid, t.oid, 'select')";

const GRANTED: &str = "select role_name, app, wrong from integration.rights()";
const MAY_LOOK: &str = "select has_table_privilege('integration.grants', 'select') \
    and has_function_privilege('integration.rights()', 'execute')";

pub(super) async fn check(session: &mut Session) -> Result<Vec<Finding>> {
    let mut findings = owner(session).await?;
    if let Some(objects) = session.row(FOREIGN).await?.try_get::<_, Option<String>>(0)? {
        findings.push(
            Finding::warning("rights", "parts of the schema belong to others than its owner")
                .evidence(objects)
                .fix("alter … owner to the schema's owner; whoever owns them can replace what runs for everybody"),
        );
    }
    if session.row(MAY_COMPARE).await?.try_get(0)? {
        for row in session.rows(STRAY).await? {
            let (role, rights): (String, Vec<String>) = (row.try_get(0)?, row.try_get(1)?);
            findings.push(stray(&role, &rights));
        }
    } else {
        let what = "whether others have rights that belong to no verb was not looked at";
        findings.push(Finding::note("rights", what).fix("ask as a role that has a verb"));
    }
    if let Some(defaults) = session.row(DEFAULTS).await?.try_get::<_, Option<String>>(0)? {
        let what = "what the owner of the schema makes is given to others by default privileges";
        findings.push(Finding::note("rights", what).evidence(defaults).fix("alter default privileges … revoke"));
    }
    if session.row(MAY_LOOK).await?.try_get(0)? {
        granted(session, &mut findings).await?;
    }
    if findings.is_empty() {
        findings.push(Finding::ok("rights", "nobody has a right in the schema that belongs to no verb"));
    }
    Ok(findings)
}

async fn owner(session: &mut Session) -> Result<Vec<Finding>> {
    let row = session.row(OWNER).await?;
    let (owner, superuser, logs_in): (String, bool, bool) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    let (schemas, members): (Vec<String>, Vec<String>) = (row.try_get(3)?, row.try_get(4)?);
    let fix = format!(
        "hand it over to a role that cannot log in and owns nothing else, by {}.hand_over(role): see Roles in docs/deploy.md",
        session.schema()
    );
    let mut findings = Vec::new();
    if superuser {
        let what =
            format!("the schema belongs to {owner}, a superuser: a hole in one of its functions is one in the server");
        findings.push(Finding::warning("rights", what).fix(fix));
    } else if !schemas.is_empty() {
        let what =
            format!("the owner of the schema, {owner}, owns others: a hole in one of its functions is one in them");
        findings.push(Finding::warning("rights", what).evidence(schemas.join(", ")).fix(fix));
    } else if !members.is_empty() || logs_in {
        let login = if logs_in { "can log in" } else { "cannot log in" };
        let as_well = if members.is_empty() { String::new() } else { format!("; so may {}", members.join(", ")) };
        findings
            .push(Finding::ok("rights", format!("{owner} owns the schema, may do everything and {login}{as_well}")));
    }
    Ok(findings)
}

fn stray(role: &str, rights: &[String]) -> Finding {
    let shown = rights.iter().take(3).cloned().collect::<Vec<_>>().join(", ");
    let more = if rights.len() > 3 { format!(" and {} more", rights.len() - 3) } else { String::new() };
    let grantee = if role == "PUBLIC" { "public".to_owned() } else { identifier(role) };
    let fix = rights.iter().map(|right| format!("revoke {right} from {grantee}")).collect::<Vec<_>>().join("; ");
    let who = if role == "PUBLIC" { "everybody" } else { role };
    Finding::warning("rights", format!("{who} has rights that belong to no verb")).evidence(shown + &more).fix(fix)
}

async fn granted(session: &mut Session, findings: &mut Vec<Finding>) -> Result<()> {
    if let Some(roles) = session.row(BARE).await?.try_get::<_, Option<String>>(0)? {
        findings.push(
            Finding::problem("rights", format!("{roles} may read the messages of all applications"))
                .evidence("they were given columns while row security was on, and it was switched off by other means")
                .fix(session.schema().sql("select integration.set_row_security(false)").into_owned()),
        );
    }
    let (mut roles, mut apps) = (Vec::new(), Vec::new());
    for row in session.rows(GRANTED).await? {
        let (role, app, wrong): (String, Option<String>, Option<String>) =
            (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        if let Some(wrong) = wrong {
            let what = format!("what {role} may do for {} is not so", app.as_deref().unwrap_or("all applications"));
            findings.push(Finding::warning("rights", what).evidence(wrong));
        }
        roles.push(role);
        apps.extend(app);
    }
    for list in [&mut roles, &mut apps] {
        list.sort_unstable();
        list.dedup();
    }
    findings.push(Finding::ok("rights", format!("{} roles are listed, for {} applications", roles.len(), apps.len())));
    Ok(())
}
