//! Behind PgBouncer: every verb works, and nothing of ours stays in a session that others get next.
//!
//! Debian's PgBouncer is found on the PATH; `DOORBELL_TEST_PGBOUNCER` names another one, which is tested as well.

use std::{
    fmt::Write as _,
    os::unix::{fs::MetadataExt, net::UnixStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use nix::unistd::{Gid, Uid, User, geteuid};
use tempfile::TempDir;
use tokio_postgres::{Client, NoTls};

use crate::{Database, connect, until_so};

const PORT: u16 = 6432;

/// Every PgBouncer that is here; none only where nobody insists on it.
pub fn programs() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    let installed = places.map(|place| place.join("pgbouncer")).find(|program| program.is_file());
    let named = std::env::var_os("DOORBELL_TEST_PGBOUNCER").filter(|named| !named.is_empty()).map(PathBuf::from);
    let all: Vec<PathBuf> = installed.into_iter().chain(named).collect();
    if all.is_empty() {
        assert!(std::env::var_os("CI").is_none(), "PgBouncer is missing; .ci/run installs it");
        println!("skipped: there is no PgBouncer; install it, or name it in DOORBELL_TEST_PGBOUNCER");
    }
    all
}

/// A PgBouncer in front of one database of the tests' server; dropping it ends it.
pub struct Pooler {
    /// The way through it.
    pub url: String,
    /// The way around it.
    direct: String,
    pub version: String,
    process: Child,
    directory: TempDir,
}

impl Pooler {
    pub async fn start(program: &Path, mode: &str, db: &Database) -> Self {
        let version = Command::new(program).arg("--version").output().unwrap().stdout;
        let version = String::from_utf8_lossy(&version).lines().next().unwrap_or_default().to_owned();
        let host = db.url.split(' ').find_map(|part| part.strip_prefix("host=")).expect("there is a host");
        // Only the server's account may use its socket, and PgBouncer refuses to run as root anyway.
        let owner = std::fs::metadata(host).unwrap();
        let directory = TempDir::new().unwrap();
        let own = directory.path().display();
        let mut settings = format!(
            "[databases]\n* = host={host} port=5432 user=postgres\n[pgbouncer]\nlisten_addr =\nlisten_port = {PORT}\n\
             unix_socket_dir = {own}\nauth_type = any\npool_mode = {mode}\ndefault_pool_size = 40\nmax_client_conn = 200\n\
             logfile = {own}/log\npidfile = {own}/pid\n"
        );
        if geteuid().is_root() {
            let user = User::from_uid(Uid::from_raw(owner.uid())).unwrap().expect("the server's account has a name");
            writeln!(settings, "user = {}", user.name).unwrap();
            let (uid, gid) = (Uid::from_raw(owner.uid()), Gid::from_raw(owner.gid()));
            nix::unistd::chown(directory.path(), Some(uid), Some(gid)).unwrap();
        }
        std::fs::write(directory.path().join("ini"), settings).unwrap();
        let mut command = Command::new(program);
        command.arg("-q").arg(directory.path().join("ini")).stdin(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn().unwrap();
        let socket = directory.path().join(format!(".s.PGSQL.{PORT}"));
        until_so("PgBouncer accepts connections", || UnixStream::connect(&socket).is_ok()).await;
        let url = db.url.replace(host, &own.to_string()).replace("port=5432", &format!("port={PORT}"));
        Self { url, direct: db.url.clone(), version, process, directory }
    }

    /// As a database for what runs the program.
    pub fn database(&self) -> Database {
        Database { url: self.url.clone() }
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    /// What is left in the sessions that PgBouncer keeps for whoever comes next, one line each.
    pub async fn left_behind(&self) -> Vec<String> {
        const SESSIONS: &str = "select count(*) from pg_stat_activity where datname = current_database() \
            and backend_type = 'client backend' and pid <> pg_backend_pid()";
        // PgBouncer itself prepares for its clients, and sets what they say at their start.
        const LEFT: &str = "select 'lock ' || classid || '/' || objid from pg_locks \
                where locktype = 'advisory' and pid = pg_backend_pid()
            union all select 'listens to ' || c from pg_listening_channels() c
            union all select 'prepared ' || name from pg_prepared_statements where name not like 'PGBOUNCER\\_%'
            union all select name || ' is ' || setting from pg_settings
             where source = 'session' and name not in ('application_name', 'client_encoding', 'DateStyle', 'TimeZone',
                'standard_conforming_strings', 'extra_float_digits', 'IntervalStyle', 'search_path', 'transaction_isolation',
                'transaction_read_only', 'transaction_deferrable')";
        let direct = connect(&self.direct).await;
        let sessions: i64 = direct.query_one(SESSIONS, &[]).await.unwrap().get(0);
        // Each transaction that stays open has another session.
        let mut clients: Vec<Client> = Vec::new();
        let mut left = Vec::new();
        for _ in 0..sessions {
            let (client, connection) = tokio_postgres::connect(&self.url, NoTls).await.unwrap();
            tokio::spawn(connection);
            client.batch_execute("begin").await.unwrap();
            for row in client.simple_query(LEFT).await.unwrap() {
                if let tokio_postgres::SimpleQueryMessage::Row(row) = row {
                    left.push(row.get(0).unwrap_or_default().to_owned());
                }
            }
            clients.push(client);
        }
        assert!(sessions > 0, "void: the pool is empty");
        left
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
