//! Stage 6: which entries, cells and string bytes of a map are free; the writer's own book.
//!
//! What is given back waits as *retired* until nothing else is left: with the kernel shim, its
//! readers must have let go before anything is used anew, and so one SYNC serves many.
#![forbid(unsafe_code)]

/// What a map has too little of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Short {
    Entries,
    Strings,
    /// No slot within the probe limit.
    Slots,
}

/// Free numbers below a limit.
#[derive(Debug, Default)]
pub(super) struct Pool {
    free: Vec<u32>,
    retired: Vec<u32>,
}

impl Pool {
    pub(super) fn new(limit: u32, is_used: impl Fn(u32) -> bool) -> Self {
        Self { free: (0..limit).rev().filter(|n| !is_used(*n)).collect(), retired: Vec::new() }
    }

    pub(super) fn take(&mut self) -> Option<u32> {
        self.free.pop()
    }

    pub(super) fn give_back(&mut self, number: u32) {
        self.free.push(number);
    }

    pub(super) fn retire(&mut self, number: u32) {
        self.retired.push(number);
    }
}

/// Where a string lies; length zero lies nowhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Text {
    pub offset: u32,
    pub len: u16,
}

impl Text {
    fn units(self) -> usize {
        usize::from(self.len).div_ceil(8)
    }

    fn end(self) -> u32 {
        self.offset + u32::from(self.len).next_multiple_of(8)
    }
}

/// Free strings of each size in units of 8 bytes, and the untouched rest of the area.
#[derive(Debug, Default)]
pub(super) struct Strings {
    end: u32,
    limit: u32,
    free: Vec<Vec<u32>>,
    retired: Vec<Text>,
}

impl Strings {
    pub(super) fn new(limit: u64, used: impl Iterator<Item = Text>) -> Self {
        let end = used.map(Text::end).max().unwrap_or(0);
        Self { end, limit: u32::try_from(limit).unwrap_or(u32::MAX), ..Self::default() }
    }

    pub(super) fn take(&mut self, len: usize) -> Option<Text> {
        let len = u16::try_from(len).ok()?;
        let mut text = Text { offset: 0, len };
        if len == 0 {
            return Some(text);
        }
        if let Some(offset) = self.free.get_mut(text.units()).and_then(Vec::pop) {
            text.offset = offset;
            return Some(text);
        }
        text.offset = self.end;
        let end = self.end.checked_add(u32::from(len).next_multiple_of(8))?;
        self.end = if end <= self.limit { end } else { return None };
        Some(text)
    }

    pub(super) fn give_back(&mut self, text: Text) {
        if text.len == 0 {
            return;
        }
        let units = text.units();
        if self.free.len() <= units {
            self.free.resize(units + 1, Vec::new());
        }
        if let Some(offsets) = self.free.get_mut(units) {
            offsets.push(text.offset);
        }
    }

    pub(super) fn retire(&mut self, text: Text) {
        self.retired.push(text);
    }
}

/// All that can run out in one map.
#[derive(Debug, Default)]
pub(super) struct Space {
    pub entries: Pool,
    pub cells: Pool,
    pub strings: Strings,
}

impl Space {
    pub(super) fn has_retired(&self) -> bool {
        !self.entries.retired.is_empty()
            || !self.cells.retired.is_empty()
            || !self.strings.retired.is_empty()
    }

    /// Frees what was retired; no reader may still use it unchecked.
    pub(super) fn reclaim(&mut self) {
        self.entries.free.append(&mut self.entries.retired);
        self.cells.free.append(&mut self.cells.retired);
        for text in std::mem::take(&mut self.strings.retired) {
            self.strings.give_back(text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_retired_string_is_used_again_only_after_it_is_reclaimed() {
        let mut space = Space { strings: Strings::new(16, std::iter::empty()), ..Space::default() };
        let (a, b) = (space.strings.take(5).unwrap(), space.strings.take(8).unwrap());
        assert_eq!((a.offset, b.offset), (0, 8));
        assert!(space.strings.take(1).is_none());
        space.strings.retire(a);
        assert!(space.has_retired() && space.strings.take(1).is_none());
        space.reclaim();
        assert_eq!(space.strings.take(3), Some(Text { offset: 0, len: 3 }));
    }

    #[test]
    fn a_number_in_use_is_never_given_out() {
        let mut pool = Pool::new(4, |n| n == 0 || n == 2);
        assert_eq!((pool.take(), pool.take(), pool.take()), (Some(1), Some(3), None));
    }
}
