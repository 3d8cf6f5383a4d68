//! The settings of a connection against a real server; what servers that misbehave are answered is tested beside the code.

use std::os::unix::fs::PermissionsExt;

use doorbell::Broker;
use doorbell_server::{EphemeralOptions, Server};

use crate::support::{connect, count, echo, grants, until};

/// A server that asks anna for her password, sesame, and nobody else; and a directory that is there as long as it is.
async fn asking_anna() -> (Server, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let rules = directory.path().join("pg_hba.conf");
    std::fs::write(&rules, "local all anna scram-sha-256\nlocal all all trust\n").unwrap();
    let settings = vec![("hba_file".to_owned(), rules.display().to_string())];
    let server = Server::ephemeral(EphemeralOptions { settings, ..Default::default() }).await.unwrap();
    let client = connect(&server.connection_string("postgres")).await;
    client.batch_execute("create role anna login password 'sesame'").await.unwrap();
    (server, directory)
}

#[tokio::test(flavor = "multi_thread")]
async fn require_auth_is_kept_by_a_real_server_that_asks_for_scram() {
    let (server, _directory) = asking_anna().await;
    let trusted = server.connection_string("postgres");
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

#[tokio::test(flavor = "multi_thread")]
async fn a_password_that_is_changed_costs_the_time_until_the_password_file_has_it() {
    let (server, directory) = asking_anna().await;
    let trusted = server.connection_string("postgres");
    Broker::connect(&trusted).await.unwrap().migrate().await.unwrap();
    let client = connect(&trusted).await;
    client.batch_execute(&grants("consumer", "anna")).await.unwrap();
    let file = directory.path().join("passwords");
    let write = |password: &str| {
        std::fs::write(&file, format!("*:*:*:anna:{password}\n")).unwrap();
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
    };
    write("sesame");
    let url = trusted.replace("user=postgres", &format!("user=anna passfile={}", file.display()));
    let (consumer, mut told) = echo(&Broker::connect(&url).await.unwrap(), "billing").await;
    let publish = "select integration.publish('shop', 'billing', 'n', '1')";
    let id = count(&client, publish).await;
    assert_eq!(told.next().await.id, id);
    for password in ["rosebud", "sesame"] {
        let rotate = format!(
            "alter role anna password '{password}'; \
             select pg_terminate_backend(pid) from pg_stat_activity where usename = 'anna'"
        );
        client.batch_execute(&rotate).await.unwrap();
        // Some sessions may just have been begun with the old one.
        until(
            &client,
            "none of its sessions is left",
            "select count(*) = 0 from (select pg_terminate_backend(pid) from pg_stat_activity where usename = 'anna') t",
        )
        .await;
        let id = count(&client, publish).await;
        write(password);
        assert_eq!(told.next().await.id, id, "{password}");
    }
    consumer.shutdown().await.unwrap();
    server.stop().await.unwrap();
}
