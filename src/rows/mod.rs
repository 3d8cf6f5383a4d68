//! What the database says, row by row: the nouns of [`operate`](crate::operate).

mod audit;
mod capture;
mod contract;
mod extract;
mod keys;
#[cfg(feature = "metrics")]
mod measured;
mod message;
mod process;
mod request;
mod rights;
mod schedule;
mod step;
mod summed;
mod target;
mod topic;
mod upkeep;

pub use audit::{AuditEvent, AuditPage};
pub use capture::{Capture, CaptureRow};
pub use contract::{Breach, Contract, ContractRow};
pub use extract::{Extract, ExtractFrom, ExtractRow, Extracted, Watermark};
pub use keys::{KeyRow, KeyState};
#[cfg(feature = "metrics")]
pub(crate) use measured::{MeasuredExtract, MeasuredSources};
pub use message::{Coalescing, Explanation, MessageRow, Page, StoredMessage};
pub use process::ProcessRow;
pub use request::WaitingRequest;
pub use rights::{AppRights, RightsRow, Verb};
pub use schedule::{Missed, Schedule, ScheduleRow, When};
pub use step::SavedStep;
pub use summed::{BacklogRow, ErrorGroup, ErrorRate, Traffic};
pub use target::{BreakerRow, TargetState, TargetStats};
pub use topic::{Replay, ReplayPart, Subscription, TopicRow};
pub use upkeep::{Maintained, MaintenanceDue};
