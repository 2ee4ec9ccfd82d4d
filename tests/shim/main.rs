//! The kernel module with the daemon's own map writer, in a virtual machine: `tests/vm/shim.sh` builds
//! and boots it. A test that shows a claim of the design has its number in front of its name.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod acls;
mod c1_names;
mod c2_changes;
mod c3_builtin;
mod c4_daemon;
mod c4_loads;
mod c5_replay;
mod c6_attributes;
mod c6_meddled;
mod c6_names;
mod costs;
mod daemon;
mod differences;
mod disks;
mod failing;
mod held_open;
mod hostile;
mod kept;
mod limits;
mod listing;
mod no_memory;
mod own_dev;
mod publishing;
mod stress;
mod successors;
mod switching;
mod taking_over;
mod userspace;
mod waits;
mod watches;
mod world;
