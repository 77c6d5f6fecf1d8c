//! The bytes of a trace file: opened as often as needed, unpacked by magic bytes, read line by line.
//!
//! A line has a largest length, so that a file that is no trace cannot fill the memory. What cannot be opened twice (a
//! pipe) is read into memory first.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use xxhash_rust::xxh3::Xxh3;

/// The longest line that is read.
const MAX_LINE: usize = 256 << 20;
/// The most that is read of a file whose format is one JSON document.
pub(super) const MAX_DOCUMENT: u64 = 1 << 30;
const MAX_PIPE: u64 = 4 << 30;
const BUFFER: usize = 256 << 10;

/// A file to read.
#[derive(Clone, Debug)]
pub(super) struct Input {
    /// Its path as given; also its name in messages.
    pub(super) path: PathBuf,
    /// Whether somebody named this very file, rather than its folder.
    pub(super) named: bool,
    bytes: Option<Arc<[u8]>>,
}

impl Input {
    /// Returns the file at `path`.
    pub(super) fn new(path: &Path, named: bool) -> io::Result<Input> {
        let bytes = if path.metadata()?.is_file() {
            None
        } else {
            let mut bytes = Vec::new();
            File::open(path)?.take(MAX_PIPE).read_to_end(&mut bytes)?;
            Some(bytes.into())
        };
        Ok(Input {
            path: path.to_path_buf(),
            named,
            bytes,
        })
    }

    /// Returns bytes in memory as if they were a file called `name`.
    pub(super) fn memory(name: &str, bytes: &[u8]) -> Input {
        Input {
            path: PathBuf::from(name),
            named: true,
            bytes: Some(bytes.into()),
        }
    }

    /// Returns whether it has no files beside it.
    pub(super) fn is_memory(&self) -> bool {
        self.bytes.is_some()
    }

    fn raw(&self) -> io::Result<Box<dyn Read>> {
        Ok(match &self.bytes {
            Some(bytes) => Box::new(Cursor::new(Arc::clone(bytes))),
            None => Box::new(File::open(&self.path)?),
        })
    }

    /// Returns the content, unpacked.
    pub(super) fn open(&self) -> io::Result<Box<dyn BufRead>> {
        let mut raw = BufReader::with_capacity(BUFFER, self.raw()?);
        let magic = raw.fill_buf()?;
        Ok(if magic.starts_with(&[0x1f, 0x8b]) {
            let unpacked = flate2::bufread::MultiGzDecoder::new(raw);
            Box::new(BufReader::with_capacity(BUFFER, unpacked))
        } else if magic.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
            let unpacked = zstd::Decoder::with_buffer(raw)?;
            Box::new(BufReader::with_capacity(BUFFER, unpacked))
        } else {
            Box::new(raw)
        })
    }

    /// Returns `xxh3:` and the digest of the bytes as they stand on disk, those of the files read with it after its own.
    pub(super) fn digest(&self, with: &[PathBuf]) -> io::Result<String> {
        let mut hash = Xxh3::new();
        feed(&mut hash, self.raw()?.as_mut())?;
        for path in with {
            feed(&mut hash, &mut File::open(path)?)?;
        }
        Ok(format!("xxh3:{:032x}", hash.digest128()))
    }

    /// Returns the lines of the content.
    pub(super) fn lines(&self) -> io::Result<Lines> {
        Ok(Lines {
            reader: self.open()?,
            line: Vec::new(),
            number: 0,
        })
    }
}

/// Adds all that can be read to a digest.
fn feed(hash: &mut Xxh3, reader: &mut dyn Read) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(read) => hash.update(&buffer[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// A file's lines, without the bytes that surround JSON: line ends, NUL padding, a byte order mark.
pub(super) struct Lines {
    reader: Box<dyn BufRead>,
    line: Vec<u8>,
    /// The number of the line last read, counted from 1.
    pub(super) number: u64,
}

impl Lines {
    /// Returns the next line that is not empty; an error in it is a sentence, and says whether there can be more.
    pub(super) fn next(&mut self) -> Option<Result<&mut [u8], Broken>> {
        loop {
            self.line.clear();
            self.number += 1;
            let more = read_line(&mut self.reader, &mut self.line);
            match more {
                Ok(Line::End) => return None,
                Ok(Line::Whole) => {}
                Ok(Line::TooLong) => {
                    let why = format!("longer than {} MiB", MAX_LINE >> 20);
                    return Some(Err(self.broken(why, false)));
                }
                Err(error) => {
                    let why = format!("the rest cannot be read: {error}");
                    return Some(Err(self.broken(why, true)));
                }
            }
            let range = content(&self.line);
            if !range.is_empty() {
                return Some(Ok(&mut self.line[range]));
            }
        }
    }
}

impl Lines {
    fn broken(&self, why: String, last: bool) -> Broken {
        Broken {
            line: self.number,
            why,
            last,
        }
    }
}

/// Why a line cannot be read.
pub(super) struct Broken {
    /// The line, counted from 1.
    pub(super) line: u64,
    /// What is wrong.
    pub(super) why: String,
    /// Whether nothing can be read after it.
    pub(super) last: bool,
}

enum Line {
    Whole,
    TooLong,
    End,
}

/// Reads up to the next line end; what goes beyond the limit is passed over without being kept.
fn read_line(reader: &mut dyn BufRead, line: &mut Vec<u8>) -> io::Result<Line> {
    let (mut any, mut too_long) = (false, false);
    loop {
        let buffer = match reader.fill_buf() {
            Ok(buffer) => buffer,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            // What came before a damaged end is still a line; the error returns with the next one.
            Err(_) if any && !too_long && !line.is_empty() => return Ok(Line::Whole),
            Err(error) => return Err(error),
        };
        if buffer.is_empty() {
            return Ok(match (any, too_long) {
                (false, _) => Line::End,
                (true, false) => Line::Whole,
                (true, true) => Line::TooLong,
            });
        }
        any = true;
        let end = buffer.iter().position(|&byte| byte == b'\n');
        let taken = end.unwrap_or(buffer.len());
        if line.len() + taken > MAX_LINE {
            too_long = true;
            line.clear();
        }
        if !too_long {
            line.extend_from_slice(&buffer[..taken]);
        }
        reader.consume(taken + usize::from(end.is_some()));
        if end.is_some() {
            return Ok(if too_long { Line::TooLong } else { Line::Whole });
        }
    }
}

/// Returns where the content of a line stands.
fn content(line: &[u8]) -> std::ops::Range<usize> {
    let padding = |byte: u8| byte == 0 || byte.is_ascii_whitespace();
    let mut from = if line.starts_with(&[0xef, 0xbb, 0xbf]) {
        3
    } else {
        0
    };
    let mut to = line.len();
    while from < to && padding(line[from]) {
        from += 1;
    }
    while to > from && padding(line[to - 1]) {
        to -= 1;
    }
    from..to
}
