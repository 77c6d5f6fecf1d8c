//! Catalogue files: the ones inside the program and the ones a user lays over them.
//!
//! One thing per file, in TOML. Every figure is an inline table with its value, unit, source and trust; nothing is read
//! without them. Fields that nobody reads are errors, so a slip of the pen cannot pass for a default. The least that a
//! file `hardware/my-box.toml` of an overlay folder holds:
//!
//! ```toml
//! name = "my-box"
//! title = "The box under my desk"
//! chip = "my-box"                  # what calibrations and defaults of engines go by
//! platform = "cuda"                # or "metal", "rocm", "cpu"
//! form = "desktop"
//! devices = 1                      # figures below are for one of them
//! unified_memory = false
//! memory = { value = 24, unit = "GiB", source = "label", trust = "datasheet" }
//! usable = { value = 23.5, unit = "GiB", source = "nvidia-smi", trust = "measured" }
//! bandwidth = { value = 1008, unit = "GB/s", source = "label", trust = "datasheet" }
//! ```

mod claim;
mod efficiency;
mod engine;
mod hardware;
mod model;
mod read;
mod rig;
#[cfg(test)]
mod schemas;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use super::suggest::question;
use super::{Catalog, What};
use read::File;

/// Files of one kind that the program carries: name and text.
type Embedded = &'static [(&'static str, &'static str)];

macro_rules! embed {
    ($folder:literal: $($file:literal),* $(,)?) => {
        &[$((
            concat!($folder, "/", $file, ".toml"),
            include_str!(concat!("data/", $folder, "/", $file, ".toml")),
        )),*]
    };
}

pub(super) const HARDWARE: Embedded = embed!["hardware":
    "2x-dgx-spark",
    "2x-rtx-pro-6000",
    "8x-b200",
    "8x-h100",
    "8x-h200",
    "a100-80gb",
    "b200",
    "dgx-spark",
    "gx10",
    "h100",
    "h100-pcie",
    "h200",
    "l40s",
    "m3-ultra",
    "m4-max",
    "m5-max-32",
    "m5-max-40",
    "m5-max-studio",
    "m5-pro-20",
    "rtx-3090",
    "rtx-4090",
    "rtx-5090",
    "rtx-pro-6000",
    "rtx-pro-6000-max-q",
    "rtx-pro-6000-server",
    "strix-halo-evo-x2",
    "strix-halo-framework",
    "strix-halo-ms-s1-max",
];

pub(super) const ENGINES: Embedded = embed!["engine":
    "llama.cpp",
    "lm-studio",
    "mlx-lm",
    "ollama",
    "sglang",
    "trt-llm",
    "vllm",
];

pub(super) const MODELS: Embedded = embed!["model":
    "deepseek-v3",
    "devstral-2-123b",
    "devstral-small-24b",
    "glm-4.5-air",
    "glm-4.7-flash",
    "gpt-oss-120b",
    "gpt-oss-20b",
    "llama-3.1-70b",
    "llama-3.1-8b",
    "mistral-7b",
    "mistral-nemo-12b",
    "phi-4",
    "qwen2.5-72b",
    "qwen3-14b",
    "qwen3-235b-a22b",
    "qwen3-32b",
    "qwen3-8b",
    "qwen3-coder-30b-a3b",
    "qwen3-coder-next",
    "qwen3.6-27b",
    "qwen3.6-35b-a3b",
];

