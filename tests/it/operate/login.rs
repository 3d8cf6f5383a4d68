//! The settings of a connection against a real server; what servers that misbehave are answered is tested beside the code.

use std::os::unix::fs::PermissionsExt;

use doorbell::Broker;
use doorbell_server::{EphemeralOptions, Server};

use crate::support::connect;

#[tokio::test(flavor = "multi_thread")]
async fn require_auth_is_kept_by_a_real_server_that_asks_for_scram() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let rules = directory.path().join("pg_hba.conf");
    std::fs::write(&rules, "local all anna scram-sha-256\nlocal all all trust\n").unwrap();
    let settings = vec![("hba_file".to_owned(), rules.display().to_string())];
    let server = Server::ephemeral(EphemeralOptions { settings, ..Default::default() }).await.unwrap();
    let trusted = server.connection_string("postgres");
    let client = connect(&trusted).await;
    client.batch_execute("create role anna login password 'sesame'").await.unwrap();
    let anna = trusted.replace("user=postgres", "user=anna password=sesame");
    for (url, setting, allowed) in [
        (&anna, "scram-sha-256", true),
        (&anna, "!none,!md5", true),
        (&anna, "md5,password", false),
        (&trusted, "none", true),
        (&trusted, "scram-sha-256", false),
    ] {
        let broker = Broker::connect(&format!("{url} require_auth={setting}")).await;
        let asked = async { broker?.client().await }.await.map(drop);
        assert_eq!(asked.is_ok(), allowed, "{setting}: {asked:?}");
    }
    server.stop().await.unwrap();
}
