//! What operators rely on: the doctor, the maintenance, and that tables stay small.

mod audited;
mod change;
mod copies;
mod differing;
mod doctor;
mod hand_edits;
mod login;
mod maintenance;
mod retention;
mod roles;
mod surroundings;

pub(crate) use maintenance::old_messages;
