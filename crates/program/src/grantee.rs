//! Who is granted something, or loses it: a role, and for what.

use clap::Args;
use doorbell::operate::Verb;
use serde_json::json;

use crate::{Global, exit::Failure, output};

#[derive(Args, Debug)]
pub(crate) struct Grantee {
    /// The role, as PostgreSQL knows it
    pub(crate) role: String,

    /// For all applications
    #[arg(value_name = "VERB", required_unless_present = "app", conflicts_with = "app")]
    verb: Option<Verb>,

    /// The application
    #[arg(long, value_name = "NAME")]
    app: Option<String>,
}

/// For what.
pub(crate) enum Scope {
    App(String),
    Verb(Verb),
}

impl Grantee {
    pub(crate) fn scope(&self) -> Scope {
        match self.verb {
            Some(verb) => Scope::Verb(verb),
            None => Scope::App(self.app.clone().unwrap_or_default()),
        }
    }

    /// Says as JSON what was done, where that is asked for.
    pub(crate) fn tell(&self, global: &Global) -> Result<(), Failure> {
        if global.json {
            output::json(&match self.scope() {
                Scope::Verb(verb) => json!({ "role": self.role, "verb": verb }),
                Scope::App(app) => json!({ "role": self.role, "app": app }),
            })?;
        }
        Ok(())
    }
}
