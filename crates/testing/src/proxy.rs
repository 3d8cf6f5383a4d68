//! A proxy between client and server that understands PostgreSQL's message frames and fails on command, in the ways a
//! network does: silence with open sockets, deafness, delay, reset, a reply that never comes.

mod cut;

use std::{
    collections::HashMap,
    io,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, BufWriter},
    net::{TcpListener, TcpStream, UnixStream},
    sync::{Notify, watch},
    task::JoinSet,
};

pub use self::cut::{Cut, Said};

/// The codes of untyped messages that ask for TLS, for GSSAPI, for a cancellation.
const ENCRYPTION: [u32; 2] = [80877103, 80877104];
const CANCEL: u32 = 80877102;

/// What is wrong with every connection at the moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weather {
    /// Nothing flows from the client to the server; the sockets stay open.
    pub stall_up: bool,
    /// Nothing flows from the server to the client.
    pub stall_down: bool,
    /// Notifications never arrive; everything else does.
    pub deaf: bool,
    /// Each message of the server comes so much later.
    pub delay: Duration,
}

impl Weather {
    pub const STALLED: Self = Self { stall_up: true, stall_down: true, deaf: false, delay: Duration::ZERO };
    pub const DEAF: Self = Self { stall_up: false, stall_down: false, deaf: true, delay: Duration::ZERO };
}

/// The proxy; dropping it closes every connection.
pub struct Proxy {
    /// The way through the proxy to the database that was given.
    pub url: String,
    shared: Arc<Shared>,
    _accepting: JoinSet<()>,
}

struct Shared {
    server: Mutex<PathBuf>,
    weather: watch::Sender<Weather>,
    /// Counts silences; a connection carries nothing any more when it changes.
    silence: watch::Sender<usize>,
    /// Counts resets; a connection ends when it changes.
    reset: watch::Sender<usize>,
    cut: Mutex<Option<Cut>>,
    fired: Notify,
    refuse: AtomicUsize,
    accepted: AtomicUsize,
    cancels: AtomicUsize,
}

impl Proxy {
    /// A proxy in front of the server of a `host=<directory> port=<port> …` connection string.
    pub async fn to(url: &str) -> Self {
        let (host, port) = place(url);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a loopback port is free");
        let way = format!("host=127.0.0.1 port={} sslmode=disable", listener.local_addr().expect("bound").port());
        let shared = Arc::new(Shared {
            server: Mutex::new(socket(&host, &port)),
            weather: watch::Sender::default(),
            silence: watch::Sender::default(),
            reset: watch::Sender::default(),
            cut: Mutex::default(),
            fired: Notify::new(),
            refuse: AtomicUsize::new(0),
            accepted: AtomicUsize::new(0),
            cancels: AtomicUsize::new(0),
        });
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(listener, shared.clone()));
        let url = url.replace(&format!("host={host} port={port}"), &way);
        Self { url, shared, _accepting: accepting }
    }

    /// From the next connection on it leads to another server.
    pub fn lead_to(&self, url: &str) {
        let (host, port) = place(url);
        *self.shared.server.lock().expect("no panic holds it") = socket(&host, &port);
    }

    pub fn set(&self, weather: Weather) {
        self.shared.weather.send_replace(weather);
    }

    /// Has the present connections carry nothing any more, for ever; new ones work.
    pub fn silence(&self) {
        self.shared.silence.send_modify(|count| *count += 1);
    }

    /// Resets every open connection.
    pub fn reset(&self) {
        self.shared.reset.send_modify(|count| *count += 1);
    }

    /// Resets the next `count` connections as soon as they are made.
    pub fn refuse(&self, count: usize) {
        self.shared.refuse.store(count, Ordering::SeqCst);
    }

    pub fn cut(&self, cut: Cut) {
        *self.shared.cut.lock().expect("no panic holds it") = Some(cut);
    }

    /// Takes back a cut that has not happened; false: it has.
    pub fn mend(&self) -> bool {
        self.shared.cut.lock().expect("no panic holds it").take().is_some()
    }

    /// Completes when a cut has happened since the last call.
    pub async fn was_cut(&self) {
        crate::soon("the connection is cut", self.shared.fired.notified()).await;
    }

    /// Connections that were made, refused ones included.
    pub fn accepted(&self) -> usize {
        self.shared.accepted.load(Ordering::SeqCst)
    }

    /// Cancel requests that were sent.
    pub fn cancels(&self) -> usize {
        self.shared.cancels.load(Ordering::SeqCst)
    }
}

fn place(url: &str) -> (String, String) {
    let value = |key: &str| {
        let start = url.find(&format!("{key}=")).expect("the key is there") + key.len() + 1;
        url[start..].split(' ').next().expect("split yields one").to_owned()
    };
    (value("host"), value("port"))
}

fn socket(host: &str, port: &str) -> PathBuf {
    PathBuf::from(host).join(format!(".s.PGSQL.{port}"))
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((client, _)) = listener.accept().await else { continue };
        shared.accepted.fetch_add(1, Ordering::SeqCst);
        let _ = client.set_nodelay(true);
        // Closing resets, so that the client notices at once and in mid-message.
        let _ = socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO));
        if shared.refuse.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_err() {
            connections.spawn(carry(client, shared.clone()));
        }
        while connections.try_join_next().is_some() {}
    }
}

