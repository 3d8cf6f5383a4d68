//! What steps of handlers have returned.

use tokio_postgres::types::ToSql;

use super::{
    Store,
    json::{JsonbString, JsonbText},
};
use crate::{error::Result, message::Delivery};

const OUTPUT: &str = "select integration.step_output($1, $2, $3, $4, $5)";
const SAVE: &str = "select integration.save_step($1, $2, $3, $4, $6, $5)";

impl Store {
    /// What a step has returned, as JSON text; `None`: it has not ended yet.
    pub(crate) async fn step_output(&self, delivery: &Delivery, name: &str) -> Result<Option<Box<str>>> {
        let params: [&(dyn ToSql + Sync); 5] =
            [&delivery.id, &delivery.attempt, &&*delivery.owner, &name, &delivery.created_at];
        let row = self.query_one("look for the output of a step", OUTPUT, &params).await?;
        Ok(row.try_get::<_, Option<JsonbString>>(0)?.map(|JsonbString(text)| text))
    }

    /// Saves what a step has returned, JSON text; returns what is saved.
    pub(crate) async fn save_step(&self, delivery: &Delivery, name: &str, output: &str) -> Result<Box<str>> {
        let output = JsonbText(output);
        let params: [&(dyn ToSql + Sync); 6] =
            [&delivery.id, &delivery.attempt, &&*delivery.owner, &name, &delivery.created_at, &output];
        let row = self.query_one("save the output of a step", SAVE, &params).await?;
        let JsonbString(saved) = row.try_get(0)?;
        Ok(saved)
    }
}
