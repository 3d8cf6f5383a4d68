//! Times, durations, names and JSON Schemas as people write them and as they are shown to them: in the program, in what it
//! proposes to type, and on its pages.

pub mod duration;
pub mod json_schema;
pub mod shell;
pub mod timestamp;
