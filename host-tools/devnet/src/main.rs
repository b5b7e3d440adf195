//! `blf-devnet`: parses the command line, calls the library, and chooses the exit code.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use blf_devnet::cli::{self, Cli, Command, Failure};
use clap::Parser as _;
use tokio::signal::unix::{SignalKind, signal};

fn main() -> ExitCode {
    let Cli { json, command: Command::Run(args) } = Cli::parse();
    let mut out = std::io::stdout().lock();
    let environment = |e: std::io::Error| Failure { exit: 5, code: "RUNTIME", message: e.to_string() };
    let ended = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(environment)
        .and_then(|runtime| {
            runtime.block_on(async {
                let mut interrupt = signal(SignalKind::interrupt()).map_err(environment)?;
                let mut terminate = signal(SignalKind::terminate()).map_err(environment)?;
                let shutdown = async move {
                    tokio::select! {
                        _ = interrupt.recv() => {}
                        _ = terminate.recv() => {}
                    }
                };
                cli::run(args, json, &mut out, shutdown).await
            })
        });
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if json {
                cli::write_failure(&failure, json, &mut out);
            } else {
                cli::write_failure(&failure, json, &mut std::io::stderr());
            }
            ExitCode::from(failure.exit)
        }
    }
}
