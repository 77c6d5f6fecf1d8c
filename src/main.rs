//! The command line: parse, run, exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(laptime::cli::main() as u8)
}
