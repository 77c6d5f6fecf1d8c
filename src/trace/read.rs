//! Opening traces: files and folders, native and foreign, compiled at once or written as one native file.
//!
//! [`import`] reads its input twice, because a native file begins with what only the whole input tells: the losses, and
//! which sessions of different files have the same name.

use super::compile::Compiler;
use super::error::TraceError;
use super::format;
use super::import::{Feed, Format, Sink};
use super::input::Input;
use super::record::{Header, Record, SourceFile};
use super::{Source, Trace};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Folders within folders beyond this depth are not looked into.
const MAX_DEPTH: usize = 32;

/// How to read.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct ReadOptions {
    /// The block size of Mooncake traces, instead of the one that their rows tell.
    pub block_size: Option<u32>,
}

/// How far the reading is.
#[derive(Clone, Copy, Debug)]
pub struct Progress<'a> {
    /// The file being read.
    pub file: &'a Path,
    /// Its place among the files, from 0.
    pub index: usize,
    /// The number of files.
    pub files: usize,
    /// The steps read from it so far.
    pub steps: u64,
}

/// What an import did.
#[derive(Clone, PartialEq, Debug)]
pub struct ImportReport {
    /// The files, with their losses and problems.
    pub sources: Vec<Source>,
    /// Files in the given folders that are no trace, each with the reason.
    pub skipped: Vec<String>,
    /// The sessions written.
    pub sessions: usize,
    /// The requests written.
    pub calls: usize,
}

