//! Stage 3e: who may use a device of a seat: the user of the seat's active session, as logind tells it in
//! `/run/systemd/seats`. Decides only; `nodes/acl.rs` applies.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::Call;

/// Where logind describes seats.
pub const SEATS: &str = "/run/systemd/seats";

/// The seat of devices that name none.
const FIRST_SEAT: &[u8] = b"seat0";

/// What logind writes about a seat is much shorter.
const FILE_LIMIT: u64 = 64 << 10;

/// Who has access to a seat's devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// logind does not run: the node is left alone.
    Undecided,
    /// Nobody's session is active there.
    Nobody,
    User(u32),
}

/// Decides for the event's device; `seats` is [`SEATS`].
#[must_use]
pub fn access(call: &Call<'_>, seats: &Path) -> Access {
    if !seats.is_dir() {
        return Access::Undecided;
    }
    let seat = call.property(b"ID_SEAT").unwrap_or(FIRST_SEAT);
    // a property may come from anywhere: what is no name leads nowhere
    let named = !matches!(seat, b"" | b"." | b"..") && !seat.contains(&b'/') && !seat.contains(&0);
    let mut text = Vec::new();
    let file = named.then(|| File::open(seats.join(OsStr::from_bytes(seat))).ok()).flatten();
    let read = file.map(|file| file.take(FILE_LIMIT).read_to_end(&mut text));
    let user = read.and_then(|_| active_user(&text));
    user.map_or(Access::Nobody, Access::User)
}

/// The last of `ACTIVE_UID=` holds.
fn active_user(text: &[u8]) -> Option<u32> {
    let lines = text.split(|byte| *byte == b'\n');
    let value = lines.filter_map(|line| line.strip_prefix(b"ACTIVE_UID=")).next_back()?;
    let user = str::from_utf8(value).ok()?.trim().parse().ok()?;
    // these two stand for no user in the kernel's interfaces; root needs no permission
    (!matches!(user, 0 | 0xffff | u32::MAX)).then_some(user)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::Arc;

    use super::*;
    use crate::device::{Device, Sysfs};
    use crate::uevent::{Action, Origin, Uevent};

    fn access_of(seats: &Path, seat: Option<&[u8]>) -> Access {
        let uevent = Uevent::synthetic(Origin::Coldplug, Action::Add, b"/devices/x", 1, &[]);
        let device = Device::new(Sysfs::new("/sys"), Arc::new(uevent));
        let properties: Vec<_> =
            seat.map(|seat| (b"ID_SEAT".to_vec(), seat.to_vec())).into_iter().collect();
        let call = Call { device: &device, properties: &properties, words: &[] };
        access(&call, seats)
    }

    #[test]
    fn the_user_of_the_active_session_has_access_and_without_one_nobody() {
        let top = tempfile::tempdir().unwrap();
        let seats = top.path().join("seats");
        assert_eq!(access_of(&seats, None), Access::Undecided);
        fs::create_dir(&seats).unwrap();
        assert_eq!(access_of(&seats, None), Access::Nobody);
        let text = "# private\nIS_SEAT0=1\nACTIVE=c1\nACTIVE_UID=1000\nUIDS=1000 7\n";
        fs::write(seats.join("seat0"), text).unwrap();
        fs::write(seats.join("seat1"), "ACTIVE_UID=1001\n").unwrap();
        fs::write(top.path().join("outside"), "ACTIVE_UID=7\n").unwrap();
        assert_eq!(access_of(&seats, None), Access::User(1000));
        assert_eq!(access_of(&seats, Some(b"seat1")), Access::User(1001));
        assert_eq!(access_of(&seats, Some(b"seat2")), Access::Nobody);
        assert_eq!(access_of(&seats, Some(b"../outside")), Access::Nobody);
        for uid in ["0", "", "x", "65535", "4294967295", "4294967296"] {
            fs::write(seats.join("seat0"), format!("ACTIVE_UID={uid}\n")).unwrap();
            assert_eq!(access_of(&seats, None), Access::Nobody, "{uid}");
        }
    }
}
