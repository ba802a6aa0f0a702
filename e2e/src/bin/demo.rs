//! Boots virtual nodes on a real control plane and shows it; see `--help`.

use std::process::ExitCode;

use anyhow::Context as _;
use bos_e2e::demo::{Args, run};

fn main() -> ExitCode {
    let args = Args::from_process();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("starting the runtime");
    match runtime.and_then(|runtime| runtime.block_on(run(args))) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}