pub(super) const RIGS: Embedded = embed!["rig":
    "2x-rtx-pro-6000.llama.cpp.qwen3.6-27b-q8_0",
    "b200.trt-llm.gpt-oss-120b-mxfp4",
    "b200.trt-llm.llama-3.1-70b-nvfp4",
    "b200.vllm.gpt-oss-120b-mxfp4",
    "b200.vllm.llama-3.1-70b-fp8",
    "b200.vllm.llama-3.1-70b-nvfp4",
    "dgx-spark.llama.cpp.gpt-oss-20b-mxfp4",
    "dgx-spark.llama.cpp.qwen3-coder-30b-a3b-q8_0",
    "dgx-spark.llama.cpp.qwen3.6-27b-q8_0",
    "dgx-spark.llama.cpp.qwen3.6-35b-a3b-q8_0",
    "h100.trt-llm.llama-3.1-8b-bf16",
    "h200.trt-llm.gpt-oss-120b-mxfp4",
    "h200.trt-llm.llama-3.1-70b-fp8",
    "h200.vllm.gpt-oss-120b-mxfp4",
    "h200.vllm.llama-3.1-8b-fp8",
    "m5-max-40.llama.cpp.qwen3.6-27b-q4_k_m",
    "m5-max-40.llama.cpp.qwen3.6-27b-q8_0",
    "m5-max-40.llama.cpp.qwen3.6-35b-a3b-q4_k_m",
    "m5-max-40.llama.cpp.qwen3.6-35b-a3b-q8_0",
    "m5-max-40.mlx-lm.qwen3.6-35b-a3b-mlx-4bit",
    "rtx-pro-6000.llama.cpp.qwen3.6-27b-q8_0",
    "rtx-pro-6000.vllm.qwen3-coder-next-awq",
    "rtx-pro-6000.vllm.qwen3.6-27b-awq",
    "rtx-pro-6000.vllm.qwen3.6-35b-a3b-awq",
    "rtx-pro-6000.vllm.qwen3.6-35b-a3b-fp8",
    "strix-halo-evo-x2.llama.cpp.qwen3.6-27b-q8_0",
    "strix-halo-evo-x2.llama.cpp.qwen3.6-35b-a3b-q8_0",
    "strix-halo-framework.llama.cpp.glm-4.7-flash-bf16",
    "strix-halo-framework.llama.cpp.glm-4.7-flash-ud-q8_k_xl",
    "strix-halo-framework.llama.cpp.gpt-oss-20b-mxfp4",
    "strix-halo-framework.llama.cpp.qwen3.6-27b-q8_0",
    "strix-halo-framework.llama.cpp.qwen3.6-27b-ud-q8_k_xl",
    "strix-halo-framework.llama.cpp.qwen3.6-35b-a3b-bf16",
    "strix-halo-framework.llama.cpp.qwen3.6-35b-a3b-ud-q4_k_xl",
    "strix-halo-framework.llama.cpp.qwen3.6-35b-a3b-ud-q8_k_xl",
];

/// The published claims that the program carries.
const CLAIMS: (&str, &str) = ("claims.toml", include_str!("data/claims.toml"));

/// Reads a file of one kind and returns every field that was asked for.
#[cfg(test)]
fn fields_asked(kind: &str, name: &str, text: &str) -> std::collections::BTreeSet<String> {
    let file = File::new(name, text);
    match kind {
        "hardware" => drop(hardware::read(&file).unwrap()),
        "engine" => drop(engine::read(&file).unwrap()),
        "model" => drop(model::read(&file).unwrap()),
        "rig" => drop(rig::read(&file).unwrap()),
        _ => drop(claim::read(&file).unwrap()),
    }
    file.asked()
}
/// What was learned of machines under engines.
const EFFICIENCIES: &str = include_str!("data/efficiency.toml");

