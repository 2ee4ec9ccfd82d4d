//! What of a decision an event changes at the node: what nobody speaks of stays as somebody left it.
//!
//! Rules often speak of a node when its device is added and then no more; the owner that a login gave
//! to a terminal must outlive the next event. What the kernel says in its message, and what policy or a
//! caller wants, is seen to each time.

use super::known::Known;
use crate::device::Device;
use crate::device::record::Record;
use crate::nodes::devtmpfs::KERNEL_DEFAULT;
use crate::rules;
use crate::rules::decision::{Attribute, Decision, Link, Source};

const NODE: [Attribute; 3] = [Attribute::Owner, Attribute::Group, Attribute::Mode];

/// Which of owner, group and mode a decision speaks of.
pub(super) fn spoken(decision: &Decision) -> Vec<Attribute> {
    NODE.into_iter().filter(|attribute| decision.value(*attribute).is_some()).collect()
}

/// Lets what rules said in earlier events stand where they say nothing now; the kernel's word holds as
/// long as it says it.
pub(super) fn carry(said: &mut Decision, before: &Decision) {
    for attribute in NODE {
        let by_rule = matches!(before.source(attribute), Some(Source::Rule(_)));
        if by_rule && said.value(attribute).is_none() {
            said.take_from(before, attribute);
        }
    }
}

/// What policy or a grant no longer sets goes back to what the kernel gives a node.
pub(super) fn take_back(before: Option<&Known>, decision: &mut Decision) {
    let Some(before) = before else { return };
    let defaults = [KERNEL_DEFAULT.uid, KERNEL_DEFAULT.gid, KERNEL_DEFAULT.mode];
    for (attribute, default) in NODE.into_iter().zip(defaults) {
        let decided = before.decision.source(attribute).is_some();
        if decided && decision.value(attribute).is_none() {
            decision.set(attribute, default, Source::Kernel);
        }
    }
}

/// The part of a decision that is done to the node: what this event speaks of, what is otherwise than
/// before, and what the kernel, policy or a caller wants. `before` is `None` for a device that was not known.
pub(super) fn to_apply(
    decision: &Decision,
    before: Option<&Decision>,
    spoken: &[Attribute],
) -> Decision {
    let mut apply = Decision::default();
    for attribute in NODE {
        let each_time = match decision.source(attribute) {
            Some(Source::Kernel | Source::Policy { .. } | Source::Runtime { .. }) => true,
            Some(Source::Tmpfiles(_) | Source::Rule(_)) | None => false,
        };
        let other = before.is_some_and(|old| old.value(attribute) != decision.value(attribute));
        if each_time || other || spoken.contains(&attribute) {
            apply.take_from(decision, attribute);
        }
    }
    apply
}

/// What stands when the rules of an event ended early and nothing is known but the record: the kernel's
/// word, and what is remembered.
pub(super) fn adopted(device: &Device, old: Option<&Record>) -> Decision {
    let mut decision = rules::decide(device);
    if let Some(old) = old {
        let links =
            old.links.iter().map(|name| Link { name: name.clone(), priority: old.link_priority });
        decision.links = links.collect();
        decision.link_priority = old.link_priority;
        decision.properties.clone_from(&old.properties);
        decision.tags.sticky.clone_from(&old.sticky_tags);
        decision.tags.current.clone_from(&old.current_tags);
    }
    decision.finish();
    decision
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::decision::Place;

    fn rule() -> Source {
        Source::Rule(Place { file: "f".into(), line: 1, column: 1 })
    }

    fn policy() -> Source {
        Source::Policy { id: "p".into(), place: Place { file: "p".into(), line: 1, column: 1 } }
    }

    fn decision(pairs: &[(Attribute, u32, Source)]) -> Decision {
        let mut decision = Decision::default();
        pairs.iter().for_each(|(attribute, value, source)| {
            decision.set(*attribute, *value, source.clone());
        });
        decision
    }

    #[test]
    fn what_rules_said_before_stands_and_is_not_done_again() {
        let before = decision(&[(Attribute::Group, 6, rule()), (Attribute::Mode, 0o660, rule())]);
        let mut now = decision(&[(Attribute::Mode, 0o600, rule())]);
        let spoken = spoken(&now);
        carry(&mut now, &before);
        assert_eq!((now.group, now.mode), (Some(6), Some(0o600)));
        assert_eq!(now.source(Attribute::Group), Some(&rule()));
        let apply = to_apply(&now, Some(&before), &spoken);
        assert_eq!((apply.owner, apply.group, apply.mode), (None, None, Some(0o600)));
    }

    #[test]
    fn what_kernel_and_policy_say_is_done_each_time() {
        let sources = [(Attribute::Owner, 7, policy()), (Attribute::Mode, 0o666, Source::Kernel)];
        let before = decision(&sources);
        let apply = to_apply(&before, Some(&before), &[]);
        assert_eq!((apply.owner, apply.mode), (Some(7), Some(0o666)));
    }

    #[test]
    fn what_policy_no_longer_says_goes_back_to_what_rules_said() {
        let said = decision(&[(Attribute::Group, 6, rule())]);
        let mut before = said.clone();
        before.set(Attribute::Group, 77, policy());
        assert_eq!(to_apply(&said, Some(&before), &[]).group, Some(6));
    }
}
