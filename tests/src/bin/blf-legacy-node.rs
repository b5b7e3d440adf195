//! A development node on a legacy devnet: vault, courier and engine of the agent in one ordinary process, keys from a random
//! birth. It protects nothing from whoever runs it; it is for interoperation with the published node and for comparing
//! what both cost.
//!
//! ```text
//! blf-legacy-node --devnet ADDRESS:PORT [--model PACK] [--profile FILE] [--pinning-token TOKEN] [--max-jobs N]
//! ```
//!
//! Standard output gets the node's address, standard error its telemetry, a line each. SIGTERM or SIGINT drains it.

use std::fs::File;
use std::process::ExitCode;

use blf_agent::vault::Ended;
use blf_evidence::pack;
use blf_evidence::profile::NetworkProfile;
use blf_tests::legacy::{LegacyNode, Setup, to_stderr};
use tokio::signal::unix::{SignalKind, signal};

fn main() -> ExitCode {
    match run() {
        Ok(Ended::PowerOff) => ExitCode::SUCCESS,
        Ok(ended) => {
            eprintln!("blf-legacy-node: ended otherwise than by a stop: {ended:?}");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("blf-legacy-node: {error}");
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<Ended, String> {
    let mut setup = None;
    let mut changes: Vec<(String, String)> = Vec::new();
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let value = arguments.next().ok_or_else(|| format!("{name}: wanted a value"))?;
        if name == "--devnet" {
            let address = value.parse().map_err(|e| format!("--devnet {value}: {e}"))?;
            setup = Some(Setup::new(address, to_stderr()));
        } else {
            changes.push((name, value));
        }
    }
    let mut setup = setup.ok_or("wanted --devnet ADDRESS:PORT")?;
    for (name, value) in changes {
        let wrong = |error: &dyn std::fmt::Display| format!("{name} {value}: {error}");
        match name.as_str() {
            "--model" => {
                let header = pack::verify(&std::fs::read(&value).map_err(|e| wrong(&e))?).map_err(|e| wrong(&e))?;
                setup.pack = Some((File::open(&value).map_err(|e| wrong(&e))?, header));
            }
            "--profile" => {
                let bytes = std::fs::read(&value).map_err(|e| wrong(&e))?;
                setup.profile = NetworkProfile::parse(&bytes).map_err(|e| wrong(&e))?;
            }
            "--pinning-token" => setup.pinning_token = value,
            "--max-jobs" => setup.max_jobs = value.parse().map_err(|e| wrong(&e))?,
            _ => return Err(format!("unknown argument {name}")),
        }
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
    runtime.block_on(async {
        let mut signals = [SignalKind::terminate(), SignalKind::interrupt()].map(signal);
        let [Ok(terminate), Ok(interrupt)] = &mut signals else { return Err("no signals".into()) };
        let node = LegacyNode::start(setup);
        println!("{}", node.address);
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        Ok(node.stop())
    })
}
