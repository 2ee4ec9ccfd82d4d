//! Stage 3b: what is loaded for a name, as modprobe(8) would, and the loading itself.
//!
//! `config.rs` reads modprobe.d and the kernel's command line (`lines.rs`, `cmdline.rs`), `plan.rs`
//! decides what is to be done for a name, and `load.rs` does it (`state.rs`,
//! `shell.rs`); `remove.rs` is the way back.
//! `tests/kernels/modprobe` compares the plans with kmod's own for every module of two kernels.
//!
//! Known differences: `symbol:` aliases are not looked up; what only `modules.builtin.modinfo` names is
//! part of the kernel here and unknown there; what is found twice for one name is done once; a
//! backslash at the very end of a file is nothing; an install command ends after a time, and one that
//! runs within itself is refused.

mod cmdline;
mod config;
mod lines;
mod load;
mod plan;
mod remove;
mod shell;
mod state;

pub use config::Config;
pub use load::{Done, LoadError, Loader, Outcome, Why};
pub use plan::{Action, Blacklist, Plan, PlanError, Request, Step, Target, plan};
pub use remove::{Gone, Removal, RemoveError};
pub use state::State;
