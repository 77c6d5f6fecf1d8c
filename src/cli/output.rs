//! Where answers go: the standard output, or a file that appears only once it is whole.
//!
//! A path that cannot be written is found out before the work begins, and an earlier result stays until the new one
//! is complete.

use crate::error::Error;
use crate::report::table::Look;
use crate::trace::format;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};

const PLAIN_WIDTH: usize = 100;

/// Prints text with styles, which are left out where the standard output is no terminal or colour is not wanted.
pub(super) fn print(text: &str) -> Result<(), Error> {
    let mut out = anstream::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(Error::stdout)
}

/// Returns how wide the standard output is and what can be drawn on it.
pub(super) fn look() -> Look {
    let terminal = io::stdout().is_terminal();
    let width = terminal_size::terminal_size().filter(|_| terminal);
    Look {
        width: width.map_or(PLAIN_WIDTH, |(width, _)| {
            usize::from(width.0).clamp(60, 160)
        }),
        blocks: terminal,
    }
}

/// Somewhere to write an answer.
#[derive(Debug)]
pub(super) struct Target {
    path: PathBuf,
    /// The file being written, and whether it is renamed to `path` when whole; nothing for the standard output.
    file: Option<(BufWriter<File>, bool)>,
}

impl Target {
    /// Opens `path`; `-` is the standard output.
    pub(super) fn open(path: &Path) -> Result<Target, Error> {
        let wrong = |source| Error::write(path, source);
        if path.as_os_str() == "-" {
            return Ok(Target {
                path: path.to_path_buf(),
                file: None,
            });
        }
        if path.is_dir() {
            return Err(wrong(io::ErrorKind::IsADirectory.into()));
        }
        // Pipes and devices are written as they are.
        let beside = fs::metadata(path).map_or(true, |found| found.is_file());
        let file = File::create(if beside {
            partial(path)
        } else {
            path.to_path_buf()
        });
        Ok(Target {
            path: path.to_path_buf(),
            file: Some((BufWriter::new(file.map_err(wrong)?), beside)),
        })
    }

    /// Returns whether this is the standard output.
    pub(super) fn is_stdout(&self) -> bool {
        self.file.is_none()
    }

    /// Writes a trace, packed as the file's name says: `.gz`, `.zst`, or not at all.
    pub(super) fn write_packed(
        self,
        answer: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<(), Error> {
        let name = self.path.clone();
        self.write(|out| format::pack(&name, out, answer))
    }

    /// Writes the answer and puts the file in its place.
    pub(super) fn write(
        mut self,
        answer: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<(), Error> {
        let Some((mut file, beside)) = self.file.take() else {
            let mut out = BufWriter::new(io::stdout().lock());
            return answer(&mut out)
                .and_then(|()| out.flush())
                .map_err(Error::stdout);
        };
        let written = answer(&mut file)
            .and_then(|()| file.flush())
            .and_then(|()| {
                if beside {
                    fs::rename(partial(&self.path), &self.path)
                } else {
                    Ok(())
                }
            });
        self.file = Some((file, beside));
        written.map_err(|source| Error::write(&self.path, source))
    }
}

impl Drop for Target {
    /// Leaves nothing half written behind; after a rename there is nothing to remove.
    fn drop(&mut self) {
        if let Some((_, true)) = self.file {
            let _ = fs::remove_file(partial(&self.path));
        }
    }
}

fn partial(path: &Path) -> PathBuf {
    let mut name: OsString = path.as_os_str().to_os_string();
    name.push(".partial");
    PathBuf::from(name)
}
