//! Stage 3: the texts of a hardware database, one after the other; what ends one of them is not stored again.
#![forbid(unsafe_code)]

/// Texts, each with a NUL at its end.
#[derive(Debug)]
pub(super) struct Texts {
    bytes: Vec<u8>,
    /// A tree by the last byte, the last but one, and so on; the first is the root.
    ends: Vec<End>,
}

/// What was stored when a way through the tree was first gone so far.
#[derive(Debug, Default)]
struct End {
    /// Where the text ends, and its length.
    end: usize,
    length: usize,
    /// Sorted by byte.
    children: Vec<(u8, usize)>,
}

impl Default for Texts {
    fn default() -> Self {
        Self { bytes: vec![0], ends: vec![End::default()] }
    }
}

impl Texts {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// From a place up to a NUL.
    pub(super) fn text(&self, at: usize) -> &[u8] {
        let rest = self.bytes.get(at..).unwrap_or_default();
        rest.split(|byte| *byte == 0).next().unwrap_or_default()
    }

    /// Where a text without NUL is; it is stored if it does not end one that is.
    pub(super) fn add(&mut self, text: &[u8]) -> usize {
        let mut at = 0;
        let mut left = text;
        let place = loop {
            let known = &self.ends[at];
            // whoever came so far along the whole text ends with it
            if left.is_empty() || self.ends_with(known, text) {
                return known.end - text.len();
            }
            let [head @ .., last] = left else { return 0 };
            match known.children.binary_search_by_key(last, |(byte, _)| *byte) {
                Ok(found) => at = known.children[found].1,
                Err(place) => break (place, *last),
            }
            left = head;
        };
        let begin = self.bytes.len();
        self.bytes.extend_from_slice(text);
        let new = self.ends.len();
        self.ends.push(End { end: self.bytes.len(), length: text.len(), children: Vec::new() });
        self.bytes.push(0);
        self.ends[at].children.insert(place.0, (place.1, new));
        begin
    }

    fn ends_with(&self, known: &End, text: &[u8]) -> bool {
        known.length >= text.len() && self.bytes[..known.end].ends_with(text)
    }
}

#[cfg(test)]
mod tests {
    use super::Texts;

    #[test]
    fn what_ends_a_text_that_is_there_is_not_stored_again() {
        let mut texts = Texts::default();
        assert_eq!((texts.add(b""), texts.add(b"vendor")), (0, 1));
        assert_eq!((texts.add(b"dor"), texts.add(b"vendor"), texts.add(b"")), (4, 1, 0));
        assert_eq!((texts.add(b"endors"), texts.add(b"or"), texts.add(b"xdor")), (8, 5, 15));
        assert_eq!(texts.bytes(), b"\0vendor\0endors\0xdor\0");
        assert_eq!((texts.text(4), texts.text(99)), (&b"dor"[..], &b""[..]));
    }
}
