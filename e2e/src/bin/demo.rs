//! Boots virtual nodes on a real control plane and shows it; see `--help`.

use std::process::ExitCode;

use bos_e2e::demo::{Args, run};

fn main() -> anyhow::Result<ExitCode> {
    let args = Args::from_process();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let good = runtime.block_on(run(args))?;
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
