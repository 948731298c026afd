//! Bytes of terminals and logs to lines of text.

use anstream::adapter::strip_bytes;

/// Collects chunks and gives out whole lines, without escape sequences and carriage returns.
#[derive(Debug, Default)]
pub struct LineBuffer {
    pending: Vec<u8>,
}

impl LineBuffer {
    /// Adds a chunk; `line` is called for every line it completes.
    pub fn push(&mut self, chunk: &[u8], mut line: impl FnMut(&str)) {
        self.pending.extend_from_slice(chunk);
        while let Some(end) = self.pending.iter().position(|byte| *byte == b'\n') {
            let rest = self.pending.split_off(end + 1);
            let complete = std::mem::replace(&mut self.pending, rest);
            line(&plain(&complete));
        }
    }

    /// Gives out what has no line end.
    pub fn finish(self, line: impl FnOnce(&str)) {
        if !self.pending.is_empty() {
            line(&plain(&self.pending));
        }
    }
}

/// All lines of a text, as [`LineBuffer`] gives them out.
#[must_use]
pub fn plain_lines(text: &[u8]) -> Vec<String> {
    let mut lines = Vec::new();
    let mut buffer = LineBuffer::default();
    buffer.push(text, |line| lines.push(line.to_owned()));
    buffer.finish(|line| lines.push(line.to_owned()));
    lines
}

fn plain(bytes: &[u8]) -> String {
    let stripped = strip_bytes(bytes).into_vec();
    String::from_utf8_lossy(&stripped)
        .trim_end_matches(['\r', '\n'])
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn escape_sequences_and_carriage_returns_go() {
        let text =
            b"[\x1b[0;32m  OK  \x1b[0m] Reached target \x1b[0;1;39mMulti-User System\x1b[0m.\r\n";
        assert_eq!(
            plain_lines(text),
            ["[  OK  ] Reached target Multi-User System."]
        );
    }

    proptest! {
        #[test]
        fn chunks_do_not_matter(
            lines in proptest::collection::vec("[a-z ]{0,8}", 0..8),
            cut in 0usize..80,
        ) {
            let text = lines.join("\n").into_bytes();
            let (head, tail) = text.split_at(cut.min(text.len()));
            let mut found = Vec::new();
            let mut buffer = LineBuffer::default();
            buffer.push(head, |line| found.push(line.to_owned()));
            buffer.push(tail, |line| found.push(line.to_owned()));
            buffer.finish(|line| found.push(line.to_owned()));
            prop_assert_eq!(found, plain_lines(&text));
        }
    }
}
