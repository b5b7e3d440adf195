//! `blf`: parses the command line, calls the library, prints, and chooses the exit code.

use std::process::ExitCode;
use std::time::Duration;

use blf::account::account;
use blf::ask::{self, Ask};
use blf::cli::{AskArgs, Cli, Command};
use blf::failure::{Exit, Failure};
use blf::nodes::Known;
use blf::terminal::{Terminal, print_json, printable};
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
            if json {
                print_json(&serde_json::json!({ "schema": "blf.failure/v1", "failure": failure }));
            } else {
                anstream::eprintln!("blf: {}", printable(&failure.to_string()));
            }
            ExitCode::from(failure.exit as u8)
        }
    }
}

fn run(cli: &Cli, terminal: &Terminal) -> Result<ExitCode, Failure> {
    match &cli.command {
        Command::Ask(args) => {
            let report = run_ask(args, terminal)?;
            print(cli, &report, || report.text.clone());
            terminal.line(report.meaning);
        }
        Command::Verify(args) => {
            let report = verify::run(args)?;
            if cli.json {
                print_json(&report);
            } else {
                report.lines(args.verbose).iter().for_each(|line| anstream::println!("{line}"));
            }
            return Ok(ExitCode::from(report.exit()));
        }
        Command::Show(args) => {
            let report = show::run(args)?;
            print(cli, &report, || report.to_text());
        }
        Command::Measure(args) => {
            let report = measure::run(args)?;
            print(cli, &report, || report.to_text());
        }
        Command::Completions { shell } => {
            clap_complete::generate(*shell, &mut Cli::command(), "blf", &mut std::io::stdout());
        }
        Command::Man { of } => {
            let mut all = Cli::command();
            all.build();
            let of = of.as_ref().and_then(|name| all.find_subcommand(name)).unwrap_or(&all).clone();
            let page = clap_mangen::Man::new(of);
            page.render(&mut std::io::stdout()).map_err(|e| Failure::new(Exit::Failed, "WRITE", e))?;
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
        quorum_within: Duration::from_secs(args.wait_for_quorum),
    };
    let key = account(args.key.as_deref())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::new(Exit::Environment, "RUNTIME", e))?;
    runtime.block_on(ask::run(ask, key, terminal))
}

/// The prompt of the command line, or of standard input.
fn prompt(argument: &str) -> Result<Secret, Failure> {
    use std::io::Read as _;
    if argument != "-" {
        return Ok(Secret::new(argument.as_bytes().to_vec()));
    }
    let mut bytes = Vec::with_capacity(PROMPT_CAP + 1);
    std::io::stdin()
        .take(PROMPT_CAP as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| Failure::new(Exit::Failed, "PROMPT", format!("standard input: {e}")))?;
    if bytes.len() > PROMPT_CAP {
        return Err(Failure::new(
            Exit::Usage,
            "PROMPT",
            format!("prompt: wanted at most {PROMPT_CAP} bytes, got more"),
        ));
    }
    Ok(Secret::new(bytes))
}

fn print(cli: &Cli, report: &impl Serialize, text: impl FnOnce() -> String) {
    if cli.json {
        print_json(report);
    } else {
        anstream::println!("{}", printable(&text()));
    }
}
