//! The public settings: where the installation is and how to get there.

use std::{fmt, str::FromStr, time::Duration};

use doorbell_connection::{self as server, Environment, Messages, Process};
use tokio_postgres::Client;

use super::kept;
use crate::{
    error::{Error, Result},
    schema::Schema,
};

/// The variables that hold a whole connection string, in the order in which they are asked.
const URL_VARIABLES: [&str; 2] = ["DOORBELL_DATABASE_URL", "DATABASE_URL"];

/// Names the schema.
const SCHEMA_VARIABLE: &str = "DOORBELL_SCHEMA";
/// `on` or `off`.
const PREPARE_VARIABLE: &str = "DOORBELL_PREPARED_STATEMENTS";

/// Where the database is and how to connect to it, with the meaning that PostgreSQL's own client library gives to
/// every word; and in which schema the installation is.
///
/// What the connection string does not say is taken from the service file (`service`, `PGSERVICE`), then from the
/// `PG*` environment variables, then from the defaults; a password that is still missing is looked for in the
/// password file. Several hosts are tried one after the other. What differs from libpq, and why, is said of
/// [`doorbell_connection::Settings`], which reads all of this; `sslmode` and its kin, `target_session_attrs`,
/// `connect_timeout` (5 seconds for each host unless said), `keepalives_idle` and `tcp_user_timeout` among it.
///
/// `Display` and `Debug` show the target and nothing secret: `postgres://user@host:5432/database`.
///
/// ```
/// # fn main() -> doorbell::Result<()> {
/// let settings = doorbell::Settings::parse("postgres://app@db1,db2:5433/orders?target_session_attrs=primary&sslmode=disable")?;
/// assert_eq!(settings.to_string(), "postgres://app@db1:5432,db2:5433/orders");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Settings {
    server: server::Settings,
    schema: Schema,
    prepares: bool,
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

    /// Takes the connection string from `DOORBELL_DATABASE_URL`, else from `DATABASE_URL`; where neither is set,
    /// everything comes from the `PG*` variables and the defaults. Where none of them chooses a server or database, and
    /// this user's server of `doorbell up` is up, that one is meant, as the role for applications.
    ///
    /// # Errors
    ///
    /// As for [`Settings::parse`]; the message names the variable.
    pub fn from_env() -> Result<Self> {
        Self::from_env_in(&Process)
    }

    pub(super) fn from_env_in(environment: &dyn Environment) -> Result<Self> {
        for variable in URL_VARIABLES {
            if let Some(text) = environment.variable(variable)?.filter(|text| !text.trim().is_empty()) {
                return Self::parse_in(&text, environment).map_err(|error| error.context(variable));
            }
        }
        match kept::connection_string(environment).filter(|_| !kept::is_chosen(environment)) {
            Some(text) => {
                Self::parse_in(&text, environment).map_err(|error| error.context("the server of `doorbell up`"))
            }
            None => Self::parse_in("", environment),
        }
    }

    /// Whether the environment chooses a server or database: with a connection string, or with PGHOST, PGHOSTADDR, PGPORT,
    /// PGDATABASE, PGUSER or PGSERVICE.
    pub fn env_chooses() -> bool {
        kept::is_chosen(&Process)
    }

    pub(super) fn parse_in(text: &str, environment: &dyn Environment) -> Result<Self> {
        Ok(Self {
            server: server::Settings::parse_in(text, environment)?,
            schema: match environment.variable(SCHEMA_VARIABLE)?.filter(|name| !name.is_empty()) {
                Some(name) => Schema::new(name).map_err(|error| error.context(SCHEMA_VARIABLE))?,
                None => Schema::default(),
            },
            prepares: match environment.variable(PREPARE_VARIABLE)?.as_deref() {
                None | Some("" | "on") => true,
                Some("off") => false,
                Some(_) => return Err(Error::config(format!("{PREPARE_VARIABLE} must be on or off"))),
            },
        })
    }

    /// Chooses the schema of the installation; replaces what `DOORBELL_SCHEMA` says.
    pub fn with_schema(mut self, schema: Schema) -> Self {
        self.schema = schema;
        self
    }

    /// The schema of the installation: `DOORBELL_SCHEMA`, else `integration`.
    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    /// Whether statements may be prepared under names that live in the server's session; replaces what
    /// `DOORBELL_PREPARED_STATEMENTS` says, by default `on`. `off` is for transaction poolers that have their clients share
    /// those names, PgBouncer before 1.21 for one, and costs about a tenth of the speed. COPY is not used then.
    pub fn with_prepared_statements(mut self, prepares: bool) -> Self {
        self.prepares = prepares;
        self
    }

    /// Whether statements may be prepared under names.
    pub(crate) fn prepares(&self) -> bool {
        self.prepares
    }

    /// Sets `application_name`, which the server shows in `pg_stat_activity`; replaces the one that was read.
    pub fn application_name(self, name: impl Into<String>) -> Self {
        Self { server: self.server.application_name(name), ..self }
    }

    /// Sets `application_name` unless the user chose one.
    pub fn fallback_application_name(self, name: impl Into<String>) -> Self {
        Self { server: self.server.fallback_application_name(name), ..self }
    }

    /// The same server and user, another database.
    pub fn database(&self, name: impl Into<String>) -> Self {
        Self { server: self.server.database(name), ..self.clone() }
    }

    /// What the server shows as `application_name`; empty when none was set.
    pub(crate) fn application(&self) -> &str {
        self.server.application()
    }

    /// The user to log in as.
    pub fn user(&self) -> &str {
        self.server.user()
    }

    /// The name of the database.
    pub fn database_name(&self) -> &str {
        self.server.database_name()
    }

    /// The longest that one host may take, from name resolution to the end of the login; `None` is no limit.
    pub fn connect_timeout(&self) -> Option<Duration> {
        self.server.connect_timeout()
    }

    /// Opens a connection. The caller must poll the [`Messages`], or nothing else moves.
    pub(crate) async fn connect(&self) -> Result<(Client, Messages)> {
        Ok(self.server.connect().await?)
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
        fmt::Display::fmt(&self.server, f)
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.server, f)
    }
}
