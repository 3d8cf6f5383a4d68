//! Extracts: rows of tables and queries, read and published.

use std::time::Duration;

use super::Operator;
use crate::{
    backoff,
    error::{ErrorKind, Result},
    outage::Outage,
    rows::{Extract, ExtractRow, Extracted},
    store::ForeignDatabase,
};

/// How many rows a look publishes in one transaction.
const PAGE: u32 = 1000;
/// How long to wait after a look that failed.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

impl Operator {
    /// Makes an extract, or changes how the one of that name publishes; its place stays. Every row is a message
    /// `{"table", "op": "read", "new"}`. With a watermark, maintenance finds new and changed rows again and again: each version of
    /// a row that a look finds, once, and none is lost that is committed late. Without one all rows are read once, by
    /// [`extract_more`](Self::extract_more). For the owner of the schema, in whose name tables are read. False: it was there.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) for a table, query or column that cannot be read so;
    /// [`IllegalTransition`](crate::ErrorKind::IllegalTransition) where the one of that name reads something else;
    /// [`Forbidden`](crate::ErrorKind::Forbidden) for who does not own the schema; else the database's.
    pub async fn extract(&self, extract: &Extract) -> Result<bool> {
        self.core.store().set_extract(extract).await
    }

    /// Publishes the next rows of an extract, at most so many, in one transaction with its place; for who reads all rows calls it
    /// until it [is done](Extracted::is_done). After a crash it goes on where the last transaction ended. `None`: somebody else
    /// does it now, or it is paused.
    ///
    /// Cancelled, the rows may have been published.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) when there is none; else the database's: the table's, the query's, and those of
    /// publishing, where no row can be published.
    pub async fn extract_more(&self, name: &str, rows: u32) -> Result<Option<Extracted>> {
        self.core.store().extract_more(name, rows).await
    }

    /// Makes an extract of another database, or changes how the one of that name publishes. Nothing of the way there is stored:
    /// whoever knows it reads, by [`extract_more_from`](Self::extract_more_from) or [`keep_extracting`](Self::keep_extracting), in the
    /// name of the role that logs in there. Else as [`extract`](Self::extract).
    ///
    /// # Errors
    /// As of [`extract`](Self::extract); [`Invalid`](crate::ErrorKind::Invalid) for what that database refuses, too, and
    /// [`Connect`](crate::ErrorKind::Connect) when it is out of reach.
    pub async fn extract_from(&self, source: &ForeignDatabase, extract: &Extract) -> Result<bool> {
        self.core.store().set_foreign_extract(source, extract).await
    }

    /// Reads the next rows of an extract of another database, at most so many, and publishes them in one transaction with its place:
    /// who is broken off anywhere has lost none and publishes none twice. `None`: somebody else has done it meanwhile, or it is paused.
    ///
    /// Cancelled, the rows may have been published.
    ///
    /// # Errors
    /// As of [`extract_more`](Self::extract_more); those of the other database as of [`extract_from`](Self::extract_from).
    pub async fn extract_more_from(
        &self,
        source: &ForeignDatabase,
        name: &str,
        rows: u32,
    ) -> Result<Option<Extracted>> {
        Ok(self.core.store().extract_more_from(source, name, rows).await?.0)
    }

    /// Reads an extract of another database again and again, as often as it says, until the future is dropped, or all rows are
    /// read of one without a watermark. While either database is out of reach or refuses, it tries again after growing pauses of
    /// up to half a minute; one line in the log says when that begins and when it is over, and
    /// [`last_error`](ExtractRow::last_error) why.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) when the extract is not there any more;
    /// [`IllegalTransition`](crate::ErrorKind::IllegalTransition) for one that reads this database;
    /// [`Forbidden`](crate::ErrorKind::Forbidden) for who may not extract here.
    pub async fn keep_extracting(&self, source: &ForeignDatabase, name: &str) -> Result<()> {
        let store = self.core.store();
        let mut outage = Outage::new("an extract does not get on; trying again", "the extract gets on again")
            .for_extract(name)
            .pauses(PAUSES.0, PAUSES.1);
        let mut noted = None;
        loop {
            let pause = match store.extract_more_from(source, name, PAGE).await {
                Ok((done, every)) => {
                    outage.over();
                    noted = None;
                    match (done, every) {
                        (Some(Extracted { is_done: false, .. }), _) => continue,
                        (Some(_), None) => return Ok(()),
                        (_, every) => backoff::jittered(every.unwrap_or(PAUSES.0), rand::random()),
                    }
                }
                Err(error) if is_final(error.kind()) => return Err(error),
                Err(error) => {
                    let why = Some(error.to_string());
                    // Where this database is out of reach, nobody can be told there.
                    if noted != why && store.note_extract(name, &error.to_string()).await.is_ok() {
                        noted = why;
                    }
                    outage.failed(&error)
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// Ends an extract and forgets its place; what it published stays. False: there was none.
    ///
    /// # Errors
    /// The database's.
    pub async fn forget_extract(&self, name: &str) -> Result<bool> {
        self.core.store().forget_extract(name).await
    }

    /// Pauses an extract, or lets it go on from where it was. False: it was so, or there is none.
    ///
    /// # Errors
    /// The database's.
    pub async fn pause_extract(&self, name: &str, paused: bool) -> Result<bool> {
        self.core.store().pause_extract(name, paused).await
    }

    /// How sources get on, for metrics.
    #[cfg(feature = "metrics")]
    pub(crate) async fn measured_sources(&self) -> Result<crate::rows::MeasuredSources> {
        self.core.store().measured_sources().await
    }

    /// The extracts, by name.
    ///
    /// # Errors
    /// The database's.
    pub async fn extracts(&self) -> Result<Vec<ExtractRow>> {
        self.core.store().extracts().await
    }
}

/// What trying again does not help against.
fn is_final(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::NotFound | ErrorKind::IllegalTransition | ErrorKind::Forbidden)
}
