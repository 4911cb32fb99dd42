//! How characters are written: files in any encoding become UTF-8 while they are read.

use std::io::{self, BufRead, Read};

use encoding_rs::{DecoderResult, Encoding};

use super::code_pages::{CODE_PAGES, CodePage};

// Decoded at a time.
const CHUNK: usize = 16 << 10;
// Where bytes are no characters, this stands in what is decoded: no UTF-8 has it, so the row that it is in is a bad one.
const NOT_DECODED: u8 = 0xFF;

/// How characters are written.
#[derive(Clone, Copy, Debug)]
pub enum TextEncoding {
    /// UTF-8, which is read as it is.
    Utf8,
    /// Another one of the Encoding Standard.
    Standard(&'static Encoding),
    /// An EBCDIC code page.
    Ebcdic(&'static str, &'static CodePage),
}

impl TextEncoding {
    /// The encoding of a label, in any case.
    ///
    /// # Errors
    /// A message for the author where there is none.
    pub fn of_label(label: &str) -> Result<Self, String> {
        let lower = label.trim().to_ascii_lowercase();
        if let Some((name, page)) = CODE_PAGES.iter().find(|(name, _)| *name == lower || name.replace("ibm", "cp") == lower) {
            return Ok(Self::Ebcdic(name, page));
        }
        match Encoding::for_label_no_replacement(lower.as_bytes()) {
            Some(encoding) if encoding == encoding_rs::UTF_8 => Ok(Self::Utf8),
            Some(encoding) => Ok(Self::Standard(encoding)),
            None => {
                let pages: Vec<&str> = CODE_PAGES.iter().map(|(name, _)| *name).collect();
                let pages = pages.join(", ");
                Err(format!(
                    "{label:?} is no encoding that can be read; take for example utf-8, windows-1252, iso-8859-15, or one of {pages}"
                ))
            }
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Utf8 => "UTF-8",
            Self::Standard(encoding) => encoding.name(),
            Self::Ebcdic(name, _) => name,
        }
    }

    /// Whether it is an EBCDIC code page.
    pub fn is_ebcdic(self) -> bool {
        matches!(self, Self::Ebcdic(..))
    }

    /// The text of some bytes; `None` where they are no characters.
    pub fn decode(self, bytes: &[u8]) -> Option<String> {
        match self {
            Self::Utf8 => String::from_utf8(bytes.to_vec()).ok(),
            Self::Standard(encoding) => {
                encoding.decode_without_bom_handling_and_without_replacement(bytes).map(std::borrow::Cow::into_owned)
            }
            Self::Ebcdic(_, page) => Some(bytes.iter().map(|byte| page[usize::from(*byte)]).collect()),
        }
    }

    /// The same file in UTF-8. What can't be decoded is bytes that no UTF-8 has.
    pub fn reader<'a>(self, reader: Box<dyn BufRead + 'a>) -> Box<dyn BufRead + 'a> {
        let decoder = match self {
            Self::Utf8 => return reader,
            Self::Standard(encoding) => Decoder::Standard(Box::new(encoding.new_decoder_with_bom_removal())),
            Self::Ebcdic(_, page) => Decoder::Ebcdic(page),
        };
        Box::new(Decoded { reader, decoder, text: Vec::with_capacity(CHUNK), position: 0, ended: false })
    }
}

enum Decoder {
    Standard(Box<encoding_rs::Decoder>),
    Ebcdic(&'static CodePage),
}

struct Decoded<R> {
    reader: R,
    decoder: Decoder,
    // Decoded, and read up to `position`.
    text: Vec<u8>,
    position: usize,
    // A decoder is told of the end once.
    ended: bool,
}

impl<R: BufRead> BufRead for Decoded<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.position == self.text.len() && !self.ended {
            self.position = 0;
            self.text.clear();
            let bytes = self.reader.fill_buf()?;
            let last = bytes.is_empty();
            let (read, done) = self.decoder.decode(bytes, last, &mut self.text);
            self.reader.consume(read);
            self.ended = last && done;
        }
        Ok(&self.text[self.position..])
    }

    fn consume(&mut self, amount: usize) {
        self.position = (self.position + amount).min(self.text.len());
    }
}

