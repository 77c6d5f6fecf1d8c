//! Whole rigs: every hardware, engine and model that go together, what each rests on, and why the others cannot be.

use crate::catalog::{Catalog, Model};
use crate::known::Trust;
use crate::report::catalog::{BasisOut, Entry};
use crate::report::text::{counted, percent};
use crate::study::rig::{Basis, RECORDED, RigError, basis};

/// Calls `with` for every combination of the catalogue.
fn every(catalog: &Catalog, mut with: impl FnMut(String, &Model, f64, Result<Basis, RigError>)) {
    for hardware in catalog.all_hardware() {
        let room = hardware.usable_total().as_f64();
        for engine in catalog.all_engines() {
            for model in catalog.all_models() {
                let name = format!("{}/{}/{}", hardware.name, engine.name, model.name);
                let found = basis(&name, catalog);
                with(name, model, room, found);
            }
        }
    }
}

/// Returns every rig that can be simulated and holds its model.
pub(super) fn all(catalog: &Catalog) -> Vec<Entry> {
    let mut entries = vec![recorded()];
    every(catalog, |name, model, room, found| {
        let Ok(basis) = found else { return };
        let weights = model.weights.value.as_f64();
        // Rigs that would leave layers in host memory can be asked for, and are not advertised.
        if weights >= room {
            return;
        }
        let (trust, rests_on) = match &basis {
            Basis::Calibrated(Some(error)) => {
                let p90 = percent(error.p90, 1.0);
                (Trust::Calibrated, format!("calibrated p90 {p90}"))
            }
            Basis::Calibrated(None) => (Trust::Calibrated, "calibrated".to_string()),
            other => (Trust::Estimate, other.word().to_string()),
        };
        let fills = format!("fills {}", percent(weights, room));
        entries.push(Entry {
            basis: Some(BasisOut::new(&basis)),
            ..Entry::plain(name, "", vec![fills, rests_on], Some(trust))
        });
    });
    entries
}

/// Returns every combination that cannot be simulated, and why.
pub(super) fn that_cannot_be(catalog: &Catalog) -> Vec<Entry> {
    let mut entries = Vec::new();
    every(catalog, |name, _, _, found| {
        let Err(error) = found else { return };
        let why = error.to_string();
        entries.push(Entry {
            cannot: Some(why.clone()),
            ..Entry::plain(name, &why, Vec::new(), None)
        });
    });
    entries
}

fn recorded() -> Entry {
    let columns = vec![String::new(), "as recorded".to_string()];
    Entry::plain(RECORDED.to_string(), "", columns, None)
}

/// Returns one entry for the rigs that differ in their model alone.
pub(super) fn by_model(rigs: &[Entry]) -> Vec<Entry> {
    let mut groups: Vec<(&str, Vec<&Entry>)> = Vec::new();
    for rig in rigs {
        let Some((group, _)) = rig.name.rsplit_once('/') else {
            continue;
        };
        match groups.last_mut() {
            Some((last, members)) if *last == group => members.push(rig),
            _ => groups.push((group, vec![rig])),
        }
    }
    let grouped = groups.into_iter().map(|(group, members)| {
        let is = |kind: &str| {
            let basis = |rig: &&&Entry| rig.basis.as_ref().is_some_and(|basis| basis.is(kind));
            members.iter().filter(basis).count()
        };
        let told = ["calibrated", "carried over", "roofline"].map(|kind| (kind, is(kind)));
        let told: Vec<String> = told
            .into_iter()
            .filter(|(_, count)| *count > 0)
            .map(|(kind, count)| format!("{count} {kind}"))
            .collect();
        let columns = if told.is_empty() {
            vec![counted(members.len() as u64, "model")]
        } else {
            vec![counted(members.len() as u64, "model"), told.join(", ")]
        };
        Entry::plain(format!("{group}/MODEL"), "", columns, None)
    });
    let head = rigs.iter().any(|rig| rig.name == RECORDED).then(recorded);
    head.into_iter().chain(grouped).collect()
}
