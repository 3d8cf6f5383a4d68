//! The public settings: where the database is and how to get there.

use std::{
    fmt,
    path::PathBuf,
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize},
    },
    time::Duration,
};

use tokio_postgres::config::ChannelBinding;

use super::{
    authentication::RequireAuth,
    environment::{Environment, Process},
    host::Host,
    keys::Values,
    passfile,
    role::Session,
    secret::Secret,
    socket::{Keepalive, SocketOptions},
    ssl::Ssl,
    string,
};
use crate::error::{Error, Result};

const DEADLINE: Duration = Duration::from_secs(5);
const KEEPALIVE_IDLE: Duration = Duration::from_secs(10);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_COUNT: u32 = 3;
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(20);

/// Where the database is and how to connect to it, with the meaning that PostgreSQL's own client library gives to
/// every word.
///
/// What the connection string does not say is taken from the service file (`service`, `PGSERVICE`), then from the
/// `PG*` environment variables, then from the defaults; a password that is still missing is looked for in the
/// password file (`passfile`, `PGPASSFILE`, `~/.pgpass`) whenever a connection is made.
///
/// The defaults are libpq's, except where a long-lived consumer needs better ones:
///
/// | key | default |
/// |---|---|
/// | `host` | the usual socket directories, then `localhost` |
/// | `user`, `dbname` | the operating system's user; the user |
/// | `sslmode` | `prefer` |
/// | `connect_timeout` | 5 seconds for each host, from name resolution to the end of the login; 0 is no limit |
/// | `keepalives_idle`, `keepalives_interval`, `keepalives_count` | 10 seconds, 5 seconds, 3 |
/// | `tcp_user_timeout` | 20000 milliseconds |
///
/// Hosts are tried in order unless `load_balance_hosts=random`, but for two things that libpq does not do: the one that let
/// us in last comes first, and one that has been silent for 250 ms is not waited for before the next is asked, too. As in
/// libpq, a server that refuses the user ends the search; anything else moves on to the next host.
///
/// Three things are stricter than in libpq: a file that `sslrootcert` or `sslcert` names must exist, a server certificate
/// must carry its name as a subject alternative name, and a password is not sent in clear text or as an MD5 hash to another
/// machine without TLS unless `require_auth` names that way. Keys that would have to be obeyed to be safe but cannot be
/// (`sslcrl`, `requirepeer`, …) are errors. That another machine is spoken to without TLS although `sslmode` does not say
/// `disable` is logged once.
///
/// `Display` and `Debug` show the target and nothing secret: `postgres://user@host:5432/database`.
///
/// ```
/// # fn main() -> doorbell_connection::Result<()> {
/// let settings = doorbell_connection::Settings::parse("postgres://app@db1,db2:5433/orders?target_session_attrs=primary&sslmode=disable")?;
/// assert_eq!(settings.to_string(), "postgres://app@db1:5432,db2:5433/orders");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Settings {
    pub(super) hosts: Vec<Host>,
    pub(super) shuffle: bool,
    /// The place of the host that let us in last; shared by clones.
    pub(super) last_good: Arc<AtomicUsize>,
    pub(super) session: Session,
    user: String,
    database: String,
    password: Option<Secret>,
    passfile: Option<PathBuf>,
    application_name: Option<String>,
    options: String,
    pub(super) ssl: Ssl,
    channel_binding: ChannelBinding,
    pub(super) require_auth: RequireAuth,
    /// That a connection is not encrypted was said.
    pub(super) warned: Arc<AtomicBool>,
    /// For each host, name resolution to login; none is no limit.
    pub(super) deadline: Option<Duration>,
    pub(super) socket: SocketOptions,
}

impl Settings {
    /// Reads a connection string: a URI (`postgres://user:password@host:5432/database?sslmode=require`) or
    /// `key=value` pairs (`host=/var/run/postgresql dbname=orders`), both as in libpq. The empty string takes
    /// everything from the environment.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) for text that cannot be read, an unknown or unsupported key, an
    /// unusable value, or a service that is not defined. The message names the key and never shows a value.
    pub fn parse(text: &str) -> Result<Self> {
        Self::parse_in(text, &Process)
    }

    /// The same with other surroundings than the process's.
    ///
    /// # Errors
    ///
    /// As for [`Settings::parse`].
    pub fn parse_in(text: &str, environment: &dyn Environment) -> Result<Self> {
        let values = Values::complete(string::pairs(text)?, environment)?;
        if values
            .get("client_encoding")
            .is_some_and(|name| !matches!(name, "UTF8" | "UTF-8" | "utf8" | "utf-8" | "auto"))
        {
            return Err(values.refuse("client_encoding", "must be UTF8"));
        }
        let user = match values.get("user") {
            Some(user) => user.to_owned(),
            None => environment.login().ok_or_else(|| Error::config("`user` is missing and the system knows none"))?,
        };
        let text = |key| values.get(key).map(str::to_owned);
        Ok(Self {
            hosts: Host::list(&values)?,
            shuffle: values.choice("load_balance_hosts", &[("disable", false), ("random", true)])?.unwrap_or(false),
            last_good: Arc::default(),
            session: Session::read(&values)?,
            database: text("dbname").unwrap_or_else(|| user.clone()),
            user,
            password: text("password").map(Secret::new),
            passfile: passfile(&values, environment),
            application_name: text("application_name").or_else(|| text("fallback_application_name")),
            options: text("options").unwrap_or_default(),
            ssl: Ssl::read(&values, environment)?,
            channel_binding: channel_binding(&values)?,
            require_auth: RequireAuth::read(&values)?,
            warned: Arc::default(),
            deadline: deadline(&values)?,
            socket: socket_options(&values)?,
        })
    }

