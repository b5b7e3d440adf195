//! `blf`: parses the command line, calls the library, prints, and chooses the exit code.

use std::process::ExitCode;
use std::time::Duration;

use blf::ask::{self, Ask};
use blf::cli::{AskArgs, Cli, Command};
use blf::failure::{Exit, Failure};
use blf::nodes::Known;
use blf::terminal::{Terminal, print_json, printable};
use blf::{measure, show, verify};
use blf_bridge::Secret;
use blf_evidence::job::PROMPT_CAP;
use clap::{CommandFactory as _, Parser as _};
use k256::ecdsa::SigningKey;
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
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if json {
                print_json(&serde_json::json!({ "schema": "blf.failure/v1", "failure": failure }));
            } else {
                anstream::eprintln!("blf: {failure}");
            }
            ExitCode::from(failure.exit as u8)
        }
    }
}

fn run(cli: &Cli, terminal: &Terminal) -> Result<(), Failure> {
    match &cli.command {
        Command::Ask(args) => {
            let report = run_ask(args, terminal)?;
            print(cli, &report, || report.text.clone());
            terminal.line(report.meaning);
        }
        Command::Verify(args) => {
            let report = verify::run(args, terminal)?;
            print(cli, &report, || format!("VERIFIED {}", report.meaning));
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
        Command::Man => clap_mangen::Man::new(Cli::command())
            .render(&mut std::io::stdout())
            .map_err(|e| Failure::new(Exit::Failed, "WRITE", e))?,
    }
    Ok(())
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
    let key = account(args)?;
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

/// The user's account: from a file that only its owner may read, or a fresh one.
fn account(args: &AskArgs) -> Result<SigningKey, Failure> {
    use std::io::Read as _;
    use std::os::unix::fs::PermissionsExt as _;
    let Some(path) = &args.key else {
        let key = blf_bridge::Key::random().map_err(|e| Failure::new(Exit::Environment, "RANDOMNESS", e))?;
        return SigningKey::from_slice(key.expose()).map_err(|e| Failure::new(Exit::Failed, "ACCOUNT", e));
    };
    let wrong = |e: &dyn std::fmt::Display| Failure::new(Exit::Config, "ACCOUNT", format!("{}: {e}", path.display()));
    let file = std::fs::File::open(path).map_err(|e| wrong(&e))?;
    let mode = file.metadata().map_err(|e| wrong(&e))?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(
            wrong(&format!("wanted mode 0600, got {:04o}", mode & 0o777)).hint(format!("chmod 600 {}", path.display()))
        );
    }
    // Of the file that was judged, whatever the name means by now.
    let mut text = zeroize::Zeroizing::new(Vec::with_capacity(256));
    file.take(129).read_to_end(&mut text).map_err(|e| wrong(&e))?;
    if text.len() > 128 {
        return Err(wrong(&"wanted 64 hex digits, got more than 128 bytes"));
    }
    let mut bytes = zeroize::Zeroizing::new([0; 32]);
    hex::decode_to_slice(text.trim_ascii(), bytes.as_mut_slice()).map_err(|_| wrong(&"wanted 64 hex digits"))?;
    SigningKey::from_slice(bytes.as_slice()).map_err(|_| wrong(&"wanted a secp256k1 key"))
}

fn print(cli: &Cli, report: &impl Serialize, text: impl FnOnce() -> String) {
    if cli.json {
        print_json(report);
    } else {
        anstream::println!("{}", printable(&text()));
    }
}
