//! Stage 5b: conditions of `[Match]` on the machine: `Host=`, `KernelVersion=` and the like.
//!
//! As `ConditionHost=` and its kin in systemd.unit(5). They are asked once, when files are loaded.

use std::cmp::Ordering;
use std::fs;
use std::path::{Path, PathBuf};

use super::values::{Quoting, boolean, words};
use crate::glob::fnmatch;

/// What a condition asks about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    Host,
    Virtualization,
    KernelCommandLine,
    KernelVersion,
    Credential,
    Architecture,
    Firmware,
}

/// One line such as `Architecture=!x86`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    pub subject: Subject,
    pub negated: bool,
    pub value: String,
}

/// The machine that is asked; read once.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    pub host_name: String,
    /// 32 hexadecimal digits, or nothing.
    pub machine_id: String,
    pub virtualization: &'static str,
    /// In a user namespace of its own.
    pub private_users: bool,
    pub command_line: String,
    pub release: String,
    pub architecture: &'static str,
    pub credentials: Vec<PathBuf>,
    /// Where firmware is described, usually `/sys`.
    pub sysfs: PathBuf,
}

impl Machine {
    /// This machine, as the tree below `root` and the sysfs at `sysfs` describe it.
    #[must_use]
    pub fn read(root: &Path, sysfs: &Path) -> Self {
        let uname = rustix::system::uname();
        let folders = ["CREDENTIALS_DIRECTORY", "ENCRYPTED_CREDENTIALS_DIRECTORY"];
        let machine_id = fs::read_to_string(root.join("etc/machine-id")).unwrap_or_default();
        Self {
            host_name: uname.nodename().to_string_lossy().into_owned(),
            machine_id: id128(machine_id.trim()).unwrap_or_default(),
            virtualization: crate::host::virtualization(),
            private_users: ["uid_map", "gid_map"].into_iter().any(is_mapped),
            command_line: String::from_utf8_lossy(&crate::host::command_line()).into_owned(),
            release: uname.release().to_string_lossy().into_owned(),
            architecture: crate::host::architecture(),
            credentials: folders.into_iter().filter_map(std::env::var_os).map(Into::into).collect(),
            sysfs: sysfs.to_owned(),
        }
    }

    /// The words of the kernel's command line.
    fn parameters(&self) -> Vec<String> {
        words(self.command_line.trim(), Quoting::Quoted).0
    }

    fn parameter(&self, wanted: &str) -> bool {
        self.parameters().iter().any(|word| {
            let whole = wanted.contains('=');
            let rest = word.strip_prefix(wanted);
            rest.is_some_and(|rest| rest.is_empty() || (!whole && rest.starts_with('=')))
        })
    }
}

/// Whether a map of ids is another one than that of the machine.
fn is_mapped(file: &str) -> bool {
    let map = fs::read_to_string(Path::new("/proc/self").join(file)).unwrap_or_default();
    let fields: Vec<_> = map.split_ascii_whitespace().collect();
    !fields.is_empty() && fields != ["0", "0", "4294967295"]
}

/// An id of 128 bits, with or without hyphens, as 32 small digits.
fn id128(text: &str) -> Option<String> {
    let hyphens: Vec<usize> = text.match_indices('-').map(|(at, _)| at).collect();
    let digits = text.replace('-', "").to_ascii_lowercase();
    let formed = hyphens.is_empty() || hyphens == [8, 13, 18, 23];
    let whole = digits.len() == 32 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    (formed && whole).then_some(digits)
}

impl Condition {
    /// Whether it holds; what cannot be understood never does, negated or not.
    #[must_use]
    pub fn holds(&self, machine: &Machine) -> bool {
        self.ask(machine).is_some_and(|holds| holds != self.negated)
    }

