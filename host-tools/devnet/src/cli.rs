//! The command `blf-devnet`: a devnet in a process of its own, one line for each thing that happens.

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use blf_appraisal::policy::POLICY_CAP;
use blf_appraisal::release::RELEASE_CAP;
use blf_appraisal::{Policy, Release};
use blf_evidence::json;
use blf_evidence::network::ModelName;
use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};
use serde::Serialize;
use tokio::sync::broadcast::error::RecvError;

use crate::{Accept, Appraisal, Deadlines, Devnet, Error, Event, LegacyOptions, Options, development};

/// A local network to live in: coordinator and blob store, with development keys that protect nothing.
///
/// Exit codes: 0 ok, 1 failed, 2 usage, 5 this machine cannot, 6 a file is wrong.
#[derive(Parser)]
#[command(name = "blf-devnet", version, propagate_version = true)]
pub struct Cli {
    /// One JSON object a line on stdout, for success and failure alike.
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Subcommand)]
pub enum Command {
    /// Run until Ctrl-C or SIGTERM.
    Run(RunArgs),
}

/// `blf-devnet run`
#[derive(Args)]
pub struct RunArgs {
    /// What the coordinator is.
    #[arg(long, value_enum, default_value_t = ModeArg::Strict)]
    pub mode: ModeArg,
    /// Where to listen; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:8443")]
    pub listen: SocketAddr,
    /// Folder for what must survive a restart; without it everything is forgotten at the end.
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub state: Option<PathBuf>,
    /// Where to listen for plain HTTP too (legacy).
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8000")]
    pub plain: SocketAddr,
    /// Whose requests are taken (legacy).
    #[arg(long, value_enum, default_value_t = AcceptArg::StrictSignatures)]
    pub accept: AcceptArg,
    /// Release manifest of the image that nodes must have booted (strict).
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub manifest: Option<PathBuf>,
    /// Appraisal policy; the devnet's own without it (strict).
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub policy: Option<PathBuf>,
    /// Write here how to reach this devnet, for `blf` (strict).
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub network: Option<PathBuf>,
    /// The model that the network file names as the default, with or without the digest of its manifest.
    #[arg(long, value_name = "ID[@MANIFEST_SHA256]", default_value = "blf-tiny-1")]
    pub model: ModelName,
    /// Verifiers of a quorum preview that does not say; 0 is a devnet quorum of one: nobody checks the leader (strict).
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=5))]
    pub verifiers: u8,
    /// Seconds from assignment to claim (strict).
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub claim_deadline: u64,
    /// Seconds from claim to commit (strict).
    #[arg(long, value_name = "SECONDS", default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub commit_deadline: u64,
    /// Seconds for each of the reveals (strict).
    #[arg(long, value_name = "SECONDS", default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub reveal_deadline: u64,
    /// Longest life of a node's certificate, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 86_400, value_parser = clap::value_parser!(u64).range(60..=86_400))]
    pub certificate_life: u64,
}

/// What the coordinator is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ModeArg {
    /// As the network's coordinator is today: it verifies nothing.
    Legacy,
    /// It admits nodes by their evidence.
    Strict,
}

/// Whose requests a legacy coordinator takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AcceptArg {
    /// Anybody's, as today.
    Anything,
    /// Those that nodes have signed.
    StrictSignatures,
}

/// How the command ends when it does not end well.
#[derive(Debug, Serialize)]
pub struct Failure {
    /// The process's exit code.
    pub exit: u8,
    /// Stable, in capitals.
    pub code: &'static str,
    /// One line.
    pub message: String,
}

/// What is printed, in the order of a run.
#[derive(Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Line<'a> {
    Listening {
        address: SocketAddr,
        icl: &'a str,
        blobs: &'a str,
        #[serde(flatten)]
        admits: &'a Admits,
        roots: &'static str,
    },
    Missed {
        events: u64,
    },
    Failed(&'a Failure),
    Stopped,
}

