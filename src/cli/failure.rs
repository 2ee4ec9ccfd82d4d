//! Why a command failed, in one line that says what to do next, and its exit code.

use std::io;

use zbus::fdo;

use super::escape;

/// The exit codes of `mapdevctl`; 0 is success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Failed = 1,
    Usage = 2,
    NoSuchDevice = 3,
    Refused = 4,
}

/// How a command ends when it does not succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Whoever read our output has gone: nobody is there to be told.
    Pipe,
    Told {
        exit: Exit,
        message: String,
    },
}

impl Failure {
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self::Told { exit, message: message.into() }
    }

    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(Exit::Failed, message)
    }

    #[must_use]
    pub fn is(&self, wanted: Exit) -> bool {
        matches!(self, Self::Told { exit, .. } if *exit == wanted)
    }

    /// The same failure, with what was being done put before it.
    #[must_use]
    pub fn while_doing(self, what: &str) -> Self {
        match self {
            Self::Pipe => Self::Pipe,
            Self::Told { exit, message } => {
                Self::Told { exit, message: format!("{what}: {message}") }
            }
        }
    }

    /// A failed call of the daemon; `action` is the polkit action that the call needs.
    #[must_use]
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "most errors of the bus have no advice of their own"
    )]
    pub fn of_call(error: zbus::Error, action: Option<&str>) -> Self {
        match error {
            zbus::Error::FDO(error) => of_fdo(*error, action),
            zbus::Error::MethodError(name, message, _) => {
                of_daemon(name.as_str(), &message.unwrap_or_default())
            }
            zbus::Error::InputOutput(error) => of_io(&error),
            other => Self::failed(format!(
                "the daemon's answer was not understood ({}); are mapdevctl and mapdevd of one \
                 version? try: systemctl restart mapdevd",
                escape::text(&other.to_string())
            )),
        }
    }
}

impl From<io::Error> for Failure {
    /// For what is written to standard output.
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::Pipe;
        }
        Self::failed(format!("cannot write the output: {error}"))
    }
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "most errors of the bus have no advice of their own"
)]
fn of_fdo(error: fdo::Error, action: Option<&str>) -> Failure {
    use fdo::Error as E;
    match error {
        E::ServiceUnknown(_) | E::NameHasNoOwner(_) | E::SpawnServiceNotFound(_) => {
            Failure::failed(
                "mapdevd is not running on this bus; start it with: systemctl start mapdevd",
            )
        }
        E::SpawnExecFailed(why) | E::SpawnFailed(why) | E::SpawnChildExited(why) => {
            Failure::failed(format!(
                "mapdevd could not be started ({}); see: journalctl -u mapdevd",
                sentence(&why)
            ))
        }
        E::AccessDenied(why) | E::AuthFailed(why) => refused(&why, action),
        E::InteractiveAuthorizationRequired(why) => refused(&why, action),
        E::UnknownObject(why) => Failure::new(
            Exit::NoSuchDevice,
            format!("the device is gone ({}); see: mapdevctl list", sentence(&why)),
        ),
        E::UnknownMethod(why) | E::UnknownInterface(why) | E::UnknownProperty(why) => {
            Failure::failed(format!(
                "the running daemon does not know this command ({}); is it an older version? \
                 try: systemctl restart mapdevd",
                sentence(&why)
            ))
        }
        E::NoReply(_) | E::Disconnected(_) => {
            Failure::failed("mapdevd left the bus before it answered; see: journalctl -u mapdevd")
        }
        E::Timeout(why) | E::TimedOut(why) => {
            Failure::failed(format!("timed out: {}", sentence(&why)))
        }
        E::ZBus(error) => Failure::of_call(error, action),
        other => {
            let shown = other.to_string();
            // the sentence is the daemon's; the name of the error before it helps nobody
            let said = shown.split_once(": ").map_or(shown.as_str(), |(_, said)| said);
            Failure::failed(sentence(said))
        }
    }
}

