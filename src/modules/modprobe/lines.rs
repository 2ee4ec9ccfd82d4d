//! Stage 3b: the bytes of a modprobe.d(5) file in, its logical lines and their words out.
#![forbid(unsafe_code)]

/// A logical line: what a backslash continues is one line, and other backslashes are gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) text: Vec<u8>,
    /// Where it begins in the file.
    pub(super) start: usize,
}

/// All lines of a file, the empty ones among them.
pub(super) fn lines(file: &[u8]) -> Vec<Line> {
    let mut all = Vec::new();
    let mut line = Line { text: Vec::new(), start: 0 };
    let mut at = 0;
    while let Some(&byte) = file.get(at) {
        at += 1;
        match byte {
            b'\n' => all.push(std::mem::replace(&mut line, Line { text: Vec::new(), start: at })),
            b'\\' => {
                if let Some(&quoted) = file.get(at)
                    && quoted != b'\n'
                {
                    line.text.push(quoted);
                }
                at += 1;
            }
            _ => line.text.push(byte),
        }
    }
    all.push(line);
    all
}

/// Takes words off a line from the left.
#[derive(Clone, Copy, Debug)]
pub(super) struct Words<'l> {
    rest: &'l [u8],
}

fn is_blank(byte: &u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

impl<'l> Words<'l> {
    pub(super) fn of(line: &'l [u8]) -> Self {
        Self { rest: line }
    }

    /// The next word, without the blanks before it and the one after it.
    pub(super) fn next(&mut self) -> Option<&'l [u8]> {
        let start = self.rest.iter().position(|byte| !is_blank(byte))?;
        let rest = &self.rest[start..];
        let end = rest.iter().position(is_blank).unwrap_or(rest.len());
        self.rest = rest.get(end + 1..).unwrap_or_default();
        Some(&rest[..end])
    }

    /// Everything behind the last word's blank, unless it is nothing.
    pub(super) fn rest(self) -> Option<&'l [u8]> {
        Some(self.rest).filter(|rest| !rest.is_empty())
    }
}

/// A name or pattern with `-` as `_`, but not within brackets; `None` if a bracket has no partner.
pub(super) fn normalized(name: &[u8]) -> Option<Vec<u8>> {
    let mut folded = name.to_vec();
    let mut at = 0;
    while let Some(byte) = folded.get_mut(at) {
        match byte {
            b'-' => *byte = b'_',
            b']' => return None,
            b'[' => at += folded[at..].iter().position(|byte| *byte == b']')?,
            _ => {}
        }
        at += 1;
    }
    Some(folded)
}

/// The modules in `pre: a b post: c`: those to be loaded before, and those after.
pub(super) fn softdep(text: &[u8]) -> (Vec<&[u8]>, Vec<&[u8]>) {
    let (mut pre, mut post) = (Vec::new(), Vec::new());
    let mut list = None;
    let blank = |byte: &u8| byte.is_ascii_whitespace() || *byte == b'\x0b';
    for word in text.split(blank).filter(|word| !word.is_empty()) {
        match (word, &mut list) {
            (b"pre:", _) => list = Some(&mut pre),
            (b"post:", _) => list = Some(&mut post),
            (_, Some(list)) => list.push(word),
            // stands before either
            (_, None) => {}
        }
    }
    (pre, post)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backslash_continues_a_line_and_is_gone_elsewhere() {
        let file = b"a \\\n b\nc\\d \\\\e\nlast\\";
        let found: Vec<_> = lines(file).into_iter().map(|line| (line.start, line.text)).collect();
        let wanted: [(usize, &[u8]); 3] = [(0, b"a  b"), (7, b"cd \\e"), (15, b"last")];
        assert_eq!(found, wanted.map(|(start, text)| (start, text.to_vec())));
    }

    #[test]
    fn a_word_takes_one_blank_along() {
        let mut words = Words::of(b" \toptions  tun  a=1 ");
        assert_eq!((words.next(), words.next()), (Some(&b"options"[..]), Some(&b"tun"[..])));
        assert_eq!(words.rest(), Some(&b" a=1 "[..]));
        let mut words = Words::of(b"options tun ");
        assert_eq!(
            (words.next(), words.next(), words.rest()),
            (Some(&b"options"[..]), Some(&b"tun"[..]), None)
        );
    }

    #[test]
    fn a_minus_is_an_underscore_outside_brackets() {
        assert_eq!(normalized(b"a-b[0-9]-c").unwrap(), b"a_b[0-9]_c");
        assert_eq!((normalized(b"a]"), normalized(b"a[b-c")), (None, None));
    }
}
