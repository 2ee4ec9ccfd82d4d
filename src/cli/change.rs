//! What `chown`, `chmod` and `reset` have in common: options, the way to the device, the report.

use serde_json::json;
use zbus::{OwnedObjectPath, Variant};

use super::escape;
use super::failure::Failure;
use super::output::Output;
use super::proxy::{DeviceProxy, Options};
use super::session::Session;
use super::values::Properties;

/// Options of every command that changes something.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct ChangeArgs {
    /// Only check and show what would change
    #[arg(long)]
    pub dry_run: bool,

    /// Why, for the daemon's log and for `explain`
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
}

impl ChangeArgs {
    #[must_use]
    pub fn options(&self, persist: bool) -> Options<'_> {
        let mut options = Options::new();
        if self.dry_run {
            options.insert("dry-run", Variant::from(true));
        }
        if persist {
            options.insert("persist", Variant::from(true));
        }
        if let Some(reason) = &self.reason {
            options.insert("reason", Variant::from(reason.as_str()));
        }
        options
    }
}

/// A device that is being changed, as it was before.
#[derive(Debug)]
pub struct Target {
    pub path: OwnedObjectPath,
    pub proxy: DeviceProxy<'static>,
    pub before: Properties,
}

impl Target {
    pub async fn find(session: &Session, name: &str) -> Result<Self, Failure> {
        let path = session.resolve(name).await?;
        let before = session.device_properties(&path).await?;
        let proxy = session.device(&path).await?;
        Ok(Self { path, proxy, before })
    }

    /// Says what changed: in JSON always, in text only for a dry run, as chown(1) is silent too.
    pub fn report(
        &self,
        changes: &[Change],
        args: &ChangeArgs,
        output: &mut Output<'_>,
    ) -> Result<(), Failure> {
        let node = self.before.text("Node");
        if output.is_json() {
            let changes = changes.iter().map(|change| {
                json!({ "attribute": change.attribute, "old": change.old, "new": change.new })
            });
            return Ok(output.json(&json!({
                "path": self.path.as_str(),
                "node": self.before.json().remove("node"),
                "dry_run": args.dry_run,
                "changes": changes.collect::<Vec<_>>(),
            }))?);
        }
        if !args.dry_run {
            return Ok(());
        }
        let node = if node.is_empty() { self.path.as_str() } else { &node };
        for Change { attribute, old, new } in changes {
            let (old, new) = (escape::text(old), escape::text(new));
            output.line(&format!("{node}: {attribute} would change: {old} -> {new}"))?;
        }
        if changes.is_empty() {
            output.line(&format!("{node}: nothing would change"))?;
        }
        Ok(())
    }
}

/// One attribute's change, for the report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub attribute: &'static str,
    pub old: String,
    pub new: String,
}

impl Change {
    /// None when the attribute is so already.
    #[must_use]
    pub fn of(attribute: &'static str, old: &str, new: &str) -> Option<Self> {
        (old != new).then(|| Self { attribute, old: old.to_owned(), new: new.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::{Change, ChangeArgs};

    #[test]
    fn only_what_was_asked_for_is_an_option_of_the_call() {
        assert!(ChangeArgs::default().options(false).is_empty());
        let args = ChangeArgs { dry_run: true, reason: Some("lab".into()) };
        let mut keys: Vec<_> = args.options(true).into_keys().collect();
        keys.sort_unstable();
        assert_eq!(keys, ["dry-run", "persist", "reason"]);
    }

    #[test]
    fn what_is_so_already_is_no_change() {
        assert_eq!(Change::of("owner", "root", "root"), None);
        assert!(Change::of("owner", "root", "alice").is_some());
    }
}
