//! Where private servers keep their files, and who may touch them.
//!
//! ```text
//! <base>/doorbell-<uid>/              mode 0700; its lock orders sweeping, template building and new runs
//!     template-15.18-wal1-1/          what `initdb` made, copied for each server
//!     building-5f1c09a2/              a template that is not finished
//!     run-9c0e77d1/                   one server: socket, `data`, `log`, `watchdog.sh`
//! ```
//!
//! The log doubles as the lock of its run. It is locked before the first process starts and handed to every process
//! as standard error, so the lock is held until the last of them is gone, whoever dies first. A run whose log can be
//! locked is a leftover.

use std::fs::{DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::sys::statvfs::statvfs;
use tokio::time::{Instant, sleep};

use super::account::Account;
use crate::error::{Error, ErrorKind, Result};

/// Longest path of a socket that all systems accept: macOS has room for 104 bytes with the final zero.
const SOCKET_PATH_BYTES_MAX: usize = 103;

/// A container's shared memory is often 64 MB; a server with a little data in it needs more.
const MEMORY_BYTES_MIN: u64 = 512 * 1024 * 1024;

/// Systems tidy their temporary directories file by file after some days, and half a template is worse than none.
const TEMPLATE_AGE_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// How long another process may take to build a template before waiting for it is given up.
const LOCK_WAIT_MAX: Duration = Duration::from_secs(120);

/// How long root takes to give away the directory that it has just made.
const GIVING_AWAY_MAX: Duration = Duration::from_secs(1);

/// How often a lock held by another process is tried again.
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// The directory of one account's ephemeral servers.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) path: PathBuf,
    pub(super) account: Account,
}

/// A new run's directory and its log, which is locked for as long as any handle to it is open.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) directory: PathBuf,
    pub(super) log: File,
}

impl Place {
    /// The place below `base`, or below the first usable of the usual bases: memory (unless `on_disk`), the system's
    /// temporary directory, `/tmp`.
    pub(super) async fn choose(account: &Account, base: Option<&Path>, on_disk: bool) -> Result<Self> {
        if let Some(base) = base {
            return Self::below(account, base).await;
        }
        let mut bases = Vec::new();
        if on_disk {
            // By custom this one is on disk even where /tmp is memory.
            bases.push(PathBuf::from("/var/tmp"));
        } else if has_room(Path::new("/dev/shm")) {
            bases.push(PathBuf::from("/dev/shm"));
        }
        bases.extend([std::env::temp_dir(), PathBuf::from("/tmp")]);
        let mut refusal = None;
        for base in bases {
            match Self::below(account, &base).await {
                Ok(place) => return Ok(place),
                Err(error) => refusal = refusal.or(Some(error)),
            }
        }
        Err(refusal.unwrap_or_else(|| Error::new(ErrorKind::Io, "there is no directory for temporary files")))
    }

    async fn below(account: &Account, base: &Path) -> Result<Self> {
        let path = base.join(format!("doorbell-{}", account.uid));
        check_socket_length(&path.join("run-00000000"))?;
        private(account, &path).await?;
        Ok(Self { path, account: account.clone() })
    }

    /// Waits for the place's lock and takes it alone.
    pub(super) async fn lock(&self) -> Result<File> {
        lock(&self.path, File::try_lock).await
    }

    /// Waits for the place's lock and takes it together with others who only read.
    pub(super) async fn lock_shared(&self) -> Result<File> {
        lock(&self.path, File::try_lock_shared).await
    }

    /// A new directory for one server. Call it with the place locked: until its log is locked it looks like a leftover.
    pub(super) async fn new_run(&self) -> Result<Run> {
        let directory = self.new_directory("run").await?;
        let log = new_file(&directory.join("log"))?;
        log.lock().map_err(|e| Error::new(ErrorKind::Io, "cannot lock a server's log").with_source(e))?;
        Ok(Run { directory, log })
    }

    /// A new empty directory with a name nobody else uses, made by the account.
    pub(super) async fn new_directory(&self, kind: &str) -> Result<PathBuf> {
        let path = self.path.join(format!("{kind}-{:08x}", rand::random::<u32>()));
        let mut mkdir = self.account.command("mkdir");
        mkdir.args(["-m", "0700"]).arg(&path);
        self.account.run(mkdir).await?;
        Ok(path)
    }

    /// Removes what killed runs and killed builds left behind, and templates past their age. Call it with the place
    /// locked. What cannot be removed stays for the next start: it takes room but does no harm.
    pub(super) async fn sweep(&self) {
        for entry in std::fs::read_dir(&self.path).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let leftover = match name.to_string_lossy().split('-').next() {
                Some("run") => is_abandoned(&entry.path()),
                Some("building") => true,
                Some("template") => is_stale(&entry.path()),
                _ => false,
            };
            if leftover && let Err(error) = self.account.remove(&entry.path()).await {
                tracing::debug!(%error, "a leftover of an earlier server stays");
            }
        }
    }
}