/// The daemon's own errors, `org.mapdev1.Error.*`.
fn of_daemon(name: &str, said: &str) -> Failure {
    let said = sentence(said);
    let or = |fallback: &str| if said.is_empty() { fallback.to_owned() } else { said.clone() };
    match name.strip_prefix("org.mapdev1.Error.").unwrap_or(name) {
        "NoSuchDevice" => Failure::new(Exit::NoSuchDevice, or("there is no such device")),
        "LockoutRefused" => {
            Failure::new(Exit::Refused, or("this would lock out the active session"))
        }
        "Shadow" => Failure::new(
            Exit::Refused,
            or("the daemon runs in shadow mode, where it changes no device; try --dry-run"),
        ),
        "Throttled" | "Busy" => {
            Failure::failed(or("the daemon is busy with this device; try again shortly"))
        }
        "org.freedesktop.systemd1.NoSuchUnit" => {
            Failure::failed("mapdevd is not installed as a service here; start mapdevd by hand")
        }
        _ if said.is_empty() => Failure::failed(escape::text(name)),
        _ => Failure::failed(said),
    }
}

fn refused(why: &str, action: Option<&str>) -> Failure {
    let why = sentence(why);
    let why = if why.is_empty() { String::new() } else { format!(" ({why})") };
    let needs = action
        .map_or_else(String::new, |action| format!("; this needs the polkit action {action}"));
    Failure::new(Exit::Refused, format!("access denied{why}{needs}; try it as root, with sudo"))
}

fn of_io(error: &io::Error) -> Failure {
    if error.kind() == io::ErrorKind::TimedOut {
        return Failure::failed(
            "mapdevd does not answer; see: systemctl status mapdevd, journalctl -u mapdevd",
        );
    }
    Failure::failed(format!("the connection to the bus broke ({error}); is the bus still running?"))
}

/// A message of another program, on one line and without the full stop.
fn sentence(said: &str) -> String {
    escape::text(said.trim().trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::{Exit, Failure, of_daemon};
    use zbus::fdo;

    fn told(failure: Failure) -> (Exit, String) {
        match failure {
            Failure::Told { exit, message } => (exit, message),
            Failure::Pipe => panic!("a quiet failure"),
        }
    }

    #[test]
    fn a_refusal_names_the_polkit_action() {
        let error = fdo::Error::AccessDenied("not authorized.".into()).into();
        let (exit, message) = told(Failure::of_call(error, Some("org.mapdev1.set-owner")));
        assert_eq!(exit, Exit::Refused);
        assert_eq!(
            message,
            "access denied (not authorized); this needs the polkit action \
             org.mapdev1.set-owner; try it as root, with sudo"
        );
    }

    #[test]
    fn a_daemon_that_does_not_run_is_to_be_started() {
        let error = fdo::Error::ServiceUnknown("x".into()).into();
        let (exit, message) = told(Failure::of_call(error, None));
        assert_eq!(exit, Exit::Failed);
        assert!(message.ends_with("systemctl start mapdevd"), "{message}");
    }

    #[test]
    fn the_daemons_own_sentence_is_shown_and_cannot_command_the_terminal() {
        let (exit, message) =
            told(of_daemon("org.mapdev1.Error.NoSuchDevice", "there is no device '\x1b[2J'."));
        assert_eq!(exit, Exit::NoSuchDevice);
        assert_eq!(message, "there is no device '\\x1b[2J'");
    }

    #[test]
    fn shadow_mode_is_a_refusal() {
        assert_eq!(told(of_daemon("org.mapdev1.Error.Shadow", "")).0, Exit::Refused);
    }

    #[test]
    fn invalid_arguments_are_told_without_the_name_of_the_error() {
        let error = fdo::Error::InvalidArgs("there is no user 'al'; did you mean 'ali'?".into());
        let (exit, message) = told(Failure::of_call(error.into(), None));
        assert_eq!(exit, Exit::Failed);
        assert_eq!(message, "there is no user 'al'; did you mean 'ali'?");
    }

    #[test]
    fn a_reader_that_left_is_no_failure_worth_a_line() {
        let error = std::io::Error::from(std::io::ErrorKind::BrokenPipe);
        assert_eq!(Failure::from(error), Failure::Pipe);
    }
}
