//! Stage 4: the rules that can matter to one kind of event, found once instead of for each event.
//!
//! Action, subsystem and devtype are compared before anything else is done, and do not change while
//! rules are applied (if an import gives DEVTYPE another value, the plan is left). A rule that fails on
//! one of them never holds, and where all that leads to a GOTO is known, so is the way.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::sync::Arc;

use crate::device::Device;
use crate::rules::eval::Failed;
use crate::rules::event::Event;
use crate::rules::resolve::Rules;
use crate::rules::rule::{Effects, Rule, RuleFile, Subject, Token, What};
use crate::uevent::{Action, action_name};

/// Kinds of events that one worker remembers plans for; who has more begins anew.
const PLANS_MAX: usize = 512;

/// What of an event its rules can be chosen by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Kind {
    action: &'static str,
    subsystem: Box<[u8]>,
    devtype: Box<[u8]>,
    /// Whether OWNER, GROUP, MODE and SYMLINK mean anything.
    node: bool,
    /// Whether NAME does.
    interface: bool,
}

impl Kind {
    fn of(device: &Device) -> Self {
        let action = device.uevent().action();
        let stays = action != Action::Remove;
        Self {
            action: action_name(action),
            subsystem: device.subsystem().into(),
            devtype: device.devtype().into(),
            node: stays && device.devnum().is_some(),
            interface: stays && device.uevent().ifindex().is_some(),
        }
    }

    fn concerned(&self, effects: Effects) -> bool {
        effects.other || (effects.node && self.node) || (effects.name && self.interface)
    }

    /// Whether a comparison holds, if that is the same for all events of this kind.
    fn holds(&self, token: &Token) -> Option<bool> {
        let What::Match(subject, matcher) = &token.what else { return None };
        let value = match subject {
            Subject::Action => self.action.as_bytes(),
            Subject::Subsystem => &self.subsystem,
            Subject::Env(key) if **key == *b"DEVTYPE" => &self.devtype,
            Subject::Env(_)
            | Subject::Devpath
            | Subject::Kernel
            | Subject::Symlink
            | Subject::Name
            | Subject::Const(_)
            | Subject::Tag
            | Subject::Driver
            | Subject::Attr(_)
            | Subject::Sysctl(_) => return None,
        };
        Some(matcher.holds(value))
    }

    /// What is known of a rule: nothing happens, it only leads on, or it has to be tried.
    fn fate(&self, rule: &Rule) -> Fate {
        let known = |token: &Token| self.holds(token);
        if rule.tokens.iter().any(|token| known(token) == Some(false)) {
            return Fate::Passed;
        }
        match rule.goto {
            Some(target) if rule.tokens.iter().all(|token| known(token) == Some(true)) => {
                Fate::Leads(target)
            }
            None if !self.concerned(rule.effects) => Fate::Passed,
            Some(_) | None => {
                let known = rule.tokens.iter().take(64).enumerate();
                let known = known.filter(|(_, token)| self.holds(token) == Some(true));
                Fate::Tried(known.fold(0, |known, (index, _)| known | 1 << index))
            }
        }
    }
}

enum Fate {
    Passed,
    Leads(usize),
    /// The bits of its first 64 tokens that are known to hold.
    Tried(u64),
}

/// A rule to be tried, and where to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Step {
    file: usize,
    rule: usize,
    known: u64,
    /// Steps to go on with: when the rule held, and when it did not.
    held: usize,
    failed: usize,
}

/// The rules for one kind of event, first to last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    steps: Vec<Step>,
    devtype: Box<[u8]>,
}

impl Plan {
    /// The plan for events like this device's.
    #[must_use]
    pub fn new(rules: &Rules, device: &Device) -> Self {
        let kind = Kind::of(device);
        let mut plan = Self { steps: Vec::new(), devtype: kind.devtype.clone() };
        for (index, file) in rules.files().iter().enumerate() {
            plan.add(index, file, &kind);
        }
        plan
    }

