//! Filters by their levels.
//!
//! The tree has one node per level of the filters; a message walks it along its topic, by the literal
//! level, by `+` and by `#` (MQTT 5, section 4.7). Nothing is allocated on the way.

use std::collections::BTreeMap;

/// One level of the tree. What stands in the lists are keys of the router's filters.
#[derive(Debug, Default)]
pub(super) struct Node {
    /// Filters that end here.
    here: Vec<usize>,
    /// Filters that end with `#` below here; they match this level too.
    rest: Vec<usize>,
    any: Option<Box<Self>>,
    /// Boxed, because a tree map reserves room for eleven.
    pub(super) children: BTreeMap<Box<str>, Box<Self>>,
}

impl Node {
    /// The list of the filters that have these levels.
    pub(super) fn list(&mut self, levels: &str) -> &mut Vec<usize> {
        let mut node = self;
        let mut rest = Some(levels);
        while let Some(levels) = rest {
            let (level, tail) = split(levels);
            node = match level {
                "#" => return &mut node.rest,
                "+" => node.any.get_or_insert_default(),
                level => node.children.entry(level.into()).or_default(),
            };
            rest = tail;
        }
        &mut node.here
    }

    /// Removes a filter from the list of its levels, and the nodes that are then of no use.
    pub(super) fn prune(&mut self, levels: &str, key: usize) {
        // The last node on the way that is of use whatever becomes of what is below, and how the way
        // goes on from there: all that is below can be cut off there at once.
        let mut cut = levels;
        let mut node = &mut *self;
        let mut rest = Some(levels);
        let mut is_rest = false;
        while let Some(levels) = rest {
            if node.leads_elsewhere() {
                cut = levels;
            }
            let (level, tail) = split(levels);
            if level == "#" {
                is_rest = true;
                break;
            }
            let Some(next) = node.next_mut(level) else {
                return;
            };
            node = next;
            rest = tail;
        }
        let list = if is_rest {
            &mut node.rest
        } else {
            &mut node.here
        };
        list.retain(|other| *other != key);
        if !node.is_empty() {
            return;
        }
        let mut node = self;
        let mut above = levels;
        while above.len() > cut.len() {
            let (level, Some(tail)) = split(above) else {
                return;
            };
            let Some(next) = node.next_mut(level) else {
                return;
            };
            node = next;
            above = tail;
        }
        match split(cut).0 {
            // It is a list of the node itself, which is still of use.
            "#" => {}
            "+" => node.any = None,
            level => {
                node.children.remove(level);
            }
        }
    }

    /// The node below for a level of a filter.
    fn next_mut(&mut self, level: &str) -> Option<&mut Self> {
        match level {
            "+" => self.any.as_deref_mut(),
            level => self.children.get_mut(level).map(|child| &mut **child),
        }
    }

    /// Whether more than one thing hangs on this node, so that it stays when one of them goes.
    fn leads_elsewhere(&self) -> bool {
        let lists = [!self.here.is_empty(), !self.rest.is_empty()];
        let things = usize::from(self.any.is_some()) + self.children.len();
        things + lists.into_iter().filter(|is_used| *is_used).count() > 1
    }

    pub(super) fn is_empty(&self) -> bool {
        self.here.is_empty()
            && self.rest.is_empty()
            && self.any.is_none()
            && self.children.is_empty()
    }

    /// Finds the filters that a topic belongs to. `reserved`: the topic begins with `$`, which no leading
    /// wildcard matches [MQTT-4.7.2-1].
    ///
    /// Calls itself only where the way parts, and each such place on one way takes a filter of its own:
    /// neither a long topic from the broker nor one filter with 65,535 levels can exhaust the stack.
    pub(super) fn collect(&self, levels: Option<&str>, mut reserved: bool, hits: &mut Vec<usize>) {
        let mut node = self;
        let mut rest = levels;
        loop {
            if !reserved {
                hits.extend_from_slice(&node.rest);
            }
            let Some(levels) = rest else {
                hits.extend_from_slice(&node.here);
                return;
            };
            let any = if reserved { None } else { node.any.as_deref() };
            if any.is_none() && node.children.is_empty() {
                return;
            }
            let (level, tail) = split(levels);
            let child = if node.children.is_empty() {
                None
            } else {
                node.children.get(level).map(|child| &**child)
            };
            node = match (any, child) {
                (Some(any), Some(child)) => {
                    any.collect(tail, false, hits);
                    child
                }
                (Some(only), None) | (None, Some(only)) => only,
                (None, None) => return,
            };
            reserved = false;
            rest = tail;
        }
    }
}

impl Drop for Node {
    /// Level by level: dropped one inside the other, the nodes of a long filter exhaust the stack.
    fn drop(&mut self) {
        let mut below = Vec::new();
        self.uproot(&mut below);
        while let Some(mut node) = below.pop() {
            node.uproot(&mut below);
        }
    }
}

impl Node {
    #[expect(
        clippy::vec_box,
        reason = "nodes are boxed in the tree, and stay where they are"
    )]
    fn uproot(&mut self, below: &mut Vec<Box<Self>>) {
        below.extend(self.any.take());
        below.extend(std::mem::take(&mut self.children).into_values());
    }
}

fn split(levels: &str) -> (&str, Option<&str>) {
    match levels.split_once('/') {
        Some((level, tail)) => (level, Some(tail)),
        None => (levels, None),
    }
}
