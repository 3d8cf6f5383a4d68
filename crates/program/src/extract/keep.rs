//! Another database, read as long as this program runs.

use std::time::Duration;

use doorbell::operate::{Extract, ForeignDatabase, Operator};
use tracing::warn;

use crate::exit::{Exit, Failure};

/// How long to wait for a database that is not there yet.
const PAUSE: Duration = Duration::from_secs(2);

/// Makes the extract; who keeps running waits for a server that comes later.
pub(super) async fn make(operator: &Operator, source: &ForeignDatabase, wanted: &Extract) -> Result<bool, Failure> {
    let mut failing = false;
    loop {
        match operator.extract_from(source, wanted).await {
            Err(error) if error.is_transient() => {
                if !failing {
                    warn!(?error, "an extract cannot be made yet; trying until it can");
                    failing = true;
                }
                tokio::time::sleep(PAUSE).await;
            }
            made => return Ok(made?),
        }
    }
}

/// Until it is stopped, or the extract is gone.
pub(super) async fn reading(operator: &Operator, source: &ForeignDatabase, name: &str) -> Result<Exit, Failure> {
    operator.keep_extracting(source, name).await?;
    Ok(Exit::Done)
}
