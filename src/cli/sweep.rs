//! `laptime sweep` and `laptime merge`: a grid of scenarios on all cores, and over machines, a row for each cell.

mod shard;

use super::asked::{Asked, Loaded};
use super::output::{self, Target as Out};
use super::rigs;
use super::talk::{self, Tried};
use crate::error::{Error, Exit};
use crate::fleet::Plan;
use crate::metrics::lap::Binds;
use crate::report::rows::{self, Column, Rows};
use crate::report::table::{Align, Cell, Table};
use crate::report::text::counted;
use crate::scenario::grid::Grid;
use crate::study::sweep;
use crate::study::target::Figure;
use clap::{Args, FromArgMatches};
use rayon::prelude::*;
use shard::{Cells, Head};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use xxhash_rust::xxh3::xxh3_64;

const EXAMPLES: &str = "\
Examples:
  laptime sweep docs/scale/grid.toml --out sweep/
  laptime sweep grid.toml --out sweep/ --shard 0/8      one of eight shards; see docs/scale for clusters
  laptime merge sweep/                                  when all shards are done";

/// How many cells of the front are shown.
const SHOWN: usize = 20;
/// More cells than this were not meant.
const MOST_CELLS: usize = 10_000_000;

/// What was typed.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct Sweep {
    /// The grid: a scenario with a table `[grid]` of lists of values (docs/scale/README.md).
    #[arg(value_name = "GRID")]
    grid: PathBuf,
    /// Where rows go: a journal while the sweep goes on, cells.csv, cells.parquet and front.csv when it is done.
    #[arg(
        long,
        short,
        value_name = "DIR",
        default_value = "sweep",
        help_heading = "Output"
    )]
    out: PathBuf,
    /// Which shard of how many, counted from 0.
    #[arg(long, value_name = "I/N", value_parser = part, default_value = "0/1", help_heading = "Question")]
    shard: (u32, u32),
    /// How many cells are simulated at the same time; all cores when absent.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), help_heading = "Question")]
    threads: Option<u32>,
    /// Show no progress; warnings and errors remain.
    #[arg(long, short, help_heading = "Output")]
    quiet: bool,
}

/// What was typed.
#[derive(Args, Debug)]
pub(super) struct Merge {
    /// Folders in which shards left their journals; the first takes the merged rows unless --out is given.
    #[arg(value_name = "DIR", required = true)]
    folders: Vec<PathBuf>,
    /// Where cells.csv, cells.parquet and front.csv go.
    #[arg(long, short, value_name = "DIR")]
    out: Option<PathBuf>,
}

fn part(text: &str) -> Result<(u32, u32), String> {
    let parts = text
        .split_once('/')
        .and_then(|(at, of)| Some((at.parse().ok()?, of.parse().ok()?)));
    parts
        .filter(|(at, of): &(u32, u32)| at < of)
        .ok_or_else(|| "expected I/N with I from 0 to N-1, such as 0/8".to_string())
}

/// One cell, read as a command line would be.
struct Planned {
    asked: Asked,
    /// Which of the loaded traces it replays.
    ground: usize,
    labels: Vec<String>,
}

