//! The data directory that servers start from: made once by `initdb`, then copied, which is ten times faster.

use std::path::Path;

use super::SUPERUSER;
use super::account::Account;
use super::directory::Place;
use super::installation::Installation;
use crate::error::Result;

/// To be raised when the options below change, so that older templates are no longer used.
const LAYOUT: u32 = 1;

/// Size of the write-ahead log's files: PostgreSQL's own choice where speed is measured or data is kept.
pub(super) const WAL_MB_NORMAL: u32 = 16;

/// The smallest size: a new data directory then has 28 MB instead of 39, and the copy is most of a start.
pub(super) const WAL_MB_SMALL: u32 = 1;

/// Copies a fresh data directory to `data`, building the template first where it is missing.
///
/// Any number of processes may do this at once: one builds, the others wait for it, and all copy together.
pub(super) async fn copy(place: &Place, installation: &Installation, wal_mb: u32, data: &Path) -> Result<()> {
    let template = place.path.join(format!("template-{}-wal{wal_mb}-{LAYOUT}", installation.version()));
    if !template.is_dir() {
        let _alone = place.lock().await?;
        if !template.is_dir() {
            let building = place.new_directory("building").await?;
            // Nothing of an ephemeral server has to outlive a power cut.
            initdb(&place.account, installation, &building, &[&format!("--wal-segsize={wal_mb}"), "--no-sync"]).await?;
            let mut mv = place.account.command("mv");
            mv.arg(&building).arg(&template);
            place.account.run(mv).await?;
        }
    }
    // Shared, so that nobody sweeps the template away while it is being read.
    let _reading = place.lock_shared().await?;
    let mut cp = place.account.command("cp");
    cp.arg("-Rp").arg(&template).arg(data);
    place.account.run(cp).await.map(|_| ())
}

/// Makes a data directory: UTF-8, the C locale (the same order of texts everywhere), everybody who can reach the
/// socket trusted as any user.
pub(super) async fn initdb(account: &Account, pg: &Installation, data: &Path, more: &[&str]) -> Result<()> {
    let program = pg.program("initdb");
    let mut initdb = account.command(&program);
    initdb.arg("-D").arg(data).args(["-U", SUPERUSER, "-A", "trust", "-E", "UTF8", "--locale=C", "--no-instructions"]);
    initdb.args(more);
    account.run(initdb).await.map(|_| ()).map_err(|error| error.context("cannot make a data directory"))
}
