//! Measures an operation on simulated nodes and a real control plane; see `--help`.

use std::process::ExitCode;

use anyhow::Context as _;
use bos_e2e::bench::{Args, run};

fn main() -> ExitCode {
    match measure(&Args::from_process()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// False if budgets count and one was exceeded.
fn measure(args: &Args) -> anyhow::Result<bool> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let report = runtime.block_on(run(args))?;
    println!("{}", report.table());
    if let Some(path) = args.json() {
        let text = serde_json::to_string_pretty(&report)?;
        std::fs::write(path, text + "\n").with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(!args.check() || report.is_within_budgets())
}
