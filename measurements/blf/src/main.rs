//! `blf`: parses the command line, calls the library, prints, and chooses the exit code.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use blf::account::account;
use blf::ask::{self, Ask};
use blf::cli::{AskArgs, Cli, Command};
use blf::client::block_on;
use blf::failure::{Exit, Failure};
use blf::nodes::Known;
use blf::terminal::{Terminal, print, print_json, printable, shell_word, tell};
use blf::{measure, show, verify};
use blf_bridge::Secret;
use blf_evidence::job::PROMPT_CAP;
use clap::{CommandFactory as _, Parser as _};
use serde::Serialize;

fn main() -> ExitCode {
    // Where the command line cannot be read, this is how a program says that it wants an object.
    let json = std::env::args_os().any(|argument| argument == "--json");
    let ended = match Cli::try_parse() {
        Ok(cli) => run(&cli, &Terminal::new(cli.json)),
        Err(error) if json && error.use_stderr() => {
            let text = error.render().to_string();
            let message = text.trim_start_matches("error: ").split("\n\n").next().unwrap_or_default();
            Err(Failure::new(Exit::Usage, "USAGE", message).hint("blf --help"))
        }
        Err(error) => {
            let code = if error.use_stderr() { Exit::Usage as u8 } else { 0 };
            drop(error.print());
            return ExitCode::from(code);
        }
    };
    match ended {
        Ok(code) => code,
        Err(failure) => {
            let object = serde_json::json!({ "schema": "blf.failure/v1", "failure": failure });
            // Where stdout takes nothing, stderr may.
            if !json || print_json(&object).is_err() {
                tell(format_args!("blf: {}", printable(&failure.to_string())));
            }
            ExitCode::from(failure.exit as u8)
        }
    }
}

fn run(cli: &Cli, terminal: &Terminal) -> Result<ExitCode, Failure> {
    match &cli.command {
        Command::Ask(args) => {
            let report = run_ask(args, terminal)?;
            print_report(cli, &report, || report.text.clone())?;
            terminal.line(report.meaning);
        }
        Command::Verify(args) => {
            let report = verify::run(args)?;
            if cli.json {
                print_json(&report)?;
            } else {
                print(&report.lines(args.verbose).join("\n"))?;
            }
            return Ok(ExitCode::from(report.exit()));
        }
        Command::Show(args) => {
            let report = show::run(args)?;
            print_report(cli, &report, || report.to_text())?;
        }
        Command::Measure(args) => {
            let report = measure::run(args)?;
            print_report(cli, &report, || report.to_text())?;
        }
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "blf", &mut script);
            print(String::from_utf8_lossy(&script).trim_end())?;
        }
        Command::Man { of } => {
            let mut all = Cli::command();
            all.build();
            let of = of.as_ref().and_then(|name| all.find_subcommand(name)).unwrap_or(&all).clone();
            let mut page = Vec::new();
            clap_mangen::Man::new(of).render(&mut page).map_err(|e| Failure::new(Exit::Failed, "WRITE", e))?;
            print(String::from_utf8_lossy(&page).trim_end())?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn run_ask(args: &AskArgs, terminal: &Terminal) -> Result<ask::Report, Failure> {
    let known = Known::read(args.network.as_deref(), args.policy.as_deref())?;
    let ask = Ask {
        network: &known.network,
        profile: &known.profile,
        reference: &known.reference,
        prompt: prompt(&args.prompt)?,
        model: args.model.clone().unwrap_or_else(|| known.network.model.clone()),
        verifiers: args.verifiers,
        spares: args.spares,
        max_new_tokens: args.max_new_tokens,
        deadline: Duration::from_secs(args.timeout),
        keep_evidence: args.keep_evidence.clone(),
        chosen: chosen("--network", args.network.as_deref()) + &chosen("--policy", args.policy.as_deref()),
        quorum_within: Duration::from_secs(args.wait_for_quorum),
    };
    let key = account(args.key.as_deref())?;
    block_on(ask::run(ask, key, terminal))
}

/// An option and its file, where there is one, for a command that the user may repeat.
fn chosen(option: &str, file: Option<&Path>) -> String {
    file.map(|file| format!(" {option} {}", shell_word(file))).unwrap_or_default()
}

/// The prompt of the command line, or of standard input.
fn prompt(argument: &str) -> Result<Secret, Failure> {
    use std::io::Read as _;
    let mut bytes = Vec::with_capacity(PROMPT_CAP + 1);
    if argument == "-" {
        std::io::stdin()
            .take(PROMPT_CAP as u64 + 1)
            .read_to_end(&mut bytes)
            .map_err(|e| Failure::new(Exit::Failed, "PROMPT", format!("standard input: {e}")))?;
    } else {
        bytes.extend_from_slice(argument.as_bytes());
    }
    let prompt = Secret::new(bytes);
    let got = match prompt.expose() {
        [] => "nothing".into(),
        bytes if bytes.len() > PROMPT_CAP => "more".into(),
        bytes => match std::str::from_utf8(bytes) {
            Ok(_) => return Ok(prompt),
            Err(error) => format!("another byte at {}", error.valid_up_to()),
        },
    };
    Err(Failure::new(Exit::Usage, "PROMPT", format!("prompt: wanted 1 to {PROMPT_CAP} bytes of UTF-8, got {got}")))
}

fn print_report(cli: &Cli, report: &impl Serialize, text: impl FnOnce() -> String) -> Result<(), Failure> {
    if cli.json { print_json(report) } else { print(&printable(&text())) }
}
