//! Stage 2: which pending event was last at, above or below a devpath.
//!
//! A tree over path components. Each node remembers only the last event at its path: who comes
//! later waits for that one, which waits for those before it. An event at P likewise stands for
//! all that was pending below P, so claiming P cuts the tree off there: every node is made once
//! and cut once, and a claim costs as much as its path is deep, however many events wait.

use std::collections::HashMap;
use std::sync::Arc;

/// An event's place in the queue.
pub(super) type EventId = usize;

/// A node's place in `nodes`.
pub(super) type NodeId = usize;

const ROOT: NodeId = 0;

#[derive(Debug, Default)]
struct Node {
    parent: NodeId,
    name: Arc<[u8]>,
    children: HashMap<Arc<[u8]>, NodeId>,
    last: Option<EventId>,
}

/// The pending events by path.
#[derive(Debug)]
pub(super) struct Paths {
    nodes: Vec<Node>,
    /// Places in `nodes` that are not part of the tree.
    free: Vec<NodeId>,
}

impl Paths {
    pub(super) fn new() -> Self {
        Self { nodes: vec![Node::default()], free: Vec::new() }
    }

    /// Makes `event` the last one at `path`, and adds the events it has to wait for to `blockers`.
    ///
    /// These are the nearest one at or above `path` (which waits for those further up) and the
    /// ones below.
    pub(super) fn claim(
        &mut self,
        path: &[u8],
        event: EventId,
        blockers: &mut Vec<EventId>,
    ) -> NodeId {
        let mut at = ROOT;
        let mut nearest = self.nodes[ROOT].last;
        for name in components(path) {
            at = self.child(at, name);
            nearest = self.nodes[at].last.or(nearest);
        }
        blockers.extend(nearest);
        self.cut_below(at, blockers);
        self.nodes[at].last = Some(event);
        at
    }

    /// The last pending event at exactly `path`.
    pub(super) fn last_at(&self, path: &[u8]) -> Option<EventId> {
        let mut at = ROOT;
        for name in components(path) {
            at = *self.nodes[at].children.get(name)?;
        }
        self.nodes[at].last
    }

    /// Forgets that `event` was the last at `node`, if it still is, and the branch if it is bare.
    pub(super) fn release(&mut self, node: NodeId, event: EventId) {
        if self.nodes[node].last != Some(event) {
            return;
        }
        self.nodes[node].last = None;
        let mut at = node;
        while at != ROOT && self.nodes[at].last.is_none() && self.nodes[at].children.is_empty() {
            let Node { parent, name, .. } = std::mem::take(&mut self.nodes[at]);
            self.nodes[parent].children.remove(&name);
            self.free.push(at);
            at = parent;
        }
    }

    /// Nodes in the tree, without its root.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.nodes.len() - self.free.len() - 1
    }

    fn child(&mut self, parent: NodeId, name: &[u8]) -> NodeId {
        if let Some(child) = self.nodes[parent].children.get(name) {
            return *child;
        }
        let name: Arc<[u8]> = name.into();
        let node = Node { parent, name: name.clone(), ..Node::default() };
        let id = match self.free.pop() {
            Some(id) => {
                self.nodes[id] = node;
                id
            }
            None => {
                self.nodes.push(node);
                self.nodes.len() - 1
            }
        };
        self.nodes[parent].children.insert(name, id);
        id
    }

    /// Takes everything below `node` out of the tree and adds its events to `found`.
    ///
    /// An event whose node is cut keeps a stale [`NodeId`]; `release` sees by `last` that the
    /// place is not its own any more.
    fn cut_below(&mut self, node: NodeId, found: &mut Vec<EventId>) {
        let children = std::mem::take(&mut self.nodes[node].children);
        let mut todo: Vec<NodeId> = children.into_values().collect();
        while let Some(id) = todo.pop() {
            let Node { children, last, .. } = std::mem::take(&mut self.nodes[id]);
            found.extend(last);
            todo.extend(children.into_values());
            self.free.push(id);
        }
    }
}

fn components(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/').filter(|name| !name.is_empty())
}
