//! Fits every calibrated rig to the measurements in `docs/measurements`, and writes the profiles of the catalogue and
//! `docs/accuracy.md` anew. Run it from the repository: `cargo run --release --example accuracy`.

mod assess;
mod points;
mod profile;
mod published;
mod report;
mod tables;

use std::io::Write as _;
use std::path::Path;

fn main() -> std::io::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let tables = tables::read(&root.join("docs/measurements"));
    let found = assess::assess(&tables);
    let catalog = published::catalog(root);
    let points = published::read_points(&root.join("docs/measurements"));
    let published = published::assess(points, &tables, &catalog);
    report_dev(&published);
    let folder = root.join("src/catalog/data/rig");
    for (name, text) in profile::files(&found) {
        std::fs::write(folder.join(name), text)?;
    }
    let accuracy = report::markdown(&found);
    std::fs::write(root.join("docs/accuracy.md"), &accuracy)?;
    std::io::stdout().write_all(accuracy.as_bytes())
}

fn report_dev(p: &published::Published) {
    use laptime::study::calibrate::{Errors, covered};
    let show = |name: &str, all: &[published::Judged]| {
        let mut by: std::collections::BTreeMap<String, Vec<f64>> = Default::default();
        for one in all {
            let what = p.points[one.point].row.what.word();
            let g = format!("{}/{}/{}{}", one.group.chip, one.group.engine, one.group.backend, if one.group.old {"(old)"} else {""});
            by.entry(g.clone()).or_default().push(one.error);
            by.entry(format!("{g} {what}")).or_default().push(one.error);
            by.entry("ALL".into()).or_default().push(one.error);
            by.entry(format!("ALL {what}")).or_default().push(one.error);
        }
        for (g, e) in by {
            let s = Errors::of(&e).unwrap();
            eprintln!("{name} {g}: n {} med {:.1} p90 {:.1} cover {:.0}", s.count, s.median*100.0, s.p90*100.0, 100.0*covered(&e) as f64/e.len() as f64);
        }
    };
    show("RIG", &p.by_rig);
    show("MODELS", &p.by_models);
    show("MACHINES", &p.by_machines);
    eprintln!("{} rigs {} learned", p.rigs.len(), p.learned.len());
    let mut inside = 0; let mut all = 0;
    for r in &p.rigs { let e: Vec<f64> = r.fit.held_out.iter().map(|h| h.error).collect(); inside += covered(&e); all += e.len(); }
    eprintln!("rig coverage {}", inside as f64 / all as f64);
}
