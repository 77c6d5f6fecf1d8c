//! Server-sent events out of a stream of bytes that may be cut anywhere.

/// What a line of a stream says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Line<'b> {
    /// A piece of data.
    Data(&'b [u8]),
    /// An error that the engine tells as one.
    Error(&'b [u8]),
    /// Something that may be passed over: a comment, an id, the end of an event.
    Other,
    /// Nothing that belongs into such a stream.
    Wrong(&'b [u8]),
}

/// Puts lines together.
#[derive(Debug, Default)]
pub(super) struct Lines {
    buffer: Vec<u8>,
    /// Up to where lines have been handed out.
    done: usize,
    /// Up to where no end of a line is.
    searched: usize,
}

/// Longer lines than this are not of this world: a run of bytes without an end must not fill the memory.
const LONGEST: usize = 64 << 20;

impl Lines {
    /// Takes in what came.
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        if self.done == self.buffer.len() {
            self.buffer.clear();
        } else if self.done > 0 {
            self.buffer.drain(..self.done);
        }
        self.searched = self
            .searched
            .saturating_sub(self.done)
            .min(self.buffer.len());
        self.done = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// Returns the next whole line.
    pub(super) fn next(&mut self) -> Option<Line<'_>> {
        let from = self.searched.max(self.done);
        let Some(end) = self.buffer[from..].iter().position(|&byte| byte == b'\n') else {
            self.searched = self.buffer.len();
            let long = self.buffer.len() - self.done > LONGEST;
            return long.then(|| {
                let start = self.done;
                self.done = self.buffer.len();
                Line::Wrong(&self.buffer[start..])
            });
        };
        let line = &self.buffer[self.done..from + end];
        self.done = from + end + 1;
        self.searched = self.done;
        Some(meaning(line.strip_suffix(b"\r").unwrap_or(line)))
    }

    /// Returns what remains when the stream has ended: a line without an end.
    pub(super) fn rest(&self) -> &[u8] {
        &self.buffer[self.done..]
    }
}

fn meaning(line: &[u8]) -> Line<'_> {
    let after = |name: &[u8]| {
        line.strip_prefix(name)
            .map(|rest| rest.strip_prefix(b" ").unwrap_or(rest))
    };
    if let Some(data) = after(b"data:") {
        return Line::Data(data);
    }
    if let Some(error) = after(b"error:") {
        return Line::Error(error);
    }
    let known = [&b"event:"[..], b"id:", b"retry:", b":"];
    if line.is_empty() || known.iter().any(|name| line.starts_with(name)) {
        return Line::Other;
    }
    Line::Wrong(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data_of(text: &str, size: usize) -> Vec<String> {
        let (mut lines, mut found) = (Lines::default(), Vec::new());
        for bytes in text.as_bytes().chunks(size) {
            lines.feed(bytes);
            while let Some(line) = lines.next() {
                match line {
                    Line::Data(data) => found.push(String::from_utf8_lossy(data).into_owned()),
                    Line::Other => {}
                    line => found.push(format!("{line:?}")),
                }
            }
        }
        assert!(lines.rest().is_empty());
        found
    }

    #[test]
    fn events_are_whole_wherever_the_stream_is_cut() {
        let text = ": hello\nevent: x\ndata: {\"a\":1}\n\ndata:two\r\n\r\ndata: [DONE]\n\n";
        for size in 1..=text.len() {
            assert_eq!(
                data_of(text, size),
                ["{\"a\":1}", "two", "[DONE]"],
                "in pieces of {size}"
            );
        }
    }

    #[test]
    fn what_is_no_event_is_told() {
        let found = data_of("<html>\n", 3);
        assert!(found[0].starts_with("Wrong"), "{found:?}");
    }
}
