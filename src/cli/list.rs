//! `laptime list`: what rigs can be made of, where each figure comes from, and how far it can be trusted.

mod check;
mod whole;

use super::output;
use super::rigs;
use super::talk;
use crate::catalog::{self as entries, EngineProfile, Hardware, Model, Platform};
use crate::error::Error;
use crate::report::catalog::{self, Entry, Figure, bandwidth, compute};
use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// What was typed.
#[derive(Args, Debug)]
pub(super) struct List {
    /// What to list.
    #[arg(value_enum)]
    what: What,
    /// Only names that contain all of these words.
    #[arg(value_name = "WORD")]
    words: Vec<String>,
    /// Show each figure with its source.
    #[arg(long, short)]
    sources: bool,
    /// Answer as JSON, sources included.
    #[arg(long)]
    json: bool,
    /// With `hardware`: whether a claimed speed can be true, such as "llama-3.1-70b-q4_k_m 45 tok/s"; add `prefill`,
    /// `aggregate x16`, or a context as `@8k`.
    #[arg(long, value_name = "CLAIM")]
    check: Option<String>,
    /// With `rigs`: those that cannot be, and why.
    #[arg(long)]
    cannot: bool,
    /// With `claims`: as the document docs/claims.md.
    #[arg(long, conflicts_with = "json")]
    markdown: bool,
    /// A folder of hardware, engine and model files laid over the built-in catalogue; may be repeated.
    #[arg(long, value_name = "DIR")]
    catalog: Vec<PathBuf>,
}

#[derive(ValueEnum, Clone, Copy, Debug)]
enum What {
    /// Whole rigs: every model on the hardware that holds it and an engine that runs there.
    Rigs,
    /// Machines.
    Hardware,
    /// Serving engines and their settings.
    Engines,
    /// Models with their quantisation.
    Models,
    /// Published speeds, and whether they can be true.
    Claims,
}

impl List {
    /// Looks up and prints.
    pub(super) fn run(self) -> Result<(), Error> {
        self.fits_together()?;
        let catalog = rigs::catalog(&self.catalog)?;
        if let Some(claim) = &self.check {
            return check::one(claim, &self.words, self.json, &catalog);
        }
        let from = |what, name: &str| catalog.origin(what, name).map(ToString::to_string);
        let mut entries: Vec<Entry> = match self.what {
            What::Claims => {
                return check::published(&self.words, self.json, self.markdown, &catalog);
            }
            What::Rigs if self.cannot => whole::that_cannot_be(&catalog),
            What::Rigs => whole::all(&catalog),
            What::Hardware => catalog.all_hardware().map(hardware).collect(),
            What::Engines => catalog.all_engines().map(engine).collect(),
            What::Models => catalog.all_models().map(model).collect(),
        };
        for entry in &mut entries {
            entry.from = match self.what {
                What::Hardware => from(entries::What::Hardware, &entry.name),
                What::Engines => from(entries::What::Engine, &entry.name),
                What::Models => from(entries::What::Model, &entry.name),
                What::Rigs | What::Claims => from(entries::What::Rig, &entry.name),
            };
        }
        entries.retain(|entry| self.words.iter().all(|word| entry.is_called(word)));
        if entries.is_empty() && matches!(self.what, What::Rigs) && !self.cannot {
            talk::note(
                false,
                "no rig is called that; with --cannot the list says which cannot be, and why",
            );
        }
        if self.json {
            let mut text = Vec::new();
            catalog::write(&mut text, &entries).map_err(Error::stdout)?;
            return output::print(&String::from_utf8_lossy(&text));
        }
        if self.cannot {
            return output::print(&catalog::render_cannot(&entries, output::look()));
        }
        if matches!(self.what, What::Rigs) && self.words.is_empty() {
            entries = whole::by_model(&entries);
        }
        output::print(&catalog::render(&entries, self.sources, output::look()))
    }

    /// Refuses flags that do nothing for what is listed.
    fn fits_together(&self) -> Result<(), Error> {
        let wrong = if self.check.is_some() && !matches!(self.what, What::Hardware) {
            "--check belongs to `laptime list hardware`"
        } else if self.cannot && !matches!(self.what, What::Rigs) {
            "--cannot belongs to `laptime list rigs`"
        } else if self.cannot && self.words.is_empty() && !self.json {
            "--cannot would list thousands; name a part of those you mean"
        } else if self.markdown && !matches!(self.what, What::Claims) {
            "--markdown belongs to `laptime list claims`"
        } else {
            return Ok(());
        };
        Err(Error::usage(wrong).with_help("see `laptime list --help`"))
    }
}

