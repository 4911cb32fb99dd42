//! Lines in bounded memory: of one that is too long only the beginning is kept.

use std::io::{self, BufRead, Read};

/// A row has this many bytes at the most; what is beyond is not kept.
pub const MAX_ROW: usize = 1 << 20;
/// Of a row that is too long, this much is shown.
pub const SHOWN: usize = 1024;

/// A line without its end.
#[derive(Debug)]
pub struct Line {
    /// Its number, from 1.
    pub number: u64,
    /// Its bytes.
    pub text: Vec<u8>,
    /// Whether it has more than [`MAX_ROW`] bytes, so that the text is its beginning only.
    pub too_long: bool,
}

/// What ends a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineEnd {
    /// A line feed of ASCII, with or without a carriage return before it.
    Ascii,
    /// A next line (15) or a line feed (25) of EBCDIC.
    Ebcdic,
}

/// Reads lines.
pub struct Lines<R> {
    reader: R,
    end: LineEnd,
    next: u64,
}

impl<R: BufRead> Lines<R> {
    /// From the beginning of a file.
    pub fn new(reader: R, end: LineEnd) -> Self {
        Self { reader, end, next: 1 }
    }

    /// The next line, which may be empty; `None` at the end.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn next_line(&mut self) -> io::Result<Option<Line>> {
        let mut text = Vec::new();
        let (read, ended) = match self.end {
            LineEnd::Ascii => {
                let read = self.reader.by_ref().take(MAX_ROW as u64 + 1).read_until(b'\n', &mut text)?;
                (read, text.last() == Some(&b'\n'))
            }
            LineEnd::Ebcdic => self.ebcdic_line(&mut text)?,
        };
        if read == 0 {
            return Ok(None);
        }
        let number = self.next;
        self.next += 1;
        let too_long = !ended && read > MAX_ROW;
        if too_long {
            text.truncate(SHOWN);
            self.pass_over_the_rest()?;
        }
        if ended {
            text.pop();
        }
        if text.last() == Some(&b'\r') {
            text.pop();
        }
        // A byte order mark belongs to no field.
        if number == 1 && self.end == LineEnd::Ascii && text.starts_with(&[0xEF, 0xBB, 0xBF]) {
            text.drain(..3);
        }
        Ok(Some(Line { number, text, too_long }))
    }

    fn ebcdic_line(&mut self, text: &mut Vec<u8>) -> io::Result<(usize, bool)> {
        loop {
            let chunk = self.reader.fill_buf()?;
            if chunk.is_empty() || text.len() > MAX_ROW {
                return Ok((text.len(), false));
            }
            let chunk = &chunk[..chunk.len().min(MAX_ROW + 1 - text.len())];
            let end = chunk.iter().position(|byte| is_ebcdic_end(*byte));
            let taken = end.map_or(chunk.len(), |end| end + 1);
            text.extend_from_slice(&chunk[..taken]);
            self.reader.consume(taken);
            if end.is_some() {
                return Ok((text.len(), true));
            }
        }
    }

    fn pass_over_the_rest(&mut self) -> io::Result<()> {
        if self.end == LineEnd::Ascii {
            return self.reader.skip_until(b'\n').map(drop);
        }
        loop {
            let chunk = self.reader.fill_buf()?;
            if chunk.is_empty() {
                return Ok(());
            }
            let end = chunk.iter().position(|byte| is_ebcdic_end(*byte));
            let taken = end.map_or(chunk.len(), |end| end + 1);
            self.reader.consume(taken);
            if end.is_some() {
                return Ok(());
            }
        }
    }
}

fn is_ebcdic_end(byte: u8) -> bool {
    matches!(byte, 0x15 | 0x25)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(bytes: &[u8], end: LineEnd) -> Vec<(u64, Vec<u8>, bool)> {
        let mut lines = Lines::new(bytes, end);
        std::iter::from_fn(|| lines.next_line().expect("read")).map(|line| (line.number, line.text, line.too_long)).collect()
    }

    #[test]
    fn line_ends_of_both_families() {
        let line = |number, text: &[u8]| (number, text.to_vec(), false);
        assert_eq!(lines(b"\xEF\xBB\xBFa\r\n\nb", LineEnd::Ascii), [line(1, b"a"), line(2, b""), line(3, b"b")]);
        assert_eq!(lines(b"\xC1\x15\xC2\x0D\x25\xC3", LineEnd::Ebcdic), [line(1, b"\xC1"), line(2, b"\xC2"), line(3, b"\xC3")]);
    }

    #[test]
    fn of_a_long_line_only_the_beginning_is_kept() {
        for (filler, last, end) in [(b'x', b'\n', LineEnd::Ascii), (0xE7, 0x15, LineEnd::Ebcdic)] {
            let mut bytes = vec![filler; MAX_ROW * 3];
            bytes.extend_from_slice(&[last, filler]);
            let read = lines(&bytes, end);
            assert_eq!((read[0].1.len(), read[0].2), (SHOWN, true));
            assert_eq!(read[1], (2, vec![filler], false));
            let mut longest = vec![filler; MAX_ROW];
            longest.push(last);
            assert!(!lines(&longest, end)[0].2);
        }
    }
}
