//! Who may do what.

use serde::Serialize;

use crate::error::{Error, Result};

/// What a role can be allowed, for all applications.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Verb {
    /// Publish, as any source and to any target.
    Publish,
    /// Take and settle messages, of any target.
    Consume,
    /// Look at everything, payloads too.
    Look,
    /// Look, and act on messages, targets and settings.
    Operate,
}

impl Verb {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Publish, Self::Consume, Self::Operate, Self::Look];

    /// As the database names it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Consume => "consume",
            Self::Look => "look",
            Self::Operate => "operate",
        }
    }
}

impl std::str::FromStr for Verb {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|verb| verb.as_str() == name).ok_or_else(|| {
            let all = Self::ALL.map(Self::as_str).join(", ");
            Error::invalid(format!("there is no verb {name:?}: use one of {all}"))
        })
    }
}

/// What a role may do for one application; see [`Operator::grant_app`](crate::operate::Operator::grant_app). By default
/// nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AppRights {
    /// The targets to which it may publish as the application; `*`: to any. Default: none.
    pub publish_to: Vec<String>,
    /// Whether it may take and settle what was published for the application. Default: no.
    pub consume: bool,
    /// The highest priority it may give. Default: any.
    pub max_priority: Option<i32>,
    /// How many of the application's messages may be pending or scheduled for each target, at least 1; needs targets by name.
    /// Default: any number.
    pub max_pending: Option<i32>,
}

/// A line of who may what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RightsRow {
    /// The role; may be gone.
    pub role: String,
    /// For which application; `None`: for all.
    pub app: Option<String>,
    /// `publish`, `consume`, `look`, `operate`.
    pub verbs: Vec<String>,
    /// To which targets, where it publishes as one application.
    pub publish_to: Vec<String>,
    /// The highest priority it may give.
    pub max_priority: Option<i32>,
    /// How many messages may wait for each target.
    pub max_pending: Option<i32>,
    /// Why it is not as it stands here, and what to do.
    pub wrong: Option<String>,
}
