//! Stage 4: nodes that exist before their device does, so that opening one loads its driver.
//!
//! A rule with `OPTIONS+="static_node=…"` says what they are like; its matches do not count.
#![forbid(unsafe_code)]

use std::sync::Arc;

use crate::rules::rule::{Rule, Setting, Wanted, What};

/// A node below `/dev` that a rule names, and how it is to be at start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StaticNode {
    /// Below `/dev`, as written: it may lead elsewhere, through `..` or a link.
    pub name: Box<[u8]>,
    /// What is `None` stays as it is.
    pub owner: Option<u32>,
    pub group: Option<u32>,
    /// Permission bits; 0660 where the rule gives a group that is not root's and no mode.
    pub mode: Option<u32>,
    /// As written, nothing is filled in.
    pub tags: Vec<Box<[u8]>>,
    pub file: Arc<str>,
    /// Of the option, from 1.
    pub line: u32,
}

impl StaticNode {
    /// The static nodes of one rule.
    #[expect(clippy::wildcard_enum_match_arm, reason = "five of many kinds of token count here")]
    pub(super) fn of(rule: &Rule, file: &Arc<str>) -> Vec<Self> {
        if !rule.effects.static_node {
            return Vec::new();
        }
        let (mut owner, mut group, mut mode) = (None, None, None);
        let mut tags = Vec::new();
        let mut nodes = Vec::new();
        // tokens are sorted: what a node is like comes before its name
        for token in &rule.tokens {
            match &token.what {
                What::Owner(wanted @ (Wanted::Known(_) | Wanted::Nobody)) => owner = wanted.known(),
                What::Group(wanted @ (Wanted::Known(_) | Wanted::Nobody)) => group = wanted.known(),
                What::Mode(Wanted::Known(bits)) => mode = Some(*bits),
                What::Tag(tag) => tags.push(tag.text().into()),
                What::Options(Setting::StaticNode(name)) => nodes.push(Self {
                    name: name.clone(),
                    owner,
                    group,
                    mode: mode.or(group.filter(|gid| *gid != 0).map(|_| 0o660)),
                    tags: tags.clone(),
                    file: file.clone(),
                    line: token.line,
                }),
                _ => {}
            }
        }
        nodes
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::rules::Rules;
    use crate::rules::names::Names;

    #[test]
    fn what_the_same_rule_says_counts_in_any_order_and_its_matches_do_not() {
        let text = b"KERNEL==\"no\", MODE=\"0666\", OPTIONS+=\"static_node=fuse\", GROUP=\"7\"\n\
            OPTIONS+=\"static_node=a/b\", TAG+=\"x%k\", OPTIONS=\"static_node=c\", OWNER=\"$env{U}\"\n\
            MODE=\"0600\"\n";
        let mut rules = Rules::default();
        assert_eq!(rules.add(Path::new("f"), text, &Names::default()), []);
        let [fuse, first, second] = rules.static_nodes() else { panic!("{rules:?}") };
        assert_eq!((&*fuse.name, fuse.line, &*fuse.file), (b"fuse".as_slice(), 1, "f"));
        assert_eq!((fuse.owner, fuse.group, fuse.mode), (None, Some(7), Some(0o666)));
        assert_eq!((&*first.name, &*second.name), (b"a/b".as_slice(), b"c".as_slice()));
        assert_eq!((first.owner, first.mode, &*first.tags[0]), (None, None, b"x%k".as_slice()));
    }

    #[test]
    fn a_group_without_mode_gives_the_group_its_access() {
        let text =
            b"GROUP=\"7\", OPTIONS+=\"static_node=a\"\nGROUP=\"0\", OPTIONS+=\"static_node=b\"\n";
        let mut rules = Rules::default();
        rules.add(Path::new("f"), text, &Names::default());
        let modes: Vec<_> = rules.static_nodes().iter().map(|node| node.mode).collect();
        assert_eq!(modes, [Some(0o660), None]);
    }
}
