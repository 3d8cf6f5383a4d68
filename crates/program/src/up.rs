//! `doorbell up`: a server to develop against.

use std::{
    io::{ErrorKind, Write},
    path::Path,
};

use clap::Args;
use doorbell::{Broker, operate::Verb};
use doorbell_server::{SUPERUSER, kept};
use serde_json::json;

use crate::{
    Global,
    consent::consent,
    exit::{Exit, Failure},
    output,
};

/// Who the commands of this program are on that server: may migrate and grant, and is no superuser.
pub(crate) const COMMANDS: &str = "doorbell";
/// Who applications are: everything but the owner. They may have tables of their own, as the tutorial does.
const APPLICATION: &str = "doorbell_app";

/// The roles, and the schema for the one that cannot log in and owns nothing else, so that a hole in the schema is none in
/// the server. One at a time; the lock is one that only a superuser can take.
const ROLES: &str = "lock table pg_authid in share row exclusive mode; \
    do $$ begin \
    if to_regrole('doorbell_owner') is null then create role doorbell_owner; end if; \
    if to_regrole('doorbell') is null then create role doorbell login in role doorbell_owner, pg_monitor; end if; \
    if to_regrole('doorbell_app') is null then create role doorbell_app login; end if; \
    if to_regnamespace('public') is not null then grant create on schema public to doorbell_app; end if; \
    if to_regnamespace('integration') is null then create schema integration authorization doorbell_owner; end if; \
    execute format('grant doorbell_owner to %I', current_user); \
    execute format('grant create on database %I to doorbell', current_database()); end $$";
/// A schema that is there already stays whose it is, but for a superuser's.
const HAND_OVER: &str = "lock table pg_authid in share row exclusive mode; do $$ begin \
    if (select r.rolsuper from pg_namespace n join pg_roles r on r.oid = n.nspowner where n.nspname = 'integration') then \
        perform integration.hand_over('doorbell_owner'); \
    end if; end $$";
const VERBS: [Verb; 3] = [Verb::Publish, Verb::Consume, Verb::Operate];

/// Start a PostgreSQL of your own that stays, with the schema in it
///
/// Its data survives restarts. It listens on no port: only you can reach it. Running it again finds the same server. What it
/// prints is for applications, as a role that publishes, consumes and operates. The commands of doorbell find it by themselves,
/// as one that may also migrate and grant; neither is a superuser, whose connection string --admin prints.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  doorbell up
  export DATABASE_URL=\"$(doorbell up)\"
  psql \"$(doorbell up)\" -c 'select * from integration.stats'
  doorbell down                                   stop it; the data stays")]
pub(crate) struct Up {
    /// Fetch PostgreSQL without asking where none is installed (or set DOORBELL_FETCH_PG=1)
    #[arg(long)]
    yes: bool,

    /// Print the superuser's connection string instead: for migrations of your own, and for other roles
    #[arg(long)]
    admin: bool,
}

impl Up {
    pub(crate) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        let options = kept::KeptOptions { consent: consent(self.yes), ..global.database.kept_options() };
        let kept = kept::up(&options).await?;
        let admin = kept.connection_string("postgres");
        let schema_version = prepared(&admin).await?;
        let connection_string =
            if self.admin { kept.uri(SUPERUSER, "postgres") } else { kept.uri(APPLICATION, "postgres") };
        for_applications(kept.state_directory(), Some(&kept.uri(APPLICATION, "postgres")))?;
        if global.json {
            output::json(&json!({
                "connection_string": connection_string,
                "admin_connection_string": admin,
                "version": kept.version(),
                "pid": kept.pid(),
                "state_directory": kept.state_directory(),
                "schema_version": schema_version,
            }))?;
            return Ok(Exit::Done);
        }
        eprintln!(
            "PostgreSQL {} is up (process {}), in {}",
            kept.version(),
            kept.pid(),
            kept.state_directory().display()
        );
        let whose =
            if self.admin { "the superuser's" } else { "an application's; the superuser's: doorbell up --admin" };
        // They go where the environment says, if it says anything.
        match global.database.is_chosen() {
            true => eprintln!(
                "The commands of doorbell go where DATABASE_URL or PG… point; any program reaches it so ({whose}):"
            ),
            false => eprintln!(
                "The commands of doorbell and Broker::from_env find it by themselves; other programs so, as \
                 DATABASE_URL ({whose}):"
            ),
        }
        output::line(&connection_string)?;
        eprintln!("\nTry:");
        eprintln!("  doorbell publish billing --source shop --type order.placed --data '{{\"order\": 7}}'");
        eprintln!("  doorbell peek billing");
        eprintln!("  doorbell consume billing --exec cat");
        eprintln!("  psql {}", shell_words::quote(&connection_string));
        eprintln!("Stop it with: doorbell down");
        Ok(Exit::Done)
    }
}

/// Says where programs find it whose environment chooses no other, or that it is not there any more. The library reads this.
/// The directory may be the server's account's, and root must not write through a link that is there: the file is a new one,
/// and takes the place of whatever had its name.
pub(crate) fn for_applications(state_directory: &Path, connection_string: Option<&str>) -> Result<(), Failure> {
    let file = state_directory.join("application");
    let written = match connection_string {
        Some(text) => {
            let fresh = state_directory.join(format!("application.{}", std::process::id()));
            let _ = std::fs::remove_file(&fresh);
            std::fs::File::create_new(&fresh)
                .and_then(|mut opened| writeln!(opened, "{text}"))
                .and_then(|()| std::fs::rename(&fresh, &file))
        }
        None => std::fs::remove_file(&file),
    };
    match written {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(Failure::new(Exit::Failed, format!("{}: {error}", file.display())))
        }
        _ => Ok(()),
    }
}

/// Makes the schema and the roles; returns the schema's version.
async fn prepared(admin: &str) -> Result<i32, Failure> {
    let broker = Broker::connect(admin).await?;
    execute(&broker, ROLES).await?;
    let version = broker.migrate().await?.version;
    execute(&broker, HAND_OVER).await?;
    for verb in VERBS {
        broker.operator().grant(APPLICATION, verb).await?;
    }
    broker.close().await;
    Ok(version)
}

async fn execute(broker: &Broker, sql: &str) -> Result<(), Failure> {
    let mut client = broker.client().await?;
    let tx = client.transaction().await?;
    let done = async {
        tx.batch_execute(sql).await?;
        tx.commit().await
    };
    Ok(done.await.map_err(doorbell::Error::from)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_link_in_the_state_directory_leads_to_is_not_written() {
        let kept = tempfile::tempdir().unwrap();
        let (theirs, file) = (kept.path().join("theirs"), kept.path().join("application"));
        std::fs::write(&theirs, "theirs").unwrap();
        std::os::unix::fs::symlink(&theirs, &file).unwrap();
        for_applications(kept.path(), Some("host=here")).unwrap();
        assert_eq!(std::fs::read_to_string(&theirs).unwrap(), "theirs");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "host=here\n");
        assert!(!std::fs::symlink_metadata(&file).unwrap().is_symlink());
    }
}