impl Sweep {
    /// Runs every cell of the shard that is not done yet.
    pub(super) fn run(self) -> Result<Exit, Error> {
        let grid = Grid::read(&self.grid).map_err(|error| {
            Error::usage(error.to_string()).with_help("docs/scale/README.md describes the file")
        })?;
        let count = grid.cells();
        if count > MOST_CELLS {
            return Err(Error::usage(format!(
                "the grid has {count} cells; at most {MOST_CELLS} can be swept"
            )));
        }
        let named = |names: &[String]| -> Result<Vec<Figure>, Error> {
            let wrong = |why| Error::usage(format!("{}: {why}", self.grid.display()));
            names
                .iter()
                .map(|name| Figure::parse(name).map_err(wrong))
                .collect()
        };
        let mut wishes = named(&grid.pareto)?;
        if wishes.is_empty() {
            wishes = named(&["run_s.p50".to_string(), "runs_per_h".to_string()])?;
        }
        let more: Vec<Figure> = named(&grid.figures)?
            .into_iter()
            .chain(wishes.iter().cloned())
            .collect();
        let figures = sweep::figures(&more);
        let (shard, shards) = self.shard;
        let own: Vec<usize> = (0..count)
            .filter(|cell| (cell % shards as usize) == shard as usize)
            .collect();
        let (planned, grounds) = self.plan(&grid, count)?;
        let head = self.head(&grid, &grounds, &figures, &wishes);
        fs::create_dir_all(&self.out).map_err(|source| Error::write(&self.out, source))?;
        let path = shard::path(&self.out, shard, shards);
        let (journal, done) = shard::open(&path, &head)?;
        let left: Vec<usize> = own
            .into_iter()
            .filter(|cell| !done.contains_key(cell))
            .collect();
        let told = format!(
            "{} of {count} cells to do in shard {shard} of {shards}, {} done before",
            left.len(),
            done.len()
        );
        talk::note(self.quiet, &told);
        let progress = Tried::new(Some(left.len() as u64), self.quiet);
        let threads = self.threads.unwrap_or(0) as usize;
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        let pool =
            pool.map_err(|error| Error::usage(format!("cannot use {threads} threads: {error}")))?;
        let kept = Mutex::new((journal, done));
        let one = |&cell: &usize| {
            let row = row(cell, &planned[cell], &grounds, &figures);
            progress.one_more();
            let mut kept = kept
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            shard::add(&mut kept.0, &row).map_err(|source| Error::write(&path, source))?;
            kept.1.insert(cell, row);
            Ok::<(), Error>(())
        };
        let swept: Result<(), Error> = pool.install(|| left.par_iter().try_for_each(one));
        progress.finish();
        swept?;
        let (_, rows) = kept
            .into_inner()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if shards == 1 {
            return finish(&head, rows, &self.out);
        }
        let told = format!(
            "{}: {}; `laptime merge {}` when all shards are done",
            path.display(),
            counted(rows.len() as u64, "cell"),
            self.out.display()
        );
        output::print(&(told + "\n"))?;
        Ok(Exit::Done)
    }

    /// Reads every cell's flags, and every trace that some cell replays, once.
    fn plan(&self, grid: &Grid, count: usize) -> Result<(Vec<Planned>, Vec<Loaded>), Error> {
        let mut grounds: BTreeMap<String, usize> = BTreeMap::new();
        let (mut loaded, mut planned) = (Vec::new(), Vec::new());
        for cell in 0..count {
            let asked = self.cell(grid, cell)?;
            let key = asked.ground_key();
            let ground = if let Some(&ground) = grounds.get(&key) {
                ground
            } else {
                loaded.push(asked.load()?);
                grounds.insert(key, loaded.len() - 1);
                loaded.len() - 1
            };
            let places = grid.axes.iter().zip(grid.places(cell));
            let label = |(axis, place): (&crate::scenario::grid::Axis, usize)| {
                let text = axis.values[place].join(" ");
                // A setting's name is its column's.
                match text.split_once('=') {
                    Some((_, value)) if axis.flag == "set" => value.to_string(),
                    _ => text,
                }
            };
            planned.push(Planned {
                asked,
                ground,
                labels: places.map(label).collect(),
            });
        }
        Ok((planned, loaded))
    }

    fn cell(&self, grid: &Grid, cell: usize) -> Result<Asked, Error> {
        let mut words = vec!["laptime sweep".to_string(), "--quiet".to_string()];
        for (flag, values) in grid.flags(cell) {
            if values.is_empty() {
                words.push(format!("--{flag}"));
            }
            if super::scenario::of_replay(flag) {
                words.extend(values.iter().map(|value| format!("--{flag}={value}")));
            }
        }
        let command = Asked::augment_args(clap::Command::new("cell").no_binary_name(false));
        let wrong = |error: clap::Error| {
            let told = error.to_string();
            let first = told
                .lines()
                .next()
                .unwrap_or_default()
                .trim_start_matches("error: ")
                .to_string();
            Error::usage(format!("{}: cell {cell}: {first}", self.grid.display()))
        };
        let matches = command.try_get_matches_from(words).map_err(wrong)?;
        let asked = Asked::from_arg_matches(&matches).map_err(wrong)?;
        if asked.rig.len() != 1 {
            return Err(Error::usage(format!(
                "{}: cell {cell} has {}",
                self.grid.display(),
                counted(asked.rig.len() as u64, "rig")
            ))
            .with_help("a cell is one replay; put several rigs into [grid] as an axis"));
        }
        Ok(asked)
    }

