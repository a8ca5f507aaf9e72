//! Positions of axes, and which of them must move together.

/// An axis of a value: a run of elements, or the one fixed element for every position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Axis {
    pub(super) len: usize,
    start: u32,
    /// 0 for axes that are fixed from the start, all of whose positions are one element.
    step: u32,
}

impl Axis {
    fn element(self, position: usize) -> u32 {
        debug_assert!(position < self.len, "a position of the axis");
        self.start + self.step * position as u32
    }
}

/// The element that stands for everything fixed.
const FIXED: u32 = 0;

/// Elements in classes that move together (union-find), and every tie by itself.
#[derive(Debug)]
pub(super) struct Wires {
    parent: Vec<u32>,
    /// First element of every axis.
    axes: Vec<u32>,
    ties: Vec<(u32, u32)>,
    /// Elements set apart: two may change places only if they carry the same marks.
    marks: Vec<(u32, u64)>,
}

impl Wires {
    pub(super) fn new() -> Self {
        Self { parent: vec![FIXED], axes: vec![FIXED], ties: Vec::new(), marks: Vec::new() }
    }

    /// An axis whose positions are tied to nothing yet.
    pub(super) fn axis(&mut self, len: usize) -> Axis {
        let start = self.parent.len() as u32;
        self.axes.push(start);
        self.parent.extend(start..start + len as u32);
        Axis { len, start, step: 1 }
    }

    /// An axis that stays.
    pub(super) fn fixed(len: usize) -> Axis {
        Axis { len, start: FIXED, step: 0 }
    }

    /// Elements so far.
    pub(super) fn len(&self) -> usize {
        self.parent.len()
    }

    fn root(&self, mut element: u32) -> u32 {
        while self.parent[element as usize] != element {
            element = self.parent[element as usize];
        }
        element
    }

    fn find(&mut self, element: u32) -> u32 {
        let root = self.root(element);
        let mut at = element;
        while self.parent[at as usize] != root {
            at = std::mem::replace(&mut self.parent[at as usize], root);
        }
        root
    }

    /// Ties two positions.
    pub(super) fn tie(&mut self, a: Axis, i: usize, b: Axis, j: usize) {
        let (x, y) = (a.element(i), b.element(j));
        if x == y {
            return;
        }
        self.ties.push((x, y));
        let (p, q) = (self.find(x), self.find(y));
        // The smallest element is the root, so that the fixed one always is.
        self.parent[p.max(q) as usize] = p.min(q);
    }

    /// Ties two axes of equal length position by position.
    pub(super) fn tie_axes(&mut self, a: Axis, b: Axis) {
        if a != b {
            (0..a.len).for_each(|i| self.tie(a, i, b, i));
        }
    }

    pub(super) fn fix(&mut self, axis: Axis) {
        self.tie_axes(axis, Self::fixed(axis.len));
    }

    pub(super) fn fix_at(&mut self, axis: Axis, position: usize) {
        self.tie(axis, position, Self::fixed(axis.len), position);
    }

    pub(super) fn is_fixed(&mut self, axis: Axis) -> bool {
        axis.len == 1 || (0..axis.len).all(|i| self.find(axis.element(i)) == FIXED)
    }

    /// A mark that nothing carries yet, the first of many.
    pub(super) fn new_mark(&self) -> u64 {
        (self.marks.len() as u64) << 32
    }

    pub(super) fn mark(&mut self, axis: Axis, position: usize, mark: u64) {
        self.marks.push((axis.element(position), mark));
    }

    /// The wire of a position, `None` if it is fixed.
    pub(super) fn wire(&self, axis: Axis, position: usize) -> Option<u32> {
        let root = self.root(axis.element(position));
        (root != FIXED).then_some(root)
    }

    /// For every wire, what it looks like: its places and ties. Wires that look alike may change places. Indexed by root.
    pub(super) fn looks(&self) -> Vec<u128> {
        let n = self.parent.len();
        let roots: Vec<u32> = (0..n as u32).map(|e| self.root(e)).collect();
        // The place of an element: its axis, and how many elements of its wire come before it there.
        let mut place = vec![(0u32, 0u32); n];
        let mut seen = vec![(u32::MAX, 0u32); n];
        let mut looks = vec![0u128; n];
        for (axis, start) in self.axes.iter().enumerate() {
            let end = self.axes.get(axis + 1).map_or(n, |e| *e as usize);
            for e in *start as usize..end {
                let count = &mut seen[roots[e] as usize];
                if count.0 != axis as u32 {
                    *count = (axis as u32, 0);
                }
                place[e] = *count;
                count.1 += 1;
                add(&mut looks[roots[e] as usize], [1, pack(place[e]), 0]);
            }
        }
        for (x, y) in &self.ties {
            let [p, q] = [x, y].map(|e| pack(place[*e as usize]));
            add(&mut looks[roots[*x as usize] as usize], [2, p, q]);
        }
        for (e, mark) in &self.marks {
            add(&mut looks[roots[*e as usize] as usize], [3, pack(place[*e as usize]), *mark]);
        }
        looks
    }
}

fn pack((axis, count): (u32, u32)) -> u64 {
    u64::from(axis) << 32 | u64::from(count)
}

/// Adds a feature to a look: order does not matter, and two looks of 128 bits are equal by accident about never.
fn add(look: &mut u128, feature: [u64; 3]) {
    let half = |salt: u64| {
        // The finalizer of SplitMix64, chained.
        feature.iter().fold(salt, |h, x| {
            let mut h = (h ^ x).wrapping_add(0x9E37_79B9_7F4A_7C15);
            h = (h ^ (h >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            h = (h ^ (h >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            h ^ (h >> 31)
        })
    };
    *look = look.wrapping_add(u128::from(half(1)) << 64 | u128::from(half(2)));
}