async fn carry(mut client: TcpStream, shared: Arc<Shared>) {
    let mut reset = shared.reset.subscribe();
    let mut silence = shared.silence.subscribe();
    let server = shared.server.lock().expect("no panic holds it").clone();
    let Ok(mut server) = UnixStream::connect(server).await else { return };
    let swallow = AtomicBool::new(false);
    let ((from_client, to_client), (from_server, to_server)) = (client.split(), server.split());
    let silenced = tokio::select! {
        _ = up(&shared, &swallow, from_client, to_server) => false,
        _ = down(&shared, &swallow, from_server, to_client) => false,
        _ = reset.changed() => false,
        _ = silence.changed() => true,
    };
    if silenced {
        let _ = reset.changed().await;
    }
}

/// Client to server.
async fn up(
    shared: &Shared,
    swallow: &AtomicBool,
    client: impl AsyncRead + Unpin,
    server: impl AsyncWrite + Unpin,
) -> io::Result<()> {
    let (mut client, mut server) = (BufReader::new(client), BufWriter::new(server));
    let mut weather = shared.weather.subscribe();
    let mut statements = HashMap::new();
    let mut bound = String::new();
    let (mut started, mut silent) = (false, false);
    loop {
        let frame = read_frame(&mut client, started).await?;
        let _ = weather.wait_for(|weather| !weather.stall_up).await;
        if !started {
            let code = u32::from_be_bytes(frame[4..8].try_into().expect("four bytes"));
            shared.cancels.fetch_add((code == CANCEL).into(), Ordering::SeqCst);
            assert!(!ENCRYPTION.contains(&code), "the proxy is to be used with sslmode=disable");
            started = true;
        } else {
            let mut texts = frame[5..].split(|&byte| byte == 0).map(|text| String::from_utf8_lossy(text).into_owned());
            let mut text = || texts.next().unwrap_or_default();
            match frame[0] {
                b'Q' => bound = text(),
                b'P' => drop(statements.insert(text(), text())),
                b'B' => {
                    bound = statements
                        .get(&{
                            text();
                            text()
                        })
                        .cloned()
                        .unwrap_or_default()
                }
                _ => {}
            }
            let said = Said { tag: frame[0], sql: &bound };
            let mut cut = shared.cut.lock().expect("no panic holds it");
            match &*cut {
                Some(Cut::Unsent(which)) if which(&said) => {
                    *cut = None;
                    shared.fired.notify_one();
                    return Ok(());
                }
                Some(Cut::Silent(which)) if which(&said) => {
                    *cut = None;
                    shared.fired.notify_one();
                    silent = true;
                }
                Some(Cut::Unanswered(which)) if which(&said) => {
                    *cut = None;
                    swallow.store(true, Ordering::SeqCst);
                }
                _ => {}
            }
        }
        if silent {
            std::future::pending::<()>().await;
        }
        server.write_all(&frame).await?;
        if client.buffer().is_empty() {
            server.flush().await?;
        }
    }
}

/// Server to client.
async fn down(
    shared: &Shared,
    swallow: &AtomicBool,
    server: impl AsyncRead + Unpin,
    client: impl AsyncWrite + Unpin,
) -> io::Result<()> {
    let (mut server, mut client) = (BufReader::new(server), BufWriter::new(client));
    let mut weather = shared.weather.subscribe();
    loop {
        let frame = read_frame(&mut server, true).await?;
        let now = *weather.wait_for(|weather| !weather.stall_down).await.expect("the proxy is there");
        if swallow.load(Ordering::SeqCst) {
            // ReadyForQuery: whatever was to be done is done.
            if frame[0] == b'Z' {
                shared.fired.notify_one();
                return Ok(());
            }
            continue;
        }
        if now.deaf && frame[0] == b'A' {
            continue;
        }
        if shared.is_cut_here() {
            return Ok(());
        }
        if !now.delay.is_zero() {
            client.flush().await?;
            tokio::time::sleep(now.delay).await;
        }
        client.write_all(&frame).await?;
        if server.buffer().is_empty() {
            client.flush().await?;
        }
    }
}

impl Shared {
    /// Counts a message of the server.
    fn is_cut_here(&self) -> bool {
        let mut cut = self.cut.lock().expect("no panic holds it");
        let Some(Cut::Reply(left)) = &mut *cut else { return false };
        *left -= 1;
        let here = *left == 0;
        if here {
            *cut = None;
            self.fired.notify_one();
        }
        here
    }
}

async fn read_frame(from: &mut (impl AsyncRead + Unpin), typed: bool) -> io::Result<Vec<u8>> {
    let length_at = usize::from(typed);
    let mut frame = vec![0; length_at + 4];
    from.read_exact(&mut frame).await?;
    let length = u32::from_be_bytes(frame[length_at..].try_into().expect("four bytes")) as usize;
    frame.resize(length_at + length, 0);
    from.read_exact(&mut frame[length_at + 4..]).await?;
    Ok(frame)
}
