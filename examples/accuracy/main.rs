//! Fits every calibrated rig to the measurements in `docs/measurements`, and writes the profiles of the catalogue and
//! `docs/accuracy.md` anew. Run it from the repository: `cargo run --release --example accuracy`.

mod assess;
mod points;
mod profile;
mod report;
mod tables;

use std::io::Write as _;
use std::path::Path;

fn main() -> std::io::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let tables = tables::read(&root.join("docs/measurements"));
    let found = assess::assess(&tables);
    let folder = root.join("src/catalog/data/rig");
    for (name, text) in profile::files(&found) {
        std::fs::write(folder.join(name), text)?;
    }
    let accuracy = report::markdown(&found);
    std::fs::write(root.join("docs/accuracy.md"), &accuracy)?;
    std::io::stdout().write_all(accuracy.as_bytes())
}
