//! Who may do what: given and taken by the owner of the schema.

use super::Store;
use crate::{
    error::Result,
    rows::{AppRights, RightsRow, Verb},
};

const GRANT: &str = "select integration.grant_to($1::text::name, $2)";
const REVOKE: &str = "select integration.revoke_from($1::text::name, $2)";
const GRANT_APP: &str = "select integration.grant_app($1, $2::text::name, $3, $4, $5, $6)";
const REVOKE_APP: &str = "select integration.revoke_app($1, $2::text::name)";
const RIGHTS: &str =
    "select role_name, app, verbs, publish_to, max_priority, max_pending, wrong from integration.rights()";

impl Store {
    pub(crate) async fn grant(&self, role: &str, verb: Verb) -> Result<()> {
        self.query("grant a verb", GRANT, &[&role, &verb.as_str()]).await.map(drop)
    }

    pub(crate) async fn revoke(&self, role: &str, verb: Verb) -> Result<()> {
        self.query("revoke a verb", REVOKE, &[&role, &verb.as_str()]).await.map(drop)
    }

    pub(crate) async fn grant_app(&self, app: &str, role: &str, rights: &AppRights) -> Result<()> {
        let AppRights { publish_to, consume, max_priority, max_pending } = rights;
        let params: [&(dyn tokio_postgres::types::ToSql + Sync); 6] =
            [&app, &role, publish_to, consume, max_priority, max_pending];
        self.query("grant rights", GRANT_APP, &params).await.map(drop)
    }

    pub(crate) async fn revoke_app(&self, app: &str, role: &str) -> Result<bool> {
        Ok(self.query_one("revoke rights", REVOKE_APP, &[&app, &role]).await?.try_get(0)?)
    }

    pub(crate) async fn rights(&self) -> Result<Vec<RightsRow>> {
        let rows = self.query("list rights", RIGHTS, &[]).await?;
        rows.iter()
            .map(|row| {
                Ok(RightsRow {
                    role: row.try_get("role_name")?,
                    app: row.try_get("app")?,
                    verbs: row.try_get("verbs")?,
                    publish_to: row.try_get::<_, Option<_>>("publish_to")?.unwrap_or_default(),
                    max_priority: row.try_get("max_priority")?,
                    max_pending: row.try_get("max_pending")?,
                    wrong: row.try_get("wrong")?,
                })
            })
            .collect()
    }
}
