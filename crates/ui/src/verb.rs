//! What can be done to messages, as addresses name it.

use doorbell::{
    operate::{Action, Status},
    written::{duration, shell::quoted},
};

use super::words::given;

/// A verb, named as the program's command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    Redrive,
    Retry,
    Cancel,
    Move,
}

impl Verb {
    const ALL: [Self; 4] = [Self::Redrive, Self::Retry, Self::Cancel, Self::Move];

    pub(super) fn read(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|verb| verb.name() == name)
    }

    /// Those that messages of a status allow.
    pub(super) fn of(status: Status) -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(move |verb| verb.is_possible_from(status))
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Redrive => "redrive",
            Self::Retry => "retry",
            Self::Cancel => "cancel",
            Self::Move => "move",
        }
    }

    pub(super) fn done(self) -> &'static str {
        match self {
            Self::Redrive => "redriven",
            Self::Retry => "retried",
            Self::Cancel => "cancelled",
            Self::Move => "moved",
        }
    }

    /// What becomes of the messages.
    pub(super) fn effect(self) -> &'static str {
        match self {
            Self::Redrive => "They are pending again, with all their retries.",
            Self::Retry => {
                "They are tried now; scheduled ones keep the retries they have used, failed ones have all of theirs again."
            }
            Self::Cancel => "They are not handled; one that is running finds that it has lost its lease.",
            Self::Move => {
                "They wait for another target as they did for theirs; failed and cancelled ones stay what they are."
            }
        }
    }

    /// What more has to be said: for the form, and as the command names it.
    pub(super) fn more(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Redrive => Some(("Spread over (10m; nothing: at once)", "spread")),
            Self::Retry => None,
            Self::Cancel => Some(("Reason, kept with the messages", "reason")),
            Self::Move => Some(("To which target", "to")),
        }
    }

    /// The library's, with what more was said; else what is wrong with that.
    pub(super) fn action(self, more: &str) -> Result<Action, String> {
        Ok(match self {
            Self::Redrive => Action::Redrive(given(more).map(duration::parse).transpose()?),
            Self::Retry => Action::Retry,
            Self::Cancel => Action::Cancel((!more.is_empty()).then(|| more.to_owned())),
            Self::Move => Action::MoveTo(more.to_owned()),
        })
    }

    /// Whether messages of a status allow it.
    pub(super) fn is_possible_from(self, status: Status) -> bool {
        self.action("").is_ok_and(|action| action.possible_from().contains(&status))
    }

    /// A command with what more was said.
    pub(super) fn with_more(self, command: String, more: &str) -> String {
        match self.more() {
            Some((_, option)) if !more.is_empty() => format!("{command} --{option} {}", quoted(more)),
            _ => command,
        }
    }
}
