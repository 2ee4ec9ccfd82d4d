//! mapdev: a device manager for Linux. The list stands in the order in which an event meets the
//! modules, and a module imports only modules above it (`tests/layering.rs`).

// daemon and tools read the same configuration
pub mod config;

// a mistake in any file that is read, and where it is
pub mod problem;

// files that somebody wrote by hand
pub mod written;

// the patterns of rules, policy and modprobe.d
pub mod glob;

// values made safe for names, commands split into words
pub mod clean;

// SipHash, keyed
pub mod siphash;

// the machine that we run on
pub mod host;

// what the allocator keeps
pub mod heap;

// descriptors that the runtime waits for
pub mod ready;

// 1 HEAR: bytes from the kernel become a `Uevent`
pub mod uevent;

// 2 WAIT: after everything older that concerns the same device
pub mod queue;

// 3 LOOK UP: sysfs and the record of last time
pub mod device;

// 3a: today's sysfs as events, at start and after loss
pub mod coldplug;

// 3b: which module serves which name
pub mod modules;

// 3c: a program that a rule names, without a shell
pub mod exec;

// 3d: a disk's contents, read by a process in a sandbox
pub mod probe;

// 5b: names and settings of network interfaces; above 3e, as a builtin sets them
pub mod net;

// 3e: what rules use like a program and is built in
pub mod builtin;

// 4 DECIDE: owner, group, mode, links, and why
pub mod rules;

// 4b OVERLAY: the administrator's policy and run-time grants
pub mod policy;

// 5 SETTLE: nodes and links of devtmpfs
pub mod nodes;

// 6 PUBLISH: the shared map of /dev
pub mod map;

// 6b: the map in devtmpfs's place on /dev, and back
pub mod switch;

// 7 RUN: what rules want run when the record is written
pub mod run;

// 8 TELL: libudev's netlink group
pub mod announce;

// walks the stages: read this first
pub mod dispatch;

// 9 ANSWER: D-Bus
pub mod bus;

// 9 ANSWER: udevadm
pub mod control;

// starts the tasks, waits for signals, stops the tasks
pub mod daemon;

// mapdevctl
pub mod cli;