    /// Sets `application_name`, which the server shows in `pg_stat_activity`; replaces the one that was read.
    pub fn application_name(mut self, name: impl Into<String>) -> Self {
        self.application_name = Some(name.into());
        self
    }

    /// Sets `application_name` unless the user chose one.
    pub fn fallback_application_name(mut self, name: impl Into<String>) -> Self {
        self.application_name.get_or_insert_with(|| name.into());
        self
    }

    /// The same server and user, another database.
    pub fn database(&self, name: impl Into<String>) -> Self {
        Self { database: name.into(), ..self.clone() }
    }

    /// What the server shows as `application_name`; empty when none was set.
    pub fn application(&self) -> &str {
        self.application_name.as_deref().unwrap_or_default()
    }

    /// The user to log in as.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The name of the database.
    pub fn database_name(&self) -> &str {
        &self.database
    }

    /// The longest that one host may take, from name resolution to the end of the login; `None` is no limit.
    pub fn connect_timeout(&self) -> Option<Duration> {
        self.deadline
    }

    /// What the driver needs for the login on one host.
    pub(super) async fn login(&self, host: &Host) -> tokio_postgres::Config {
        let mut config = tokio_postgres::Config::new();
        config.user(&self.user).dbname(&self.database).channel_binding(self.channel_binding);
        if !self.options.is_empty() {
            config.options(&self.options);
        }
        if let Some(name) = &self.application_name {
            config.application_name(name);
        }
        let password = match (&self.password, &self.passfile) {
            (Some(password), _) => Some(password.clone()),
            (None, Some(path)) => passfile::lookup(path, host, &self.database, &self.user).await,
            (None, None) => None,
        };
        if let Some(password) = password {
            config.password(password.expose());
        }
        config
    }
}

impl FromStr for Settings {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::parse(text)
    }
}

impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "postgres://{}@", Encoded(&self.user))?;
        for (at, host) in self.hosts.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            write!(f, "{comma}{host}")?;
        }
        write!(f, "/{}", Encoded(&self.database))
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Settings({self})")
    }
}

/// Percent-encodes what has a meaning in a URI or on a terminal.
struct Encoded<'a>(&'a str);

impl fmt::Display for Encoded<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            if character.is_alphanumeric() || "-._~$".contains(character) {
                write!(f, "{character}")?;
            } else {
                let mut bytes = [0; 4];
                for byte in character.encode_utf8(&mut bytes).bytes() {
                    write!(f, "%{byte:02X}")?;
                }
            }
        }
        Ok(())
    }
}

fn channel_binding(values: &Values) -> Result<ChannelBinding> {
    let choices = [
        ("disable", ChannelBinding::Disable),
        ("prefer", ChannelBinding::Prefer),
        ("require", ChannelBinding::Require),
    ];
    Ok(values.choice("channel_binding", &choices)?.unwrap_or(ChannelBinding::Prefer))
}

/// `connect_timeout` in seconds; zero and less mean no limit, as in libpq.
fn deadline(values: &Values) -> Result<Option<Duration>> {
    Ok(match values.integer("connect_timeout")? {
        None => Some(DEADLINE),
        Some(seconds) => positive(seconds).map(|seconds| Duration::from_secs(seconds.into())),
    })
}

fn socket_options(values: &Values) -> Result<SocketOptions> {
    // Zero leaves a limit to the operating system.
    let seconds = |key, default| {
        let given = values.integer(key)?;
        Ok::<_, Error>(given.map_or(Some(default), |n| positive(n).map(|n| Duration::from_secs(n.into()))))
    };
    let keepalive = Keepalive {
        idle: seconds("keepalives_idle", KEEPALIVE_IDLE)?,
        interval: seconds("keepalives_interval", KEEPALIVE_INTERVAL)?,
        count: values.integer("keepalives_count")?.map_or(Some(KEEPALIVE_COUNT), positive),
    };
    let user_timeout = match values.integer("tcp_user_timeout")? {
        None => Some(TCP_USER_TIMEOUT),
        Some(milliseconds) => positive(milliseconds).map(|n| Duration::from_millis(n.into())),
    };
    let keepalives = values.integer("keepalives")?.is_none_or(|flag| flag != 0);
    Ok(SocketOptions { keepalive: keepalives.then_some(keepalive), user_timeout })
}

fn positive(number: i32) -> Option<u32> {
    u32::try_from(number).ok().filter(|&number| number > 0)
}

/// The password file, unless others can read it: a warning once, here, rather than at every connection.
fn passfile(values: &Values, environment: &dyn Environment) -> Option<PathBuf> {
    let path = match values.get("passfile") {
        Some(file) => PathBuf::from(file),
        None => environment.home()?.join(".pgpass"),
    };
    if values.get("password").is_none() && passfile::exposed(&path) {
        tracing::warn!(
            path = %path.display(),
            "the password file is ignored because others can read it; its mode should be 0600"
        );
    }
    Some(path)
}