    /// How many rules are tried at most.
    #[must_use]
    pub fn len(&self) -> usize {
        self.steps.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    fn add(&mut self, index: usize, file: &RuleFile, kind: &Kind) {
        let fates: Vec<Fate> = file.rules.iter().map(|rule| kind.fate(rule)).collect();
        // from each rule, the first one at or after it that has to be tried; behind the last is the end
        let mut tried = vec![fates.len(); fates.len() + 1];
        for (at, fate) in fates.iter().enumerate().rev() {
            tried[at] = match fate {
                Fate::Passed => tried[at + 1],
                Fate::Leads(target) => tried[*target],
                Fate::Tried(_) => at,
            };
        }
        // what nobody comes to is left out; jumps lead forward, so one walk finds the rest
        let mut reached = vec![false; fates.len() + 1];
        reached[tried[0]] = true;
        let mut number = vec![0; fates.len() + 1];
        let mut steps = Vec::new();
        for (at, fate) in fates.iter().enumerate() {
            let Fate::Tried(known) = fate else { continue };
            if !reached[at] {
                continue;
            }
            let failed = tried[at + 1];
            let held = file.rules[at].goto.map_or(failed, |target| tried[target]);
            (reached[failed], reached[held]) = (true, true);
            number[at] = self.steps.len() + steps.len();
            steps.push(Step { file: index, rule: at, known: *known, held, failed });
        }
        number[fates.len()] = self.steps.len() + steps.len();
        for step in &mut steps {
            (step.held, step.failed) = (number[step.held], number[step.failed]);
        }
        self.steps.extend(steps);
    }
}

impl Rules {
    /// Applies the rules of a plan for this kind of event; the outcome is that of [`Rules::apply`].
    ///
    /// # Errors
    /// As [`Rules::apply`].
    pub fn apply_plan(&self, plan: &Plan, event: &mut Event<'_>) -> Result<(), Failed> {
        if event.devtype_is_not(&plan.devtype) {
            // remembered of a device that goes away
            return self.apply_from(0, 0, event);
        }
        let mut at = 0;
        while let Some(step) = plan.steps.get(at) {
            let Some(file) = self.files().get(step.file) else { break };
            let Some(rule) = file.rules.get(step.rule) else { break };
            event.enter(file);
            let held = event.rule(rule, step.known)?;
            if event.devtype_is_not(&plan.devtype) {
                let next = held.then_some(rule.goto).flatten().unwrap_or(step.rule + 1);
                return self.apply_from(step.file, next, event);
            }
            at = if held { step.held } else { step.failed };
        }
        Ok(())
    }
}

/// The plans of one worker, for the rules of one loading.
#[derive(Clone, Debug, Default)]
pub struct Plans {
    generation: u64,
    plans: HashMap<Kind, Arc<Plan>>,
}

impl Plans {
    /// The plan for events like this device's; `generation` tells rules from those loaded later.
    pub fn of(&mut self, generation: u64, rules: &Rules, device: &Device) -> Arc<Plan> {
        if self.generation != generation || self.plans.len() >= PLANS_MAX {
            self.generation = generation;
            self.plans.clear();
        }
        let plan = self.plans.entry(Kind::of(device));
        plan.or_insert_with(|| Arc::new(Plan::new(rules, device))).clone()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::device::Sysfs;
    use crate::rules::names::Names;
    use crate::uevent::{Origin, Uevent};

    fn device(action: Action, pairs: &[(&str, &str)]) -> Device {
        let pairs: Vec<_> = pairs.iter().map(|(k, v)| (k.as_bytes(), v.as_bytes())).collect();
        let uevent = Uevent::synthetic(Origin::Kernel, action, b"/devices/x", 1, &pairs);
        Device::new(Sysfs::new("/nonexistent"), Arc::new(uevent))
    }

    /// The lines that are tried for a device.
    fn tried(text: &str, device: &Device) -> Vec<u32> {
        let mut rules = Rules::default();
        assert_eq!(rules.add(Path::new("f"), text.as_bytes(), &Names::default()), []);
        let plan = Plan::new(&rules, device);
        plan.steps.iter().map(|step| rules.files()[step.file].rules[step.rule].line).collect()
    }

    const DISK: [(&str, &str); 4] =
        [("SUBSYSTEM", "block"), ("DEVTYPE", "disk"), ("MAJOR", "8"), ("MINOR", "0")];

    #[test]
    fn rules_that_cannot_hold_are_left_out() {
        let text = "ACTION==\"remove\", TAG+=\"x\"\nSUBSYSTEM==\"net\", TAG+=\"x\"\n\
            ENV{DEVTYPE}==\"partition\", TAG+=\"x\"\nENV{OTHER}==\"1\", TAG+=\"x\"\n\
            MODE=\"0666\"\nNAME=\"x\"\nLABEL=\"nothing\", KERNEL==\"x\"\n";
        assert_eq!(tried(text, &device(Action::Add, &DISK)), [4, 5]);
        assert_eq!(tried(text, &device(Action::Remove, &DISK)), [1, 4]);
        assert_eq!(
            tried(text, &device(Action::Add, &[("SUBSYSTEM", "net"), ("IFINDEX", "1")])),
            [2, 4, 6]
        );
    }

    #[test]
    fn a_jump_that_is_certain_leaves_out_what_it_passes_unless_another_lands_there() {
        let text = "KERNEL==\"x\", GOTO=\"middle\"\nSUBSYSTEM!=\"net\", GOTO=\"end\"\nTAG+=\"a\"\n\
            LABEL=\"middle\"\nTAG+=\"b\"\nLABEL=\"end\"\nTAG+=\"c\"\n";
        assert_eq!(tried(text, &device(Action::Add, &DISK)), [1, 5, 7]);
        let without = text.split_once('\n').unwrap().1;
        assert_eq!(tried(without, &device(Action::Add, &DISK)), [6]);
    }

    #[test]
    fn plans_are_made_once_a_kind_and_anew_for_other_rules() {
        let (mut plans, rules) = (Plans::default(), Rules::default());
        let disk = device(Action::Add, &DISK);
        let first = plans.of(1, &rules, &disk);
        assert!(Arc::ptr_eq(&first, &plans.of(1, &rules, &device(Action::Add, &DISK))));
        assert!(!Arc::ptr_eq(&first, &plans.of(1, &rules, &device(Action::Change, &DISK))));
        assert!(!Arc::ptr_eq(&first, &plans.of(2, &rules, &disk)));
    }
}