/// Reads everything in the given files and folders, in order; a folder's files in the order of their paths.
pub fn load(
    paths: &[PathBuf],
    options: &ReadOptions,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Trace, TraceError> {
    let inputs = collect(paths)?;
    let (compiler, _) = compile(&inputs, None, options, progress)?;
    Ok(compiler.finish())
}

/// Reads everything as [`load`] does; also returns for each node of the content tree a number that stands for what it
/// holds, equal wherever equal content follows anything at all, and nothing for content that equals nothing else.
pub fn load_printed(
    paths: &[PathBuf],
    options: &ReadOptions,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<(Trace, Vec<Option<u64>>), TraceError> {
    let inputs = collect(paths)?;
    let (compiler, _) = compile(&inputs, None, options, progress)?;
    let (trace, prints) = compiler.finish_printed();
    Ok((trace, prints))
}

/// Reads a trace that is in memory as if it were a file called `name`.
pub fn load_bytes(name: &str, bytes: &[u8], options: &ReadOptions) -> Result<Trace, TraceError> {
    let (compiler, _) = compile(&[Input::memory(name, bytes)], None, options, &mut |_| {})?;
    Ok(compiler.finish())
}

/// Reads a trace that is in memory as [`load_printed`] does.
pub fn load_bytes_printed(
    name: &str,
    bytes: &[u8],
    options: &ReadOptions,
) -> Result<(Trace, Vec<Option<u64>>), TraceError> {
    let (compiler, _) = compile(&[Input::memory(name, bytes)], None, options, &mut |_| {})?;
    Ok(compiler.finish_printed())
}

/// Reads a trace that is in memory as a format of the given name ([`Source::format`]), whatever its content looks like;
/// nothing where no format has that name.
pub fn load_bytes_as(format: &str, name: &str, bytes: &[u8]) -> Option<Result<Trace, TraceError>> {
    let told = Some(Format::named(format)?);
    let inputs = [Input::memory(name, bytes)];
    let compiled = compile(&inputs, told, &ReadOptions::default(), &mut |_| {});
    Some(compiled.map(|(compiler, _)| compiler.finish()))
}

/// Writes everything in the given files and folders to `out` as one native trace, which loads as [`load`] loads them.
pub fn import(
    paths: &[PathBuf],
    options: &ReadOptions,
    progress: &mut dyn FnMut(Progress<'_>),
    out: &mut dyn Write,
) -> Result<ImportReport, TraceError> {
    import_inputs(&collect(paths)?, options, progress, out)
}

/// Writes a trace that is in memory to `out` as a native trace.
pub fn import_bytes(
    name: &str,
    bytes: &[u8],
    options: &ReadOptions,
    out: &mut dyn Write,
) -> Result<ImportReport, TraceError> {
    import_inputs(&[Input::memory(name, bytes)], options, &mut |_| {}, out)
}

fn import_inputs(
    inputs: &[Input],
    options: &ReadOptions,
    progress: &mut dyn FnMut(Progress<'_>),
    out: &mut dyn Write,
) -> Result<ImportReport, TraceError> {
    let (compiler, used) = compile(inputs, None, options, progress)?;
    let renamed = compiler.renamed();
    let trace = compiler.finish();
    let report = ImportReport {
        sessions: trace.sessions.len(),
        calls: trace.calls(),
        sources: trace.sources,
        skipped: trace.skipped,
    };
    drop(trace.content);
    let mut writer = Writer {
        out,
        renamed,
        source: 0,
        sources: used.len(),
        segments: BTreeMap::default(),
        only_session: None,
        in_file: 0,
        failed: None,
    };
    writer.header(&report.sources);
    for (index, &(at, format)) in used.iter().enumerate() {
        writer.source = index;
        writer.only_session = None;
        writer.in_file = 0;
        let input = &inputs[at];
        let mut told = teller(inputs, at, progress);
        format.read(input, options, &mut Feed::new(&mut writer, &mut told))?;
        if let Some(error) = writer.failed.take() {
            return Err(TraceError::io("write", Path::new("the trace"), error));
        }
    }
    let flushed = writer.out.flush();
    flushed.map_err(|error| TraceError::io("write", Path::new("the trace"), error))?;
    Ok(report)
}

/// Lists the files to read.
fn collect(paths: &[PathBuf]) -> Result<Vec<Input>, TraceError> {
    let mut inputs = Vec::new();
    for path in paths {
        let io = |error| TraceError::io("read", path, error);
        if path.metadata().map_err(io)?.is_dir() {
            let mut files = Vec::new();
            walk(path, 0, &mut files)?;
            for file in files {
                inputs.push(
                    Input::new(&file, false)
                        .map_err(|error| TraceError::io("read", &file, error))?,
                );
            }
        } else {
            inputs.push(Input::new(path, true).map_err(io)?);
        }
    }
    Ok(inputs)
}

/// Adds the regular files below a folder, in the order of their paths; hidden ones are left out.
fn walk(folder: &Path, depth: usize, files: &mut Vec<PathBuf>) -> Result<(), TraceError> {
    let io = |error| TraceError::io("read", folder, error);
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(io)? {
        let entry = entry.map_err(io)?;
        entries.push((entry.file_name(), entry.path()));
    }
    entries.sort();
    for (name, path) in entries {
        if name.as_encoded_bytes().starts_with(b".") {
            continue;
        }
        // A link to a folder could lead back here.
        let linked = path.symlink_metadata().is_ok_and(|data| data.is_symlink());
        match path.metadata() {
            Ok(data) if data.is_dir() && !linked && depth < MAX_DEPTH => {
                walk(&path, depth + 1, files)?;
            }
            Ok(data) if data.is_file() => files.push(path),
            _ => {}
        }
    }
    Ok(())
}

/// Returns what tells `progress` of the steps of a file.
fn teller<'a>(
    inputs: &'a [Input],
    index: usize,
    progress: &'a mut dyn FnMut(Progress<'_>),
) -> impl FnMut(u64) + 'a {
    move |steps| {
        progress(Progress {
            file: &inputs[index].path,
            index,
            files: inputs.len(),
            steps,
        });
    }
}

/// Compiles all inputs, as a format that was told or as what their content is; also says which were used, and as which format.
fn compile(
    inputs: &[Input],
    told: Option<Format>,
    options: &ReadOptions,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<(Compiler, Vec<(usize, Format)>), TraceError> {
    let mut compiler = Compiler::default();
    let mut used = Vec::new();
    let mut skipped = Vec::new();
    for (index, input) in inputs.iter().enumerate() {
        let name = input.path.display().to_string();
        let detected = told.map_or_else(|| Format::detect(input), |format| Ok(Ok(format)));
        let format = match detected? {
            Ok(format) => format,
            Err(found) if input.named => {
                return Err(TraceError::Unknown {
                    path: input.path.clone(),
                    found,
                });
            }
            Err(found) => {
                skipped.push((is_prose(&input.path), format!("{name}: {found}")));
                continue;
            }
        };
        let digest = input
            .digest(&format.companions(input))
            .map_err(|error| TraceError::io("read", &input.path, error))?;
        compiler.begin(Source {
            name: name.clone(),
            format: format.name().to_string(),
            digest,
            losses: Vec::new(),
            problems: Vec::new(),
        });
        let mut told = teller(inputs, index, progress);
        told(0);
        let mut feed = Feed::new(&mut compiler, &mut told);
        let read = format.read(input, options, &mut feed);
        let losses = std::mem::take(&mut feed.losses);
        let problems = feed.into_problems();
        let nothing = compiler.steps_in_file() == 0;
        match read {
            Ok(()) if !nothing => {
                let source = compiler.source();
                source.losses.extend(losses);
                source.problems.extend(problems);
                used.push((index, format));
            }
            Ok(()) if input.named => {
                return Err(TraceError::Nothing {
                    path: input.path.clone(),
                    format: format.name().to_string(),
                    problems,
                });
            }
            Err(error) if input.named || !nothing => return Err(error),
            // One useless file does not spoil a folder.
            Ok(()) => {
                compiler.forget();
                let why = problems.first().map(|why| format!(": {why}"));
                let why = why.unwrap_or_default();
                let note = format!("{name}: no usable step ({}){why}", format.name());
                skipped.push((false, note));
            }
            Err(error) => {
                compiler.forget();
                skipped.push((false, error.to_string()));
            }
        }
    }
    // What is wrong with data comes first; that a file for people is none comes last.
    skipped.sort_by_key(|note: &(bool, String)| note.0);
    let skipped: Vec<String> = skipped.into_iter().map(|note| note.1).collect();
    if used.is_empty() {
        return Err(TraceError::Empty {
            path: inputs.first().map_or_else(PathBuf::new, |input| {
                input.path.parent().unwrap_or(&input.path).to_path_buf()
            }),
            skipped,
        });
    }
    for note in skipped {
        compiler.skip(note);
    }
    Ok((compiler, used))
}

/// Returns whether a file says by its name that it is for people: what lies beside data, and is no recording gone wrong.
fn is_prose(path: &Path) -> bool {
    let suffix = path.extension().and_then(|suffix| suffix.to_str());
    let stem = path.file_stem().and_then(|stem| stem.to_str());
    suffix.is_some_and(|suffix| suffix.eq_ignore_ascii_case("md"))
        || matches!(stem, Some("README" | "LICENSE" | "LICENCE" | "NOTICE"))
}

impl Sink for Compiler {
    fn record(&mut self, record: Record) -> Result<(), String> {
        self.add(&record)
    }

    fn unknown(&mut self, _line: &[u8]) {}
}

/// Writes the records of several files as one: names that only one file gives a meaning are made unique.
struct Writer<'a> {
    out: &'a mut dyn Write,
    renamed: BTreeMap<(usize, String), String>,
    source: usize,
    sources: usize,
    /// The segments written, with a digest of what they are.
    segments: BTreeMap<String, u64>,
    only_session: Option<String>,
    /// The sessions of the present file so far.
    in_file: usize,
    failed: Option<std::io::Error>,
}

impl Writer<'_> {
    fn header(&mut self, sources: &[Source]) {
        let mut formats: Vec<&str> = sources
            .iter()
            .map(|source| source.format.as_str())
            .collect();
        formats.sort_unstable();
        formats.dedup();
        let several = sources.len() > 1;
        let told = |of: fn(&Source) -> &Vec<String>| {
            sources.iter().flat_map(move |source| {
                of(source).iter().map(move |text| {
                    if several {
                        format!("{}: {text}", source.name)
                    } else {
                        text.clone()
                    }
                })
            })
        };
        let losses = told(|source| &source.losses);
        let problems = told(|source| &source.problems).map(|text| format!("not used: {text}"));
        let header = Header {
            format: format::FORMAT.to_string(),
            version: format::VERSION,
            producer: Some(format!("laptime {}", env!("CARGO_PKG_VERSION"))),
            source_format: Some(formats.join(", ")),
            sources: sources
                .iter()
                .map(|source| SourceFile {
                    name: source.name.clone(),
                    digest: source.digest.clone(),
                })
                .collect(),
            losses: losses.chain(problems).collect(),
            ..Header::default()
        };
        self.write(&Record::Header(Box::new(header)));
    }

    fn write(&mut self, record: &Record) {
        if self.failed.is_none() {
            self.failed = format::write(self.out, record).err();
        }
    }

    fn session_name(&self, name: &str) -> String {
        self.renamed
            .get(&(self.source, name.to_string()))
            .map_or_else(|| name.to_string(), String::clone)
    }

    /// Names the session of a record; a file of one session need not, but the file written may have several.
    fn name_session(&self, name: &mut Option<String>) {
        let own = name.take().or_else(|| self.only_session.clone());
        *name = own.map(|own| self.session_name(&own));
    }

    fn name_segment(&self, name: &mut String) {
        if self.sources > 1 {
            *name = format!("{}/{name}", self.source + 1);
        }
    }
}