    fn head(&self, grid: &Grid, grounds: &[Loaded], figures: &[Figure], wishes: &[Figure]) -> Head {
        let sources = grounds.iter().flat_map(|ground| &ground.trace.sources);
        let digests: Vec<&str> = sources.map(|source| source.digest.as_str()).collect();
        let all = format!(
            "{} {digests:?} {:?} {:?}",
            env!("CARGO_PKG_VERSION"),
            grid.base.flags,
            grid.axes
        );
        let mut columns = vec![
            ("cell".to_string(), Column::Whole),
            ("id".to_string(), Column::Word),
        ];
        columns.extend(
            grid.axes
                .iter()
                .map(|axis| (axis.name.clone(), Column::Word)),
        );
        columns.extend(["status", "trust", "binds"].map(|name| (name.to_string(), Column::Word)));
        let before = columns.len();
        columns.extend(
            figures
                .iter()
                .map(|figure| (figure.name().to_string(), Column::Number)),
        );
        let wish = |wish: &Figure| {
            let place = figures.iter().position(|figure| figure == wish);
            (before + place.unwrap_or(0), wish.more_is_better())
        };
        Head {
            digest: format!("xxh3:{:016x}", xxh3_64(all.as_bytes())),
            cells: grid.cells(),
            shards: self.shard.1,
            columns,
            wishes: wishes.iter().map(wish).collect(),
        }
    }
}

/// Replays one cell; a rig that cannot be had is a row that says so.
fn row(cell: usize, planned: &Planned, grounds: &[Loaded], figures: &[Figure]) -> Vec<String> {
    let asked = &planned.asked;
    let loaded = &grounds[planned.ground];
    let mut ground = crate::study::figures::Ground {
        seed: asked.seed,
        ..loaded.ground()
    };
    let id = format!(
        "{:016x}",
        xxh3_64(format!("{:?}", planned.labels).as_bytes())
    );
    let mut row = vec![cell.to_string(), id];
    row.extend(planned.labels.iter().cloned());
    let spec = rigs::settings(
        &asked.rig[0],
        asked.engine_args.as_deref(),
        &asked.set,
        ground.catalog,
    );
    let plan: Plan = asked.plan(&loaded.habits);
    let made = rigs::prices(&asked.set)
        .and_then(|prices| {
            ground.prices = prices;
            spec
        })
        .map_err(|error| error.to_string())
        .and_then(|settings| {
            let rig = (asked.rig[0].clone(), settings);
            ground
                .evaluate(&rig, plan)
                .map_err(|error| error.to_string())
        });
    match made {
        Ok(found) => {
            let status = if found.summary.failed_calls > 0 {
                "calls failed"
            } else {
                "ok"
            };
            let binds = found.summary.mostly().map_or("", Binds::name);
            row.extend([status, found.point.trust.word(), binds].map(ToString::to_string));
            let values = sweep::values(&found, figures).into_iter();
            row.extend(values.map(|value| value.map_or(String::new(), |value| value.to_string())));
        }
        Err(why) => {
            row.extend([why, String::new(), String::new()]);
            row.extend(figures.iter().map(|_| String::new()));
        }
    }
    row
}

/// Writes what a whole sweep came to, and shows its front.
fn finish(head: &Head, rows: Cells, out: &Path) -> Result<Exit, Error> {
    let rows = Rows {
        columns: head.columns.clone(),
        cells: rows.into_values().collect(),
    };
    let status = head
        .columns
        .iter()
        .position(|(name, _)| name == "status")
        .unwrap_or(0);
    let numbers = |row: &Vec<String>| -> Vec<Option<f64>> {
        let ok = row[status] == "ok";
        row.iter()
            .map(|cell| cell.parse().ok().filter(|_| ok))
            .collect()
    };
    let numbers: Vec<Vec<Option<f64>>> = rows.cells.iter().map(numbers).collect();
    let front = sweep::front(&numbers, &head.wishes);
    let best = Rows {
        columns: head.columns.clone(),
        cells: front
            .iter()
            .map(|&place| rows.cells[place].clone())
            .collect(),
    };
    Out::open(&out.join("cells.csv"))?.write(|out| rows::csv(out, &rows))?;
    let mut packed = Vec::new();
    rows::parquet(&mut packed, &rows)
        .map_err(|source| Error::write(&out.join("cells.parquet"), source))?;
    Out::open(&out.join("cells.parquet"))?.write(|out| out.write_all(&packed))?;
    Out::open(&out.join("front.csv"))?.write(|out| rows::csv(out, &best))?;
    let odd = rows.cells.iter().filter(|row| row[status] != "ok").count();
    if odd > 0 {
        talk::warning(&format!(
            "{} did not go well; the column `status` says why",
            counted(odd as u64, "cell")
        ));
    }
    output::print(&shown(head, &best, status, rows.cells.len(), out))?;
    Ok(Exit::Done)
}

