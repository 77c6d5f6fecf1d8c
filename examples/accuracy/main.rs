//! Fits every calibrated rig to the measurements in `docs/measurements`, and writes the profiles of the catalogue and
//! `docs/accuracy.md` anew. Run it from the repository: `cargo run --release --example accuracy`.

mod assess;
mod points;
mod profile;
mod published;
mod rates;
mod report;
mod tables;

use laptime::catalog::Catalog;
use std::io::Write as _;
use std::path::Path;

fn main() -> std::io::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let tables = tables::read(&root.join("docs/measurements"));
    let found = assess::assess(&tables);
    let catalog = published::catalog(root);
    let points = published::read_points(&root.join("docs/measurements"));
    let published = published::assess(points, &tables, &catalog);
    let folder = root.join("src/catalog/data/rig");
    let builtin = Catalog::builtin();
    let shipped = profile::shipped(&published, &found, &builtin);
    let rigs = shipped
        .iter()
        .map(|rig| profile::published_file(rig, &published, &builtin));
    for (name, text) in profile::files(&found).into_iter().chain(rigs) {
        std::fs::write(folder.join(name), text)?;
    }
    let table = root.join("src/catalog/data/efficiency.toml");
    std::fs::write(table, profile::efficiencies(&published.learned))?;
    let accuracy = report::markdown(&found, &published, shipped.len());
    std::fs::write(root.join("docs/accuracy.md"), &accuracy)?;
    std::io::stdout().write_all(accuracy.as_bytes())
}