    fn ask(&self, machine: &Machine) -> Option<bool> {
        let value = self.value.as_str();
        Some(match self.subject {
            Subject::Host => match id128(value) {
                Some(id) => id == machine.machine_id,
                None => {
                    let name = machine.host_name.to_lowercase();
                    fnmatch(value.to_lowercase().as_bytes(), name.as_bytes())
                }
            },
            Subject::Virtualization => virtualization(value, machine),
            Subject::KernelCommandLine => machine.parameter(value),
            Subject::KernelVersion => version(value, &machine.release)?,
            Subject::Credential => {
                let plain = !value.is_empty() && !value.contains('/') && !value.starts_with('.');
                plain && machine.credentials.iter().any(|folder| folder.join(value).exists())
            }
            Subject::Architecture => value == "native" || value == machine.architecture,
            Subject::Firmware => firmware(value, &machine.sysfs)?,
        })
    }
}

fn virtualization(value: &str, machine: &Machine) -> bool {
    const CONTAINERS: [&str; 11] = [
        "systemd-nspawn",
        "lxc-libvirt",
        "lxc",
        "openvz",
        "docker",
        "podman",
        "rkt",
        "wsl",
        "proot",
        "pouch",
        "container-other",
    ];
    let name = machine.virtualization;
    let container = CONTAINERS.contains(&name);
    match (value, boolean(value)) {
        ("private-users", _) => machine.private_users,
        (_, Some(any)) => any == (name != "none"),
        ("vm", _) => name != "none" && !container,
        ("container", _) => container,
        _ => name != "none" && value == name,
    }
}

/// How two values are compared, and the word for it; longer words first.
const OPERATORS: [(&str, Comparison); 10] = [
    ("!$=", Comparison::Glob(false)),
    ("$=", Comparison::Glob(true)),
    ("<=", Comparison::Version(&[Ordering::Less, Ordering::Equal])),
    (">=", Comparison::Version(&[Ordering::Greater, Ordering::Equal])),
    ("<>", Comparison::Version(&[Ordering::Less, Ordering::Greater])),
    ("<", Comparison::Version(&[Ordering::Less])),
    (">", Comparison::Version(&[Ordering::Greater])),
    ("==", Comparison::Version(&[Ordering::Equal])),
    ("!=", Comparison::Text(false)),
    ("=", Comparison::Text(true)),
];

#[derive(Clone, Copy)]
enum Comparison {
    Glob(bool),
    Text(bool),
    Version(&'static [Ordering]),
}

impl Comparison {
    fn of(text: &str) -> Option<(Self, &str)> {
        OPERATORS.iter().find_map(|(word, how)| Some((*how, text.strip_prefix(word)?)))
    }

