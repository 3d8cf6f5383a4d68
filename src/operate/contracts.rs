//! Contracts: what messages of a record type have to say.

use super::Operator;
use crate::{
    error::Result,
    rows::{Contract, ContractRow},
};

impl Operator {
    /// Says what messages of a record type that are published to a target have to fulfil, from the next publish on; what was
    /// published stays. Of several versions one is enough. False: that version was there, and is now as said.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) for names that are none; the database's 42601 for a rule that is no jsonpath.
    pub async fn contract(&self, contract: &Contract) -> Result<bool> {
        self.core.store().set_contract(contract).await
    }

    /// Ends one version of a contract, or all. False: there was none.
    ///
    /// # Errors
    /// The database's.
    pub async fn forget_contract(&self, target: &str, record_type: &str, version: Option<u16>) -> Result<bool> {
        self.core.store().forget_contract(target, record_type, version).await
    }

    /// The contracts, by target, record type and version.
    ///
    /// # Errors
    /// The database's.
    pub async fn contracts(&self) -> Result<Vec<ContractRow>> {
        self.core.store().contracts().await
    }
}