/// A place in a catalogue file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Place {
    /// The file, as it was named.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// What can be wrong with a catalogue file.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// A file or folder could not be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A folder holds nothing that a catalogue could use.
    #[error("{}: no hardware, engine, model or rig folder with .toml files in it", path.display())]
    Empty {
        /// Which.
        path: PathBuf,
    },
    /// The text is not TOML.
    #[error("{at}: not valid TOML: {message}")]
    Syntax {
        /// Where.
        at: Place,
        /// What the parser says.
        message: String,
    },
    /// A field is not there.
    #[error("{at}: `{field}` is missing; expected {expected}")]
    Missing {
        /// Where the table begins.
        at: Place,
        /// The field.
        field: String,
        /// What it should hold.
        expected: String,
    },
    /// A field holds the wrong thing.
    #[error("{at}: `{field}` is {found}; expected {expected}")]
    Wrong {
        /// Where.
        at: Place,
        /// The field.
        field: String,
        /// What it holds.
        found: String,
        /// What it should hold.
        expected: String,
    },
    /// A figure has the wrong unit.
    #[error("{at}: the unit of `{field}` is `{found}`; expected {expected}")]
    Unit {
        /// Where.
        at: Place,
        /// The field.
        field: String,
        /// The unit given.
        found: String,
        /// The units that would do.
        expected: String,
    },
    /// A field means nothing here.
    #[error("{at}: unknown field `{field}`{}", question(suggestions))]
    UnknownField {
        /// Where.
        at: Place,
        /// The field.
        field: String,
        /// What may have been meant.
        suggestions: Vec<String>,
    },
    /// Two entries of one layer claim a name.
    #[error("{at}: the {what} name `{name}` is taken by `{other}`")]
    Taken {
        /// Where the second one is.
        at: Place,
        /// What kind of name.
        what: What,
        /// The name.
        name: String,
        /// Who has it.
        other: String,
    },
}

impl CatalogError {
    /// Returns what a user can do about it.
    pub fn help(&self) -> &'static str {
        match self {
            CatalogError::Read { .. } => "check that the path exists and can be read",
            CatalogError::Empty { .. } => {
                "lay files out as hardware/NAME.toml, engine/NAME.toml, model/FAMILY.toml, rig/NAME.toml"
            }
            CatalogError::Syntax { .. } => "quote strings, and keep an inline table on one line",
            CatalogError::Missing { .. } | CatalogError::Wrong { .. } => {
                "a figure is written { value = 1792, unit = \"GB/s\", source = \"...\", trust = \"datasheet\" }"
            }
            CatalogError::Unit { .. } => "use one of the units named, or convert the value",
            CatalogError::UnknownField { .. } => "remove the field, or correct its name",
            CatalogError::Taken { .. } => "give one of the two another name or alias",
        }
    }
}

/// Reads the files inside the program.
pub(super) fn builtin() -> Result<Catalog, CatalogError> {
    let mut catalog = Catalog::default();
    let mut layer = Layer::new(&mut catalog, false);
    for (name, text) in HARDWARE {
        layer.hardware(name, text)?;
    }
    for (name, text) in ENGINES {
        layer.engine(name, text)?;
    }
    for (name, text) in MODELS {
        layer.models(name, text)?;
    }
    for (name, text) in RIGS {
        layer.rig(name, text)?;
    }
    catalog.claims = claim::read(&File::new(CLAIMS.0, CLAIMS.1))?;
    catalog.efficiencies = efficiency::read(&File::new("efficiency.toml", EFFICIENCIES))?;
    Ok(catalog)
}

/// Reads a folder of files over `catalog`, or a single rig file; an entry replaces the one of the same name whole.
pub(super) fn overlay(catalog: &mut Catalog, folder: &Path) -> Result<(), CatalogError> {
    let mut layer = Layer::new(catalog, true);
    if folder.is_file() {
        let name = folder.display().to_string();
        let text = std::fs::read_to_string(folder).map_err(|source| CatalogError::Read {
            path: folder.to_path_buf(),
            source,
        })?;
        return layer.rig(&name, &text);
    }
    let mut files = 0;
    for kind in ["hardware", "engine", "model", "rig"] {
        for path in toml_files(&folder.join(kind))? {
            files += 1;
            let name = path.display().to_string();
            let text = std::fs::read_to_string(&path).map_err(|source| CatalogError::Read {
                path: path.clone(),
                source,
            })?;
            match kind {
                "hardware" => layer.hardware(&name, &text)?,
                "engine" => layer.engine(&name, &text)?,
                "model" => layer.models(&name, &text)?,
                _ => layer.rig(&name, &text)?,
            }
        }
    }
    if files == 0 {
        std::fs::metadata(folder).map_err(|source| CatalogError::Read {
            path: folder.to_path_buf(),
            source,
        })?;
        return Err(CatalogError::Empty {
            path: folder.to_path_buf(),
        });
    }
    Ok(())
}

