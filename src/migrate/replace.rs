//! Replacing the code: what changed since it was last applied, and nothing else.

use std::collections::{HashMap, HashSet};

use tokio_postgres::{Transaction, error::SqlState};

use super::{Kind, Part, code, script};
use crate::{
    error::{Error, Result},
    schema::Schema,
};

const IN_FORCE: &str = "select kind, name, checksum from integration.code";
/// Rights that were granted on functions and views, as statements: they do not survive a `drop`.
const RIGHTS: &str = "select o.kind, o.name, pg_catalog.format('grant %s on %s %s to %s%s', a.privilege_type, \
        case o.kind when 'view' then 'table' else 'routine' end, o.identity, \
        case a.grantee when 0 then 'public' else pg_catalog.pg_get_userbyid(a.grantee)::regrole::text end, \
        case when a.is_grantable then ' with grant option' else '' end) \
    from (select 'view', c.relname::text, c.oid::regclass::text, c.relowner, c.relacl from pg_class c \
           where c.relnamespace = 'integration'::regnamespace and c.relkind = 'v' \
          union all \
          select 'function', replace(p.oid::regprocedure::text, 'integration.', ''), p.oid::regprocedure::text, \
                 p.proowner, p.proacl from pg_proc p where p.pronamespace = 'integration'::regnamespace) \
         o (kind, name, identity, owner, rights) \
    cross join lateral aclexplode(o.rights) a where a.grantee <> o.owner";

/// The code that is in force, on its way to become this program's.
pub(super) struct Replacement<'a> {
    tx: &'a Transaction<'a>,
    schema: &'a Schema,
    parts: Vec<Part>,
    in_force: HashMap<(String, String), String>,
}

impl<'a> Replacement<'a> {
    pub(super) async fn read(tx: &'a Transaction<'a>, schema: &'a Schema) -> Result<Self> {
        let mut in_force = HashMap::new();
        for row in tx.query_typed(&schema.sql(IN_FORCE), &[]).await? {
            in_force.insert((row.try_get(0)?, row.try_get(1)?), row.try_get(2)?);
        }
        Ok(Self { tx, schema, parts: code::parts(), in_force })
    }

    /// Replaces what changed, removes what is no longer there, and records the code. Takes no lock on tables but those
    /// of reading.
    pub(super) async fn functions_and_views(&mut self) -> Result<()> {
        let mut refused = false;
        for part in self.parts.iter().filter(|part| part.kind <= Kind::View && self.is_changed(part)) {
            refused |= !self.replaced(part).await?;
        }
        let gone = self.gone(|kind| kind <= Kind::View);
        if refused || !gone.is_empty() {
            self.rebuild(gone).await?;
        }
        self.execute("comment on the code", &script::comments(&self.parts)).await?;
        self.execute("record the code", &script::record_code(&self.parts)).await
    }

    /// Makes those triggers anew that changed, and calls what is to be called: the only part for which publishers wait.
    pub(super) async fn triggers(&self) -> Result<()> {
        for (kind, name) in self.gone(|kind| kind == Kind::Trigger) {
            self.execute(&name, &script::drop(kind, &name)).await?;
        }
        for part in self.parts.iter().filter(|part| part.kind >= Kind::Trigger && self.is_changed(part)) {
            self.execute(&part.name, part.text).await?;
        }
        Ok(())
    }

    fn is_changed(&self, part: &Part) -> bool {
        self.in_force.get(&(part.kind.name().to_owned(), part.name.clone())) != Some(&part.checksum)
    }

    /// What is in force and has no successor.
    fn gone(&self, of: impl Fn(Kind) -> bool) -> Vec<(Kind, String)> {
        let wanted: HashSet<_> = self.parts.iter().map(|part| (part.kind, part.name.as_str())).collect();
        let kinds = self.in_force.keys().filter_map(|(kind, name)| Some((Kind::of(kind)?, name)));
        let gone = kinds.filter(|(kind, name)| of(*kind) && !wanted.contains(&(*kind, name.as_str())));
        let mut gone: Vec<_> = gone.map(|(kind, name)| (kind, name.clone())).collect();
        gone.sort_unstable();
        gone
    }

    /// False: not without dropping it first, because its result or its columns are others.
    async fn replaced(&self, part: &Part) -> Result<bool> {
        self.tx.batch_execute("savepoint part").await?;
        match self.tx.batch_execute(&self.schema.sql(part.text)).await {
            Ok(()) => self.tx.batch_execute("release part").await?,
            Err(error) if is_another_shape(&error) => {
                self.tx.batch_execute("rollback to part").await?;
                return Ok(false);
            }
            Err(error) => return Err(Error::from(error).context(&part.name)),
        }
        Ok(true)
    }

    /// Drops all views, which may read what goes, and what goes or has another shape; then makes everything that is missing,
    /// and grants again what was granted.
    async fn rebuild(&self, gone: Vec<(Kind, String)>) -> Result<()> {
        let rights = self.tx.query_typed(&self.schema.sql(RIGHTS), &[]).await?;
        let (gone_views, gone_functions): (Vec<_>, Vec<_>) =
            gone.into_iter().partition(|(kind, _)| *kind == Kind::View);
        let views: Vec<_> = self.parts.iter().filter(|part| part.kind == Kind::View).collect();
        // In one statement, since they read each other.
        let names: Vec<_> =
            views.iter().map(|part| &part.name).chain(gone_views.iter().map(|(_, name)| name)).collect();
        let names: Vec<_> = names.into_iter().map(|name| format!("integration.{name}")).collect();
        self.execute("drop the views", &format!("drop view if exists {}", names.join(", "))).await?;
        for (kind, name) in &gone_functions {
            self.execute(name, &script::drop(*kind, name)).await?;
        }
        for part in self.parts.iter().filter(|part| part.kind == Kind::Function && self.is_changed(part)) {
            if !self.replaced(part).await? {
                self.execute(&part.name, &script::drop(part.kind, &part.name)).await?;
                self.execute(&part.name, part.text).await?;
            }
        }
        for part in views {
            self.execute(&part.name, part.text).await?;
        }
        for row in rights {
            let (kind, name, grant): (String, String, String) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
            if self.parts.iter().any(|part| part.kind.name() == kind && part.name == name) {
                self.tx.batch_execute(&grant).await?;
            }
        }
        Ok(())
    }

    async fn execute(&self, what: &str, sql: &str) -> Result<()> {
        let done = self.tx.batch_execute(&self.schema.sql(sql)).await;
        done.map_err(|error| Error::from(error).context(what))
    }
}

fn is_another_shape(error: &tokio_postgres::Error) -> bool {
    [SqlState::INVALID_FUNCTION_DEFINITION, SqlState::INVALID_TABLE_DEFINITION]
        .iter()
        .any(|code| error.code() == Some(code))
}
