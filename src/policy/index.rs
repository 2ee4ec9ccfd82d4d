//! Stage 4b: finds the rules that can match, without looking at the others.
#![forbid(unsafe_code)]

use std::collections::HashMap;

use super::condition::{Condition, Field};
use super::{Facts, Rule};

/// Numbers of the rules that a value of a field can satisfy, ascending.
type ByValue = HashMap<Box<[u8]>, Vec<usize>>;

/// Rules by one literal value each; those that have none are always candidates.
#[derive(Clone, Debug, Default)]
pub(super) struct Index {
    fields: Vec<(Field, ByValue)>,
    always: Vec<usize>,
}

impl Index {
    pub(super) fn new(rules: &[Rule]) -> Self {
        let mut index = Self::default();
        // by field, since a policy may ask for many properties
        let mut slots: HashMap<Field, usize> = HashMap::new();
        for (number, rule) in rules.iter().enumerate() {
            let Some((field, values)) = key(rule) else {
                index.always.push(number);
                continue;
            };
            let fields = &mut index.fields;
            let slot = *slots.entry(field.clone()).or_insert_with(|| {
                fields.push((field.clone(), HashMap::new()));
                fields.len() - 1
            });
            for value in values {
                let numbers = fields[slot].1.entry(value).or_default();
                if numbers.last() != Some(&number) {
                    numbers.push(number);
                }
            }
        }
        index
    }

    /// Numbers of the rules that may match, ascending.
    pub(super) fn candidates(&self, facts: &Facts<'_>) -> Vec<usize> {
        let mut numbers = self.always.clone();
        for (field, values) in &self.fields {
            numbers.extend(values.get(field.of(facts)).into_iter().flatten());
        }
        numbers.sort_unstable();
        numbers
    }
}

/// The condition of a rule that tells most, among those that only literals can meet.
fn key(rule: &Rule) -> Option<(&Field, Vec<Box<[u8]>>)> {
    let literal = |condition: &Condition| -> Option<Vec<Box<[u8]>>> {
        if condition.any.is_empty() {
            return None;
        }
        let lists: Option<Vec<_>> =
            condition.any.iter().map(|pattern| pattern.literals()).collect();
        Some(lists?.concat())
    };
    rule.conditions
        .iter()
        .filter_map(|condition| Some((&condition.field, literal(condition)?)))
        .min_by_key(|(field, _)| rank(field))
}

/// How many devices share a value of this field, roughly.
fn rank(field: &Field) -> u8 {
    match field {
        Field::Devname => 0,
        Field::Sysname => 1,
        Field::Property(_) => 2,
        Field::Driver => 3,
        Field::Subsystem => 4,
        Field::Devtype => 5,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::{Facts, Policy};
    use crate::rules::names::Names;

    fn facts(devname: &'static str) -> Facts<'static> {
        Facts {
            devname: Some(devname.as_bytes()),
            subsystem: b"tty",
            devtype: b"",
            sysname: devname.as_bytes(),
            driver: b"",
            property: &|key| (key == b"ID_SERIAL").then_some(&b"s77"[..]),
        }
    }

    fn count(rules: &str, devname: &'static str) -> (usize, Option<u32>) {
        let text = format!("schema = 1\n{rules}");
        let (policy, problems) = Policy::parse(Path::new("t.toml"), &text, &Names::default());
        assert_eq!(problems, []);
        let (overlay, evaluated) = policy.matching_counted(&facts(devname));
        (evaluated, overlay.mode())
    }

    fn rule(id: usize, test: &str) -> String {
        format!("[[rule]]\nid = \"r{id}\"\nmatch.{test}\nset.mode = \"{:04o}\"\n", id % 512)
    }

    #[test]
    fn ten_thousand_literal_names_cost_as_much_as_one() {
        let mut text: String =
            (0..10_000).map(|n| rule(n, &format!("devname = \"ttyX{n}|alt{n}\""))).collect();
        text.push_str(&rule(10_000, "sysname = \"zz*\""));
        assert_eq!(count(&text, "alt700"), (2, Some(700 % 512)));
        assert_eq!(count(&text, "ttyY1"), (1, None));
    }

    #[test]
    fn literal_properties_are_found_too() {
        let text: String =
            (0..1_000).map(|n| rule(n, &format!("property.ID_SERIAL = \"s{n}\""))).collect();
        assert_eq!(count(&text, "x"), (1, Some(77)));
    }

    #[test]
    fn a_value_named_twice_finds_its_rule_once() {
        assert_eq!(count(&rule(3, "devname = [\"x|x\", \"x\"]"), "x"), (1, Some(3)));
    }

    #[test]
    fn a_pattern_or_a_negation_is_always_looked_at() {
        let text = rule(1, "devname = [\"y\", \"x*\"]") + &rule(2, "devname = \"!y\"");
        assert_eq!(count(&text, "xa"), (2, Some(2)));
        assert_eq!(count(&text, "y"), (2, Some(1)));
    }
}
