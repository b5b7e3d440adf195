//! From the command line to the work: each command gathers its inputs, checks them, and calls one module.

mod attest;
mod config;
mod import;
mod init;
mod jobs;
mod launch;
mod manual;
mod models;
mod run;
mod status;
mod units;

use clap::CommandFactory as _;
use serde_json::json;

use crate::cli::{Cli, Command};
use crate::error::Error;
use crate::journal::{self, Level};
use crate::notice::print;
use crate::{doctor, existing};

/// Runs a command line.
///
/// # Errors
/// [`Error`], whose [`Exit`](crate::Exit) is the exit code.
pub fn run(cli: &Cli) -> Result<(), Error> {
    let (json, log) = (cli.json, cli.log);
    match &cli.command {
        // These start the log themselves, where their configuration says.
        Command::Launch(arguments) => return launch::launch(arguments, json, log),
        Command::Run(arguments) => return run::run(arguments, json, log),
        Command::Attest(arguments) => return attest::attest(arguments, json, log),
        Command::Models(command) => return models::models(command, json, log),
        _ => drop(journal::start(log.unwrap_or_default(), Level::default())?),
    }
    match &cli.command {
        Command::Init(arguments) => init::init(arguments, json),
        Command::Status(named) => status::status(&named.name, json),
        Command::Jobs(command) => on_this_thread(jobs::jobs(command, json)),
        Command::Config(command) => config::config(command, json, log),
        Command::Import(arguments) => import::import(arguments, json),
        Command::Doctor { image } => {
            let report = on_this_thread(async { Ok(doctor::examine(image).await) })?;
            if json {
                print(json!(report));
            } else {
                print(&report);
            }
            if report.ok {
                return Ok(());
            }
            Err(Error::environment("DOCTOR", "this host lacks what is listed above").said())
        }
        Command::InstallUnits { dir, sysusers, program } => units::install(dir, sysusers, program.as_deref(), json),
        Command::Completions { shell } => {
            clap_complete::generate(*shell, &mut Cli::command(), "blf-host", &mut std::io::stdout());
            Ok(())
        }
        Command::Man { dir } => manual::print_or_write(dir.as_deref()),
        Command::Launch(_) | Command::Run(_) | Command::Attest(_) | Command::Models(_) => Ok(()),
    }
}

/// Says how a command ended that did not end well: one object on stdout, or lines on stderr.
pub fn report(json: bool, error: &Error) {
    if json {
        // A report that says so itself is the one object already.
        if !error.said {
            print(json!({ "schema": "blf.failure/v1", "failure": error }));
        }
        return;
    }
    anstream::eprintln!("blf-host: {error} ({})", error.code);
    if let Some(hint) = &error.hint {
        anstream::eprintln!("    next: {hint}");
    }
}

/// Says on stderr which variables are set and have no effect.
fn warn_of_variables() {
    let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    for line in existing::without_effect(names) {
        anstream::eprintln!("blf-host: warning: {line}");
    }
}

/// One thread for everything: processes that are started here end when this thread does.
fn on_this_thread<T>(work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| Error::environment("RUNTIME", e))?;
    let done = runtime.block_on(work);
    // A look-up whose DNS server does not answer would hold up the end.
    runtime.shutdown_background();
    done
}