/// Who is admitted.
#[derive(Serialize)]
#[serde(untagged)]
enum Admits {
    Anybody { mode: &'static str, plain: Option<SocketAddr> },
    Booted { measurement: String },
}

/// Runs a devnet until `shutdown` resolves, writing what happens to `out`.
///
/// # Errors
/// [`Failure`], for `main` to print.
pub async fn run(
    args: RunArgs,
    json: bool,
    out: &mut impl Write,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), Failure> {
    let (mut options, mut admits) = match args.mode {
        ModeArg::Strict => strict(&args)?,
        ModeArg::Legacy => legacy(&args)?,
    };
    options.listen = args.listen;
    options.state = args.state.as_deref().map(state_file).transpose()?;
    options.verifier_count = args.verifiers.into();
    options.deadlines =
        Deadlines { claim: args.claim_deadline, commit: args.commit_deadline, reveal: args.reveal_deadline };
    options.certificate_life = args.certificate_life;
    let (icl, blobs) = (options.profile.icl.name.clone(), options.profile.blob_gateway.name.clone());

    let running = Devnet::start(options, shutdown).await.map_err(Failure::from)?;
    let mut events = running.events();
    if let (Some(path), Some(manifest)) = (&args.network, &args.manifest) {
        write_network(&running, manifest, args.model.clone(), path)?;
    }
    if let Admits::Anybody { plain, .. } = &mut admits {
        *plain = running.plain;
    }
    let address = running.address;
    let listening = Line::Listening { address, icl: &icl, blobs: &blobs, admits: &admits, roots: "development" };
    write(out, json, &listening, || {
        let admits = match &admits {
            Admits::Booted { measurement } => format!("admits nodes that booted {measurement}"),
            Admits::Anybody { plain, .. } => {
                let plain =
                    plain.map_or_else(String::new, |plain| format!("http://{plain} for programs without TLS; "));
                format!("{plain}admits anybody, as the network's coordinator does today")
            }
        };
        format!("listening on {address} as {icl} and {blobs}; development keys, they protect nothing\n{admits}")
    })?;
    let stopped = running.stopped();
    tokio::pin!(stopped);
    loop {
        tokio::select! {
            () = &mut stopped => break,
            event = events.recv() => match event {
                Ok(event) => write(out, json, &event, || spelled(&event))?,
                Err(RecvError::Lagged(missed)) => {
                    write(out, json, &Line::Missed { events: missed }, || format!("{missed} events were too fast to show"))?;
                }
                Err(RecvError::Closed) => break,
            },
        }
    }
    write(out, json, &Line::Stopped, || "stopped".into())
}

/// The failure as `run` would have written it.
pub fn write_failure(failure: &Failure, json: bool, out: &mut impl Write) {
    // Nobody may be there to read it; the exit code says it too.
    let _ = write(out, json, &Line::Failed(failure), || format!("blf-devnet: {} ({})", failure.message, failure.code));
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let (exit, code) = match &error {
            Error::Bind { .. } => (5, "CANNOT_LISTEN"),
            Error::State(_) => (5, "STATE"),
            Error::StateVersion { .. } => (6, "STATE_VERSION"),
            Error::Random(_) => (5, "RANDOM"),
            Error::Issue(_) | Error::Key(_) | Error::Profile(_) | Error::Tls(_) => (1, "DEVELOPMENT_PKI"),
        };
        Self { exit, code, message: error.to_string() }
    }
}