impl<R: BufRead> Read for Decoded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let text = self.fill_buf()?;
        let read = text.len().min(buffer.len());
        buffer[..read].copy_from_slice(&text[..read]);
        self.consume(read);
        Ok(read)
    }
}

impl Decoder {
    // Decodes a beginning of the bytes; tells its length, and whether nothing is left to be given out.
    fn decode(&mut self, bytes: &[u8], last: bool, text: &mut Vec<u8>) -> (usize, bool) {
        match self {
            Self::Ebcdic(page) => {
                // A character of a code page has three bytes of UTF-8 at the most.
                let bytes = &bytes[..bytes.len().min(CHUNK / 3)];
                for byte in bytes {
                    let mut utf8 = [0; 4];
                    text.extend_from_slice(page[usize::from(*byte)].encode_utf8(&mut utf8).as_bytes());
                }
                (bytes.len(), true)
            }
            Self::Standard(decoder) => {
                text.resize(CHUNK, 0);
                let (mut read, mut written) = (0, 0);
                let done = loop {
                    // One byte is left for the mark of what can't be decoded.
                    let room = &mut text[written..CHUNK - 1];
                    let (result, taken, given) = decoder.decode_to_utf8_without_replacement(&bytes[read..], room, last);
                    read += taken;
                    written += given;
                    match result {
                        DecoderResult::InputEmpty => break true,
                        DecoderResult::OutputFull => break false,
                        DecoderResult::Malformed(..) => {
                            text[written] = NOT_DECODED;
                            written += 1;
                            if written == CHUNK {
                                break false;
                            }
                        }
                    }
                };
                text.truncate(written);
                (read, done)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(label: &str, bytes: &[u8]) -> Vec<u8> {
        let encoding = TextEncoding::of_label(label).expect("an encoding");
        let mut out = Vec::new();
        // Through a small buffer, so that characters are cut.
        let reader = io::BufReader::with_capacity(3, bytes);
        encoding.reader(Box::new(reader)).read_to_end(&mut out).expect("read");
        out
    }

    #[test]
    fn files_become_utf8() {
        assert_eq!(decoded("Windows-1252", b"\x80 5,\xE9"), "€ 5,é".as_bytes());
        assert_eq!(decoded("ISO-8859-15", b"\xA4"), "€".as_bytes());
        assert_eq!(decoded("utf-16le", b"\xFF\xFEa\0\xAC\x20\x3D\xD8\x00\xDE"), "a€😀".as_bytes());
        assert_eq!(decoded("utf-8", "é".as_bytes()), "é".as_bytes());
        assert_eq!(decoded("shift_jis", b"a\x82\xA0\x82"), ["aあ".as_bytes(), &[NOT_DECODED]].concat());
    }

    #[test]
    fn code_pages_differ_where_they_do() {
        // A and a digit alike in all; brackets, braces and the euro sign not.
        for (label, text) in [
            ("ibm037", "A1{}[]¤\n"),
            ("IBM1140", "A1{}[]€\n"),
            ("ibm273", "A1äü¬|¤\n"),
            ("ibm1141", "A1äü¬|€\n"),
            ("cp500", "A1{}¬|¤\n"),
            ("ibm1148", "A1{}¬|€\n"),
            ("ibm1047", "A1{}Ý¨¤\n"),
        ] {
            let text: Vec<u8> = text.bytes().collect();
            let read = decoded(label, b"\xC1\xF1\xC0\xD0\xBA\xBB\x9F\x15");
            assert_eq!(String::from_utf8_lossy(&read), String::from_utf8_lossy(&text), "{label}");
        }
        assert!(TextEncoding::of_label("ebcdic").is_err_and(|message| message.contains("ibm1047")));
    }

    #[test]
    fn long_files_pass_in_chunks() {
        let bytes: Vec<u8> = (0..CHUNK * 3).map(|index| if index % 5 == 0 { 0x80 } else { b'x' }).collect();
        let text: String = (0..CHUNK * 3).map(|index| if index % 5 == 0 { '€' } else { 'x' }).collect();
        assert_eq!(decoded("windows-1252", &bytes), text.as_bytes());
        let malformed = vec![0x82; CHUNK * 2 + 1];
        assert!(decoded("gbk", &malformed).contains(&NOT_DECODED));
    }
}