/// Returns the `.toml` files of a folder in name order; none when there is no such folder.
fn toml_files(folder: &Path) -> Result<Vec<PathBuf>, CatalogError> {
    let failed = |source| CatalogError::Read {
        path: folder.to_path_buf(),
        source,
    };
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "toml")
        {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// One folder's worth of entries on their way into a catalogue.
struct Layer<'a> {
    catalog: &'a mut Catalog,
    hardware: Taken,
    engines: Taken,
    models: Taken,
    rigs: Taken,
    /// Whether the files are a user's, whose place is told.
    of_user: bool,
}

impl Layer<'_> {
    fn new(catalog: &mut Catalog, of_user: bool) -> Layer<'_> {
        Layer {
            of_user,
            catalog,
            hardware: Taken(Vec::new()),
            engines: Taken(Vec::new()),
            models: Taken(Vec::new()),
            rigs: Taken(Vec::new()),
        }
    }

    fn note(&mut self, what: What, entry: &str, file: &str) {
        if self.of_user {
            let key = (what, entry.to_string());
            self.catalog.origins.insert(key, file.to_string());
        }
    }

    fn hardware(&mut self, name: &str, text: &str) -> Result<(), CatalogError> {
        let file = File::new(name, text);
        let entry = hardware::read(&file)?;
        self.hardware
            .claim(&file, What::Hardware, &entry.name, &entry.aliases)?;
        self.note(What::Hardware, &entry.name, name);
        self.catalog.hardware.insert(entry.name.clone(), entry);
        Ok(())
    }

    fn engine(&mut self, name: &str, text: &str) -> Result<(), CatalogError> {
        let file = File::new(name, text);
        let entry = engine::read(&file)?;
        self.engines
            .claim(&file, What::Engine, &entry.name, &entry.aliases)?;
        self.note(What::Engine, &entry.name, name);
        self.catalog.engines.insert(entry.name.clone(), entry);
        Ok(())
    }

    fn models(&mut self, name: &str, text: &str) -> Result<(), CatalogError> {
        let file = File::new(name, text);
        for entry in model::read(&file)? {
            self.models
                .claim(&file, What::Model, &entry.name, &entry.aliases)?;
            self.note(What::Model, &entry.name, name);
            self.catalog.models.insert(entry.name.clone(), entry);
        }
        Ok(())
    }

    fn rig(&mut self, name: &str, text: &str) -> Result<(), CatalogError> {
        let file = File::new(name, text);
        let entry = rig::read(&file)?;
        self.rigs.claim(&file, What::Rig, &entry.name(), &[])?;
        self.note(What::Rig, &entry.name(), name);
        self.catalog.rigs.insert(entry.name(), entry);
        Ok(())
    }
}

/// Names and aliases that a layer has given away, each with its owner.
struct Taken(Vec<(String, String)>);

impl Taken {
    fn claim(
        &mut self,
        file: &File<'_>,
        what: What,
        owner: &str,
        aliases: &[String],
    ) -> Result<(), CatalogError> {
        for name in std::iter::once(owner).chain(aliases.iter().map(String::as_str)) {
            if let Some((_, other)) = self.0.iter().find(|(taken, _)| taken == name) {
                return Err(CatalogError::Taken {
                    at: file.place_of(name),
                    what,
                    name: name.to_string(),
                    other: other.clone(),
                });
            }
            self.0.push((name.to_string(), owner.to_string()));
        }
        Ok(())
    }
}
