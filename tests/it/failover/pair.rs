//! A primary and its streaming standby, which falls behind when told to and is promoted when the primary is killed.

use std::{os::unix::fs::MetadataExt, path::Path};

use doorbell_server::{EphemeralOptions, Server};
use tokio::process::Command;
use tokio_postgres::Client;

use crate::support::{connect, until};

pub(crate) struct Pair {
    pub(crate) primary: Server,
    pub(crate) standby: Server,
}

impl Pair {
    /// Both run; the standby streams asynchronously.
    pub(crate) async fn start() -> Self {
        // A primary that is killed and comes back has what its standby still needs.
        let settings = [("wal_keep_size", "1GB"), ("max_prepared_transactions", "10")];
        let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        let options = EphemeralOptions { durable: true, settings, ..Default::default() };
        let primary = Server::ephemeral(options.clone()).await.unwrap();
        let standby = Server::ephemeral(options).await.unwrap();
        let mut pair = Self { primary, standby };
        pair.copy().await;
        pair
    }

    /// The standby begins anew, as a copy of the primary.
    async fn copy(&mut self) {
        self.standby.kill().await.unwrap();
        let data = self.standby.directory().join("data");
        let owner = std::fs::metadata(&data).unwrap();
        std::fs::remove_dir_all(&data).unwrap();
        let mut copy = Command::new(self.primary.installation().bin_directory().join("pg_basebackup"));
        copy.arg("-d").arg(self.primary.connection_string("postgres").replace(" dbname=postgres", ""));
        copy.arg("-D").arg(&data).args(["-R", "-X", "stream", "-c", "fast"]);
        let copied = copy.output().await.unwrap();
        assert!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
        give(&data, owner.uid(), owner.gid());
        self.standby.start_again().await.unwrap();
        let streams = "select exists (select from pg_stat_wal_receiver where status = 'streaming')";
        until(&self.client_of_standby().await, "the standby streams", streams).await;
    }

    /// Leads to whichever of the two is the primary.
    pub(crate) fn url(&self) -> String {
        let host = |server: &Server| server.directory().to_str().expect("a plain path").to_owned();
        let (one, two) = (host(&self.primary), host(&self.standby));
        format!("host={one},{two} port=5432,5432 user=postgres dbname=postgres target_session_attrs=read-write")
    }

    pub(crate) async fn client_of_primary(&self) -> Client {
        connect(&self.primary.connection_string("postgres")).await
    }

    pub(crate) async fn client_of_standby(&self) -> Client {
        connect(&self.standby.connection_string("postgres")).await
    }

    /// The standby has what the primary has now, and will get nothing more.
    pub(crate) async fn stop_replicating(&self) {
        // So that claims, whose commits do not wait, are sent as well.
        let primary = self.client_of_primary().await;
        primary.batch_execute("checkpoint").await.unwrap();
        let here: String = primary.query_one("select pg_current_wal_lsn()::text", &[]).await.unwrap().get(0);
        let standby = self.client_of_standby().await;
        until(&standby, "the standby has caught up", &format!("select pg_last_wal_replay_lsn() >= '{here}'")).await;
        standby.batch_execute("alter system set primary_conninfo = ''").await.unwrap();
        standby.batch_execute("select pg_reload_conf()").await.unwrap();
        until(&standby, "it receives nothing", "select not exists (select from pg_stat_wal_receiver)").await;
    }

    /// The primary dies, and the standby takes its place at once.
    pub(crate) async fn fail_over(&mut self) {
        self.primary.kill().await.unwrap();
        let standby = self.client_of_standby().await;
        assert!(standby.query_one("select pg_promote()", &[]).await.unwrap().get::<_, bool>(0));
    }

    /// After a failover the old primary becomes the standby of the new one, and forgets what only it had.
    pub(crate) async fn turn_round(&mut self) {
        std::mem::swap(&mut self.primary, &mut self.standby);
        self.copy().await;
    }
}

/// What root has copied belongs to the server's account.
fn give(path: &Path, uid: u32, gid: u32) {
    std::os::unix::fs::lchown(path, Some(uid), Some(gid)).unwrap();
    if path.is_dir() && !path.is_symlink() {
        std::fs::read_dir(path).unwrap().for_each(|entry| give(&entry.unwrap().path(), uid, gid));
    }
}
