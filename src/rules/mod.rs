//! Stage 4: what rules and policy share: globs, user and group names, and how a mistake is shown.

pub mod glob;
pub mod names;
pub mod problem;
