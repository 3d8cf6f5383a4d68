//! Extracts: rows of tables and queries, read and published.

use super::Operator;
use crate::{
    error::Result,
    rows::{Extract, ExtractRow, Extracted},
};

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

    /// The extracts, by name.
    ///
    /// # Errors
    /// The database's.
    pub async fn extracts(&self) -> Result<Vec<ExtractRow>> {
        self.core.store().extracts().await
    }
}
