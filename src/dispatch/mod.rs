//! Walks the stages: hears, waits, decides, settles, publishes, tells. Read this first.

pub mod command;
pub mod known;
