//! Contracts: what messages have to say.

use super::Store;
use crate::{
    error::Result,
    rows::{Contract, ContractRow},
};

const SET: &str = "select integration.set_contract($1, $2, $3::text::jsonpath, $4, $5)";
const FORGET: &str = "select integration.forget_contract($1, $2, $3)";
const CONTRACTS: &str = "select target_app, record_type, version, rule, policy, breaches, created_at \
        from integration.kept_contracts order by target_app, record_type, version";

impl Store {
    pub(crate) async fn set_contract(&self, wanted: &Contract) -> Result<bool> {
        let Contract { target, record_type, rule, policy, version } = wanted;
        let params: [&(dyn tokio_postgres::types::ToSql + Sync); 5] =
            [target, record_type, rule, &policy.as_str(), &i32::from(*version)];
        Ok(self.query_one("set the contract", SET, &params).await?.try_get(0)?)
    }

    pub(crate) async fn forget_contract(&self, target: &str, record_type: &str, version: Option<u16>) -> Result<bool> {
        let version = version.map(i32::from);
        Ok(self.query_one("forget the contract", FORGET, &[&target, &record_type, &version]).await?.try_get(0)?)
    }

    pub(crate) async fn contracts(&self) -> Result<Vec<ContractRow>> {
        let rows = self.query("list the contracts", CONTRACTS, &[]).await?;
        rows.iter()
            .map(|row| {
                Ok(ContractRow {
                    target: row.try_get("target_app")?,
                    record_type: row.try_get("record_type")?,
                    version: row.try_get("version")?,
                    rule: row.try_get("rule")?,
                    policy: row.try_get("policy")?,
                    breaches: row.try_get("breaches")?,
                    created_at: row.try_get("created_at")?,
                })
            })
            .collect()
    }
}
