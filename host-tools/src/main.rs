//! `blf-host`: parses the command line, calls the library, chooses the exit code.

use std::process::ExitCode;

use blf_host::cli::Cli;
use blf_host::{Error, Exit, commands};
use clap::Parser as _;

fn main() -> ExitCode {
    // Where the command line cannot be read, this is how a program says that it wants an object.
    let json = std::env::args_os().any(|argument| argument == "--json");
    let ended = match Cli::try_parse() {
        Ok(cli) => commands::run(&cli),
        Err(error) if json && error.use_stderr() => {
            let text = error.render().to_string();
            let message = text.trim_start_matches("error: ").split("\n\n").next().unwrap_or_default();
            Err(Error::new(Exit::Usage, "USAGE", message).hint("blf-host --help"))
        }
        Err(error) => {
            let code = if error.use_stderr() { Exit::Usage as u8 } else { 0 };
            drop(error.print());
            return ExitCode::from(code);
        }
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            commands::report(json, &error);
            ExitCode::from(error.exit as u8)
        }
    }
}