impl Sink for Writer<'_> {
    fn record(&mut self, mut record: Record) -> Result<(), String> {
        match &mut record {
            Record::Header(_) => return Ok(()),
            Record::Segment(segment) => self.name_segment(&mut segment.id),
            Record::Session(session) => {
                // A second session ends the time in which lines need not name theirs.
                self.only_session = (self.in_file == 0).then(|| session.id.clone());
                self.in_file += 1;
                if self.sources > 1 && session.block_scope.as_deref() != Some("session") {
                    let scope = session.block_scope.take().unwrap_or_default();
                    session.block_scope = Some(format!("{}/{scope}", self.source + 1));
                }
                session.id = self.session_name(&session.id);
            }
            Record::Agent(agent) => agent.session = self.session_name(&agent.session),
            Record::Step(step) => {
                self.name_session(&mut step.session);
                for piece in &mut step.prompt.append {
                    if let Some(name) = &mut piece.seg {
                        self.name_segment(name);
                    }
                }
                step.output
                    .segs
                    .iter_mut()
                    .for_each(|name| self.name_segment(name));
            }
            Record::Tool(tool) => {
                self.name_session(&mut tool.session);
                if let Some(name) = &mut tool.result {
                    self.name_segment(name);
                }
            }
            Record::Event(event) => self.name_session(&mut event.session),
        }
        if let Record::Segment(segment) = &record {
            // Importers name a head as often as they need it.
            let text = serde_json::to_string(segment).unwrap_or_default();
            let digest = xxhash_rust::xxh3::xxh3_64(text.as_bytes());
            if self.segments.insert(segment.id.clone(), digest) == Some(digest) {
                return Ok(());
            }
        }
        self.write(&record);
        Ok(())
    }

    fn unknown(&mut self, line: &[u8]) {
        if self.failed.is_none() {
            let written = self
                .out
                .write_all(line)
                .and_then(|()| self.out.write_all(b"\n"));
            self.failed = written.err();
        }
    }
}