fn hardware(of: &Hardware) -> Entry {
    let mut figures = vec![
        Figure::whole("memory_bytes", &of.memory, |bytes| {
            (bytes.0, bytes.to_string())
        }),
        Figure::whole("usable_bytes", &of.usable, |bytes| {
            (bytes.0, bytes.to_string())
        }),
        Figure::real("bandwidth_bytes_per_s", &of.bandwidth, |rate| {
            (rate.0, bandwidth(*rate))
        }),
    ];
    let measured = of.bandwidth_measured.as_ref();
    figures.extend(measured.map(|known| {
        Figure::real("bandwidth_measured_bytes_per_s", known, |rate| {
            (rate.0, bandwidth(*rate))
        })
    }));
    for (name, known) in [
        ("f16_flops", &of.compute.f16),
        ("fp8_flops", &of.compute.fp8),
        ("int8_ops", &of.compute.int8),
        ("fp4_flops", &of.compute.fp4),
    ] {
        figures.extend(
            known
                .as_ref()
                .map(|known| Figure::real(name, known, |rate| (rate.0, compute(*rate)))),
        );
    }
    for (name, known) in [
        ("power_limit_w", &of.power.limit),
        ("power_idle_w", &of.power.idle),
        ("power_decode_w", &of.power.decode),
        ("power_prefill_w", &of.power.prefill),
        ("power_rest_w", &of.power.rest),
        ("power_wall_w", &of.power.wall),
        ("power_wall_idle_w", &of.power.wall_idle),
    ] {
        figures.extend(
            known.as_ref().map(|known| {
                Figure::real(name, known, |watts| (watts.0, format!("{} W", watts.0)))
            }),
        );
    }
    figures.extend(of.price.as_ref().map(|price| {
        Figure::real("price_usd", &price.amount, |money| {
            (money.0, format!("{} USD in {}", money.0, price.date))
        })
    }));
    let columns = vec![
        format!("{} x {}", of.devices, of.memory.value),
        bandwidth(of.bandwidth.value),
        of.platform.word().to_string(),
    ];
    Entry {
        aliases: of.aliases.clone(),
        settings: Vec::new(),
        note: of.note.clone(),
        ..Entry::plain(of.name.clone(), &of.title, columns, None)
    }
    .with_figures(figures)
}

fn model(of: &Model) -> Entry {
    let billions = |count: f64| format!("{} G", crate::units::three_digits(count / 1e9));
    let mut figures = vec![
        Figure::whole("weights_bytes", &of.weights, |bytes| {
            (bytes.0, bytes.to_string())
        }),
        Figure::real("total_params", &of.total_params, |count| {
            (*count, billions(*count))
        }),
        Figure::real("active_params", &of.active_params, |count| {
            (*count, billions(*count))
        }),
        Figure::whole("read_per_token_bytes", &of.read_per_token, |bytes| {
            (bytes.0, bytes.to_string())
        }),
        Figure::whole("kv_bytes_per_token", &of.kv_bytes_per_token, |bytes| {
            (bytes.0, bytes.to_string())
        }),
    ];
    if of.hybrid() {
        figures.push(Figure::whole(
            "state_bytes_per_sequence",
            &of.state_bytes_per_sequence,
            |bytes| (bytes.0, bytes.to_string()),
        ));
    }
    figures.push(Figure::whole(
        "max_context_tokens",
        &of.max_context,
        |tokens| (tokens.0, tokens.to_string()),
    ));
    let columns = vec![
        of.weights.value.to_string(),
        format!("{} active", billions(of.active_params.value)),
        format!("{} a token", of.kv_bytes_per_token.value),
    ];
    Entry {
        aliases: of.aliases.clone(),
        settings: Vec::new(),
        note: of.note.clone(),
        ..Entry::plain(of.name.clone(), &of.title, columns, None)
    }
    .with_figures(figures)
}

fn engine(of: &EngineProfile) -> Entry {
    let versions: Vec<&str> = of
        .versions
        .iter()
        .map(|version| version.name.as_str())
        .collect();
    let platforms: Vec<&str> = of
        .backends
        .keys()
        .map(|platform: &Platform| platform.word())
        .collect();
    let settings = of.settings.values().map(|setting| {
        (
            format!("engine.{}", setting.name),
            format!("{}; {}", setting.what, setting.kind),
        )
    });
    let columns = vec![
        format!("@{}", versions.join(", @")),
        format!("default @{}", of.default_version),
        platforms.join(", "),
    ];
    Entry {
        aliases: of.aliases.clone(),
        settings: settings.collect(),
        note: of.note.clone(),
        ..Entry::plain(of.name.clone(), &of.title, columns, None)
    }
}
