//! `mapdevctl chown OWNER[:GROUP] DEVICE`.

use super::change::{Change, ChangeArgs, Target};
use super::failure::Failure;
use super::output::Output;
use super::session::Session;
use super::values::Properties;

const ACTION: Option<&str> = Some("org.mapdev1.set-owner");

#[derive(Debug, clap::Args)]
pub struct Args {
    /// OWNER, OWNER:GROUP or :GROUP; names or numbers
    #[arg(value_name = "OWNER[:GROUP]", value_parser = parse)]
    owner: Ownership,

    /// A node, a link to one, a path below /sys, or a number such as c10:200
    device: String,

    /// Keep it over removals and restarts
    #[arg(long)]
    persist: bool,

    #[command(flatten)]
    change: ChangeArgs,
}

/// Who is to own a device; at least one of the two is there.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Ownership {
    user: Option<String>,
    group: Option<String>,
}

fn parse(text: &str) -> Result<Ownership, String> {
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    let wrong = || "wanted OWNER, OWNER:GROUP or :GROUP".to_owned();
    if group.is_some_and(|group| group.is_empty() || group.contains(':')) {
        return Err(wrong());
    }
    if user.is_empty() && group.is_none() {
        return Err(wrong());
    }
    let user = (!user.is_empty()).then(|| user.to_owned());
    Ok(Ownership { user, group: group.map(str::to_owned) })
}

pub async fn run(session: &Session, args: &Args, output: &mut Output<'_>) -> Result<(), Failure> {
    let target = Target::find(session, &args.device).await?;
    let mut changes = Vec::new();
    if let Some(user) = &args.owner.user {
        let done = target.proxy.set_owner(user, args.change.options(args.persist)).await;
        done.map_err(|error| Failure::of_call(error, ACTION))?;
        changes.extend(Change::of("owner", &current(&target.before, Attribute::Owner, user), user));
    }
    if let Some(group) = &args.owner.group {
        let done = target.proxy.set_group(group, args.change.options(args.persist)).await;
        done.map_err(|error| {
            let failure = Failure::of_call(error, ACTION);
            let half = args.owner.user.is_some() && !args.change.dry_run;
            if half {
                failure.while_doing("the owner is changed, the group is not")
            } else {
                failure
            }
        })?;
        let old = current(&target.before, Attribute::Group, group);
        changes.extend(Change::of("group", &old, group));
    }
    target.report(&changes, &args.change, output)
}

enum Attribute {
    Owner,
    Group,
}

/// The value before, in the form of the new one: a number beside a number, else the name.
fn current(before: &Properties, attribute: Attribute, new: &str) -> String {
    let (number, name) = match attribute {
        Attribute::Owner => ("Owner", "OwnerName"),
        Attribute::Group => ("Group", "GroupName"),
    };
    let name = before.text(name);
    if name.is_empty() || new.bytes().all(|byte| byte.is_ascii_digit()) {
        return before.text(number);
    }
    name
}

#[cfg(test)]
mod tests {
    use super::{Ownership, parse};

    #[test]
    fn owner_and_group_are_read_as_chown_reads_them() {
        let expect = |text, user: Option<&str>, group: Option<&str>| {
            let wanted = Ownership { user: user.map(Into::into), group: group.map(Into::into) };
            assert_eq!(parse(text), Ok(wanted), "{text}");
        };
        expect("alice", Some("alice"), None);
        expect("alice:disk", Some("alice"), Some("disk"));
        expect(":disk", None, Some("disk"));
        expect("1000:6", Some("1000"), Some("6"));
        expect("a.b", Some("a.b"), None);
    }

    #[test]
    fn half_an_owner_is_refused() {
        for text in ["", ":", "alice:", "a:b:c", "::"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