/// A devnet that admits whoever booted the image of the manifest.
fn strict(args: &RunArgs) -> Result<(Options, Admits), Failure> {
    let manifest = args.manifest.as_ref().ok_or_else(|| usage("--manifest: wanted in strict mode"))?;
    let release = Release::parse(&read(manifest, RELEASE_CAP)?).map_err(|e| wrong(manifest, e))?;
    let measurement = release.measurement_id.clone();
    let mut appraisal = Appraisal::development(release).map_err(Failure::from)?;
    if let Some(path) = &args.policy {
        appraisal.policy = Policy::parse(&read(path, POLICY_CAP)?).map_err(|e| wrong(path, e))?;
    }
    let options = Options::new(Arc::new(appraisal)).map_err(Failure::from)?;
    Ok((options, Admits::Booted { measurement }))
}

/// A devnet that looks at no evidence.
fn legacy(args: &RunArgs) -> Result<(Options, Admits), Failure> {
    for (name, file) in [("--manifest", &args.manifest), ("--policy", &args.policy), ("--network", &args.network)] {
        if file.is_some() {
            return Err(usage(&format!("{name}: wanted in strict mode only")));
        }
    }
    let accept = match args.accept {
        AcceptArg::Anything => Accept::Anything,
        AcceptArg::StrictSignatures => Accept::Signatures,
    };
    let options = LegacyOptions { plain: args.plain, accept, ..LegacyOptions::default() };
    let options = Options::legacy(options).map_err(Failure::from)?;
    Ok((options, Admits::Anybody { mode: "legacy", plain: None }))
}

/// The whole of a file of at most `cap` bytes.
fn read(path: &Path, cap: usize) -> Result<Vec<u8>, Failure> {
    use std::io::Read as _;
    let cannot = |e: std::io::Error| wrong(path, e);
    let mut bytes = Vec::new();
    std::fs::File::open(path).map_err(cannot)?.take(cap as u64 + 1).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() > cap {
        return Err(wrong(path, format!("wanted at most {cap} bytes")));
    }
    Ok(bytes)
}

fn wrong(path: &Path, error: impl std::fmt::Display) -> Failure {
    Failure { exit: 6, code: "FILE", message: format!("{}: {error}", path.display()) }
}

fn usage(message: &str) -> Failure {
    Failure { exit: 2, code: "USAGE", message: message.into() }
}

fn cannot(path: &Path, error: impl std::fmt::Display) -> Failure {
    Failure { exit: 5, code: "CANNOT_WRITE", message: format!("{}: {error}", path.display()) }
}

/// The database in its folder, which is made for its owner alone.
fn state_file(folder: &Path) -> Result<PathBuf, Failure> {
    use std::os::unix::fs::DirBuilderExt as _;
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true).mode(0o700).create(folder).map_err(|e| cannot(folder, e))?;
    Ok(folder.join("devnet.sqlite"))
}

/// Writes the network document, whole or not at all, and the profile beside it.
fn write_network(running: &crate::Running, manifest: &Path, model: ModelName, path: &Path) -> Result<(), Failure> {
    let profile = path.with_file_name("devnet-profile.json");
    let release = std::path::absolute(manifest).map_err(|e| wrong(manifest, e))?;
    let network = running.network("devnet-profile.json", &release.to_string_lossy(), model);
    let network = json::canonical("network", &network).map_err(|e| cannot(path, e))?;
    std::fs::write(&profile, development::PROFILE).map_err(|e| cannot(&profile, e))?;
    let new = path.with_extension("new");
    std::fs::write(&new, network + "\n").map_err(|e| cannot(&new, e))?;
    std::fs::rename(&new, path).map_err(|e| cannot(path, e))
}

fn spelled(event: &Event) -> String {
    format!("{} {}", event.time.0, event.kind)
}

fn write(
    out: &mut impl Write,
    json: bool,
    line: &impl Serialize,
    text: impl FnOnce() -> String,
) -> Result<(), Failure> {
    let line = if json { serde_json::to_string(line).map_err(std::io::Error::other) } else { Ok(text()) };
    line.and_then(|line| {
        writeln!(out, "{line}")?;
        out.flush()
    })
    .map_err(|e| Failure { exit: 1, code: "STDOUT", message: format!("standard output: {e}") })
}