/// Refuses a directory whose socket would have a longer path than the system can express.
pub(super) fn check_socket_length(directory: &Path) -> Result<()> {
    let socket = directory.join(format!(".s.PGSQL.{}", super::PORT));
    if socket.as_os_str().as_bytes().len() <= SOCKET_PATH_BYTES_MAX {
        return Ok(());
    }
    let message = format!("{} is too long for a socket; at most {SOCKET_PATH_BYTES_MAX} bytes", socket.display());
    Err(Error::config(message))
}

/// Creates a file beside a server's data, readable by the server's account whatever the caller's umask; its directory
/// is closed to everybody else.
pub(super) fn new_file(path: &Path) -> Result<File> {
    let file = OpenOptions::new().append(true).create_new(true).open(path);
    file.and_then(|file| file.set_permissions(Permissions::from_mode(0o644)).map(|()| file))
        .map_err(|e| Error::new(ErrorKind::Io, format!("cannot create {}", path.display())).with_source(e))
}

/// Makes sure the directory exists, belongs to the account and is closed to everybody else. What was there before keeps its
/// owner, whoever that is.
pub(super) async fn private(account: &Account, path: &Path) -> Result<()> {
    let failed = |e| Error::new(ErrorKind::Io, format!("cannot use the directory {}", path.display())).with_source(e);
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) if account.steps_down() => give_away(path, account.uid).map_err(failed)?,
        Ok(()) => {}
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(e) => return Err(failed(e)),
    }
    let deadline = Instant::now() + GIVING_AWAY_MAX;
    loop {
        let metadata = path.symlink_metadata().map_err(failed)?;
        let is_closed = metadata.is_dir() && metadata.permissions().mode() & 0o077 == 0;
        if is_closed && metadata.uid() == account.uid {
            return Ok(());
        }
        // Another process of root may have made it a moment ago, and be about to give it away.
        let may_be_new = is_closed && metadata.uid() == 0 && account.steps_down();
        if !may_be_new || Instant::now() >= deadline {
            let message = format!(
                "{} is not a directory that only user {} may enter; name one that is not there yet, or make it theirs",
                path.display(),
                account.uid
            );
            return Err(Error::new(ErrorKind::Io, message));
        }
        sleep(LOCK_PAUSE).await;
    }
}

/// Makes a directory that root has just made somebody else's, if it is still the same: empty, and root's.
fn give_away(path: &Path, uid: u32) -> std::io::Result<()> {
    let flags = (OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW).bits();
    let directory = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let is_empty = std::fs::read_dir(path)?.next().is_none();
    if !is_empty || directory.metadata()?.uid() != 0 {
        return Err(std::io::Error::other("somebody else has put another one in its place"));
    }
    fchown(directory, Some(uid), None)
}

/// Locks a file or directory, giving other processes their time.
pub(super) async fn lock(path: &Path, how: fn(&File) -> Result<(), TryLockError>) -> Result<File> {
    let failed = |e| Error::new(ErrorKind::Io, format!("cannot lock {}", path.display())).with_source(e);
    let file = File::open(path).map_err(failed)?;
    let deadline = Instant::now() + LOCK_WAIT_MAX;
    loop {
        match how(&file) {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(e)) => return Err(failed(e)),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => sleep(LOCK_PAUSE).await,
            Err(TryLockError::WouldBlock) => {
                let message = format!("another process has held the lock of {} for too long", path.display());
                return Err(Error::new(ErrorKind::Timeout, message));
            }
        }
    }
}

#[allow(clippy::unnecessary_cast, reason = "macOS counts blocks in 32 bits")]
fn has_room(directory: &Path) -> bool {
    statvfs(directory).is_ok_and(|fs| fs.blocks_available() as u64 * fs.fragment_size() as u64 >= MEMORY_BYTES_MIN)
}

/// Whether no process of the run is left. A run without a log was given up before its first process.
fn is_abandoned(run: &Path) -> bool {
    match File::open(run.join("log")) {
        Ok(log) => log.try_lock().is_ok(),
        Err(e) => e.kind() == std::io::ErrorKind::NotFound,
    }
}

#[expect(clippy::disallowed_methods, reason = "the age of a file is by this machine's clock")]
fn is_stale(template: &Path) -> bool {
    let changed = template.symlink_metadata().and_then(|m| m.modified());
    changed.is_ok_and(|at| at.elapsed().is_ok_and(|age| age > TEMPLATE_AGE_MAX))
}
