//! Measures an operation on simulated nodes and a real control plane; see `--help`.

use std::process::ExitCode;

use anyhow::Context as _;
use bos_e2e::bench::{Args, run};

fn main() -> anyhow::Result<ExitCode> {
    let args = Args::from_process();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let report = runtime.block_on(run(args.clone()))?;
    println!("{}", report.table());
    if let Some(path) = args.json() {
        let text = serde_json::to_string_pretty(&report)?;
        std::fs::write(path, text + "\n").with_context(|| format!("writing {}", path.display()))?;
    }
    let failed = args.check() && !report.is_within_budgets();
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
