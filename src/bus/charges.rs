//! Stage 9: how many calls may wait, for each caller and for each user.
//!
//! Every waiting call is charged to the connection that made it and to its user, so that one user
//! with many connections does not shut out the others.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::collections::hash_map::Entry;

/// Calls of one connection that wait at once: a program asks for a few things at a time; a tool
/// that asks for every device in parallel stays below it.
pub const PER_CALLER: u32 = 64;

/// Calls of one user that wait at once, over all connections. Root is not limited: it could stop
/// the daemon anyway, and must get through when somebody else does not.
pub const PER_USER: u32 = 256;

#[derive(Debug, Default)]
struct Caller {
    uid: Option<u32>,
    waiting: u32,
}

/// Who has how many calls waiting.
#[derive(Debug, Default)]
pub(super) struct Charges {
    callers: HashMap<String, Caller>,
    users: HashMap<u32, u32>,
}

/// Too many calls wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full;

impl Charges {
    /// Charges a call to its caller; gives the caller's user, if the bus has told.
    pub(super) fn enter(&mut self, name: &str) -> Result<Option<u32>, Full> {
        let caller = self.callers.entry(name.to_owned()).or_default();
        if caller.waiting >= PER_CALLER && caller.uid != Some(0) {
            return Err(Full);
        }
        caller.waiting += 1;
        Ok(caller.uid)
    }

    /// Remembers whose the caller is.
    pub(super) fn identify(&mut self, name: &str, uid: u32) {
        if let Some(caller) = self.callers.get_mut(name) {
            caller.uid = Some(uid);
        }
    }

    /// Charges a call that was let in to its user as well.
    pub(super) fn charge(&mut self, uid: u32) -> Result<(), Full> {
        let waiting = self.users.entry(uid).or_default();
        if *waiting >= PER_USER && uid != 0 {
            return Err(Full);
        }
        *waiting += 1;
        Ok(())
    }

    /// Takes back what was charged for a call.
    pub(super) fn leave(&mut self, name: &str, uid: Option<u32>) {
        if let Some(caller) = self.callers.get_mut(name) {
            caller.waiting = caller.waiting.saturating_sub(1);
            // called and gone before the bus could say whose it was
            if caller.waiting == 0 && caller.uid.is_none() {
                self.callers.remove(name);
            }
        }
        if let Some(Entry::Occupied(mut user)) = uid.map(|uid| self.users.entry(uid)) {
            *user.get_mut() = user.get().saturating_sub(1);
            if *user.get() == 0 {
                user.remove();
            }
        }
    }

    /// The caller has left the bus; its name does not come again.
    pub(super) fn forget(&mut self, name: &str) {
        self.callers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_caller_does_not_shut_out_another() {
        let mut charges = Charges::default();
        for _ in 0..PER_CALLER {
            charges.enter(":1.1").unwrap();
        }
        assert_eq!(charges.enter(":1.1"), Err(Full));
        assert_eq!(charges.enter(":1.2"), Ok(None));
        charges.leave(":1.1", None);
        assert_eq!(charges.enter(":1.1"), Ok(None));
    }

    #[test]
    fn many_connections_of_one_user_are_one_user() {
        let mut charges = Charges::default();
        for _ in 0..PER_USER {
            charges.charge(1000).unwrap();
        }
        assert_eq!(charges.charge(1000), Err(Full));
        assert_eq!(charges.charge(1001), Ok(()));
        charges.leave(":1.1", Some(1000));
        assert_eq!(charges.charge(1000), Ok(()));
    }

    #[test]
    fn root_gets_through() {
        let mut charges = Charges::default();
        charges.enter(":1.1").unwrap();
        charges.identify(":1.1", 0);
        for _ in 0..2 * PER_USER {
            assert_eq!(charges.enter(":1.1"), Ok(Some(0)));
            charges.charge(0).unwrap();
        }
    }

    #[test]
    fn who_leaves_is_forgotten() {
        let mut charges = Charges::default();
        charges.enter(":1.1").unwrap();
        charges.charge(7).unwrap();
        charges.leave(":1.1", Some(7));
        charges.forget(":1.1");
        assert!(charges.callers.is_empty() && charges.users.is_empty());
    }
}