    fn holds(self, value: &str, wanted: &str) -> bool {
        match self {
            Self::Glob(positive) => fnmatch(wanted.as_bytes(), value.as_bytes()) == positive,
            Self::Text(positive) => (wanted == value) == positive,
            Self::Version(orders) => orders.contains(&compare_versions(value, wanted)),
        }
    }
}

/// A list of expressions that all have to hold.
fn version(value: &str, release: &str) -> Option<bool> {
    let (expressions, whole) = words(value, Quoting::Grouped);
    let mut expressions = expressions.iter().map(|word| word.trim());
    let mut first = true;
    while let Some(expression) = expressions.next() {
        let (how, wanted) =
            Comparison::of(expression).unwrap_or((Comparison::Glob(true), expression));
        let bare = wanted.trim_start().is_empty() && wanted.len() < expression.len();
        // only the first operator may stand alone
        let wanted = match bare {
            true if first => expressions.next()?,
            true => return None,
            false => wanted.trim_start(),
        };
        if !how.holds(release, wanted) {
            return Some(false);
        }
        first = false;
    }
    whole.then_some(true)
}

fn firmware(value: &str, sysfs: &Path) -> Option<bool> {
    let inside = |name: &str| value.strip_prefix(name)?.strip_prefix('(')?.strip_suffix(')');
    if let Some(wanted) = inside("device-tree-compatible") {
        let all = fs::read(sysfs.join("firmware/devicetree/base/compatible")).unwrap_or_default();
        return Some(all.split(|byte| *byte == 0).any(|one| one == wanted.as_bytes()));
    }
    if let Some(expression) = inside("smbios-field") {
        let end = expression.find(|c: char| "=!<>$".contains(c))?;
        let field = expression[..end].trim();
        let (how, wanted) = Comparison::of(&expression[end..])?;
        if field.is_empty() || field.contains('/') || field.starts_with('.') {
            return None;
        }
        let Ok(content) = fs::read_to_string(sysfs.join("class/dmi/id").join(field)) else {
            return Some(false);
        };
        let wanted = words(wanted, Quoting::Grouped).0.into_iter().next().unwrap_or_default();
        return Some(how.holds(content.trim_end_matches('\n'), &wanted));
    }
    match value {
        "device-tree" => Some(sysfs.join("firmware/devicetree").exists()),
        "uefi" => Some(sysfs.join("firmware/efi").exists()),
        _ => Some(false),
    }
}

/// Compares versions as UAPI.10 has it.
fn compare_versions(left: &str, right: &str) -> Ordering {
    let (mut a, mut b) = (left, right);
    loop {
        let listed = |c: char| c.is_ascii_alphanumeric() || "-.~^".contains(c);
        a = a.trim_start_matches(|c| !listed(c));
        b = b.trim_start_matches(|c| !listed(c));
        if let Some(order) = sign('~', &mut a, &mut b) {
            return order;
        }
        if a.is_empty() || b.is_empty() {
            return b.is_empty().cmp(&a.is_empty());
        }
        if let Some(order) = ['-', '^', '.'].into_iter().find_map(|c| sign(c, &mut a, &mut b)) {
            return order;
        }
        let digits = |text: &str| text.starts_with(|c: char| c.is_ascii_digit());
        let numeric = digits(a) || digits(b);
        let part = |text: &str| {
            let of_part =
                |c: char| if numeric { c.is_ascii_digit() } else { c.is_ascii_alphabetic() };
            text.find(|c| !of_part(c)).unwrap_or(text.len())
        };
        let ((first, rest_a), (second, rest_b)) = (a.split_at(part(a)), b.split_at(part(b)));
        let (x, y) = (first.trim_start_matches('0'), second.trim_start_matches('0'));
        let order = if numeric { x.len().cmp(&y.len()).then(x.cmp(y)) } else { first.cmp(second) };
        if order != Ordering::Equal {
            return order;
        }
        (a, b) = (rest_a, rest_b);
    }
}

/// Takes a sign off both; the version that has it alone is the older one.
fn sign(sign: char, left: &mut &str, right: &mut &str) -> Option<Ordering> {
    match (left.strip_prefix(sign), right.strip_prefix(sign)) {
        (Some(after_left), Some(after_right)) => {
            (*left, *right) = (after_left, after_right);
            None
        }
        (Some(_), None) => Some(Ordering::Less),
        (None, Some(_)) => Some(Ordering::Greater),
        (None, None) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_by_their_parts() {
        let ascending =
            ["6.1~rc1", "6.1", "6.1-1", "6.1.0-a", "6.1.9", "6.1.10", "6.18.44-fc", "7"];
        for (at, left) in ascending.iter().enumerate() {
            for (other, right) in ascending.iter().enumerate() {
                assert_eq!(compare_versions(left, right), at.cmp(&other), "{left} {right}");
            }
        }
        assert_eq!(compare_versions("006.1", "6.1"), Ordering::Equal);
    }

    #[test]
    fn expressions_on_the_kernels_version_all_have_to_hold() {
        let ask = |value| version(value, "6.18.44-fc");
        for value in [">=6.1", ">= 6.1 <7", "6.*", "= 6.18.44-fc", "$=6.1?.*", "<>6.1", "!$=7*"] {
            assert_eq!(ask(value), Some(true), "{value}");
        }
        for value in [">6.1 <=6.2", "5.* 6.*", "6.1", "!=6.18.44-fc"] {
            assert_eq!(ask(value), Some(false), "{value}");
        }
        assert_eq!((ask("<"), ask(">=6 <")), (None, None));
    }

    #[test]
    fn what_is_not_understood_never_holds() {
        let condition =
            |negated| Condition { subject: Subject::KernelVersion, negated, value: "<".into() };
        assert!(!condition(true).holds(&Machine::default()));
        assert!(!condition(false).holds(&Machine::default()));
    }
}
