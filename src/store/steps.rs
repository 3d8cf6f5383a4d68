//! What steps of handlers have returned.

use tokio_postgres::{Row, types::ToSql};

use super::{
    Store,
    json::{JsonbString, JsonbText},
};
use crate::{
    error::Result,
    message::{Delivery, MessageId},
    rows::SavedStep,
};

const OUTPUT: &str = "select integration.step_output($1, $2, $3, $4, $5)";
const SAVE: &str = "select integration.save_step($1, $2, $3, $4, $6, $5)";

const SAVED: &str = "select s.name, s.redrive_count, s.attempt, s.saved_at, case when $2 then s.output end as output \
      from integration.steps s join integration.data_staging d on d.id = s.id and d.created_at = s.created_at \
     where s.id = $1 order by s.saved_at, s.redrive_count, s.name";

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

    /// Those of a message that are done.
    pub(crate) async fn saved_steps(&self, id: MessageId, with_outputs: bool) -> Result<Vec<SavedStep>> {
        let rows = self.query("look for steps", SAVED, &[&id, &with_outputs]).await?;
        let step = |row: &Row| {
            Ok(SavedStep {
                name: row.try_get("name")?,
                redrive_count: row.try_get("redrive_count")?,
                attempt: row.try_get("attempt")?,
                saved_at: row.try_get("saved_at")?,
                output: row.try_get::<_, Option<JsonbString>>("output")?.map(|json| json.0.into()),
            })
        };
        rows.iter().map(step).collect()
    }
}