fn shown(head: &Head, best: &Rows, status: usize, cells: usize, out: &Path) -> String {
    let columns: Vec<usize> = (2..status)
        .chain(head.wishes.iter().map(|(column, _)| *column))
        .collect();
    let mut aligns = vec![Align::Left; status - 2];
    aligns.resize(columns.len(), Align::Right);
    let mut table = Table::new(aligns);
    table.row(
        columns
            .iter()
            .map(|&column| Cell::from(&head.columns[column].0)),
    );
    for row in best.cells.iter().take(SHOWN) {
        table.row(columns.iter().map(|&column| {
            let figure = Figure::parse(&head.columns[column].0)
                .ok()
                .filter(|_| column > status);
            let value = row[column].parse::<f64>().ok();
            Cell::from(match figure.zip(value) {
                Some((figure, value)) => figure.unit().shown(value),
                None => row[column].clone(),
            })
        }));
    }
    let more = best.cells.len().saturating_sub(SHOWN);
    let more = if more > 0 {
        format!("  and {more} more\n")
    } else {
        String::new()
    };
    let told = counted(cells as u64, "cell");
    format!(
        "{told}, {} of them better than any other in some wish:\n\n{}{more}\n  rows in {}, the front in {}\n",
        best.cells.len(),
        table.render(),
        out.join("cells.csv").display(),
        out.join("front.csv").display(),
    )
}

impl Merge {
    /// Puts the rows of all shards together.
    pub(super) fn run(self) -> Result<Exit, Error> {
        let mut head: Option<Head> = None;
        let mut rows = Cells::new();
        for path in self.journals()? {
            let Some((found, cells, _)) = shard::read(&path)? else {
                continue;
            };
            let first = head.get_or_insert_with(|| found.clone());
            if *first != found {
                return Err(Error::input(format!(
                    "{} belongs to another sweep than the journals before it",
                    path.display()
                ))
                .with_help("merge the shards of one grid, run by one version, at a time"));
            }
            for (cell, row) in cells {
                if rows.get(&cell).is_some_and(|other| *other != row) {
                    return Err(Error::input(format!(
                        "{}: cell {cell} came out otherwise in another journal",
                        path.display()
                    )));
                }
                rows.insert(cell, row);
            }
        }
        let head = head.ok_or_else(|| {
            Error::input("there is no journal of a shard in these folders")
                .with_help("`laptime sweep --shard I/N` writes them")
        })?;
        let missing: Vec<usize> = (0..head.cells)
            .filter(|cell| !rows.contains_key(cell))
            .collect();
        if let Some(first) = missing.first() {
            let shard = first % head.shards as usize;
            return Err(Error::input(format!(
                "{} of {} cells are missing, the first is of shard {shard}/{}",
                missing.len(),
                head.cells,
                head.shards
            ))
            .with_help("run that shard again; it goes on where it was cut off"));
        }
        let out = self.out.clone().unwrap_or_else(|| self.folders[0].clone());
        fs::create_dir_all(&out).map_err(|source| Error::write(&out, source))?;
        finish(&head, rows, &out)
    }

    fn journals(&self) -> Result<Vec<PathBuf>, Error> {
        let mut paths = Vec::new();
        for folder in &self.folders {
            let wrong =
                |error: std::io::Error| Error::input(format!("{}: {error}", folder.display()));
            for entry in fs::read_dir(folder).map_err(wrong)? {
                let path = entry.map_err(wrong)?.path();
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                let journal = path.extension().is_some_and(|ending| ending == "jsonl");
                if name.starts_with("shard-") && journal {
                    paths.push(path);
                }
            }
        }
        paths.sort();
        Ok(paths)
    }
}
