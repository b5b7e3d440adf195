//! The command line.

use std::path::PathBuf;

use blf_appraisal::policy::Head;
use blf_evidence::network::ModelName;
use blf_evidence::{Address, UnixTime};
use clap::builder::PossibleValuesParser;
use clap::{Args, Parser, Subcommand, ValueHint};

/// Know what a node is before you rely on it, and ask it what only you may read.
///
/// Exit codes: 0 ok, 1 failed, 2 usage, 3 rejected, 4 no verdict, 5 this machine or network cannot, 6 a file is wrong.
#[derive(Parser)]
#[command(name = "blf", version, propagate_version = true)]
pub struct Cli {
    /// One JSON object on stdout, for success and failure alike; nothing else.
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Subcommand)]
pub enum Command {
    /// Ask the network one prompt that only the appraised nodes and you can read.
    Ask(AskArgs),
    /// Appraise a file of evidence, or a node that is asked for it: genuine? wanted?
    Verify(Box<VerifyArgs>),
    /// Print any file of evidence, endorsements or reference values field by field; vouches for nothing.
    Show(ShowArgs),
    /// Predict the measurements of an image and write or check its release manifest.
    Measure(MeasureArgs),
    /// Print a completion script for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Print the manual page, or that of one command.
    Man {
        /// The command.
        #[arg(value_parser = ["ask", "verify", "show", "measure", "completions", "man"])]
        of: Option<String>,
    },
}

/// `blf ask`
#[derive(Args)]
pub struct AskArgs {
    /// The prompt, or `-` to read it from standard input, where no process list shows it.
    pub prompt: String,
    /// How to reach the network; a local devnet writes this file when it starts.
    #[arg(long, value_name = "FILE", env = "BLF_NETWORK", value_hint = ValueHint::FilePath)]
    pub network: Option<PathBuf>,
    /// Appraisal policy: a file, or confidential, devnet or released; by default the one that fits the network. It must not
    /// limit the age of a block (anchor_age_blocks).
    #[arg(long, value_name = "FILE|NAME", value_hint = ValueHint::FilePath)]
    pub policy: Option<PathBuf>,
    /// The model: its id, or with the digest of its manifest for these weights and no others of that id, as `blf-host models
    /// show` prints both; the network file names the default.
    #[arg(long, value_name = "ID[@MANIFEST_SHA256]")]
    pub model: Option<ModelName>,
    /// Verifiers beside the leader, 0 to 5.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=5))]
    pub verifiers: u8,
    /// Nodes that may replace a member before it claims, 0 to 2.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=2))]
    pub spares: u8,
    /// Most tokens to generate.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub max_new_tokens: u32,
    /// Give up after this many seconds, whatever is going on; those of --wait-for-quorum come on top.
    #[arg(long, default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub timeout: u64,
    /// Keep each node's evidence in this folder, and say how to verify it again (with --json: where, nonce, audience, time).
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub keep_evidence: Option<PathBuf>,
    /// Wait this many seconds until the network has nodes enough.
    #[arg(long, value_name = "SECONDS", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=3600))]
    pub wait_for_quorum: u64,
    /// File with the user's account key, 64 hex digits, mode 0600; a fresh account is made without it.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub key: Option<PathBuf>,
}

/// `blf verify`
#[derive(Args)]
pub struct VerifyArgs {
    /// File with the evidence (`blf.evidence/v1`); or the account of a node (0x…), which is asked through the network's ICL;
    /// or https://HOST:PORT of a node's attested API, which is asked in a session that must end at the key named in the
    /// evidence. No certificate authority is believed.
    #[arg(value_name = "FILE|ADDRESS|URL", value_hint = ValueHint::FilePath)]
    pub target: String,
    /// The network whose release, roots and profile are believed. A file or URL needs none if --references is given; one that
    /// is named all the same gives its roots and the default policy.
    #[arg(long, value_name = "FILE", env = "BLF_NETWORK", value_hint = ValueHint::FilePath)]
    pub network: Option<PathBuf>,
    /// Appraisal policy: a file, or confidential, devnet or released; by default the one that fits the network, and
    /// confidential without one.
    #[arg(long, value_name = "FILE|NAME", value_hint = ValueHint::FilePath)]
    pub policy: Option<PathBuf>,
    /// Reference Values (`blf.references/v1`) instead of the network's release.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub references: Option<PathBuf>,
    /// The node whose evidence a file or URL must give.
    #[arg(long, value_name = "ADDRESS")]
    pub node: Option<Address>,
    /// The nonce the evidence must answer, 64 hex digits. A node is asked with a random one without it.
    #[arg(long)]
    pub nonce: Option<String>,
    /// The audience the evidence must name. A node is asked with a random account without it.
    #[arg(long)]
    pub audience: Option<String>,
    /// What the evidence must be for.
    #[arg(long, default_value = "preview", value_parser = ["admission", "ionet", "preview", "session"])]
    pub purpose: String,
    /// The newest block you know of the chain, by which the evidence's anchor is dated; wants a policy that limits its age.
    #[arg(long, value_name = "CHAIN_ID:NUMBER", value_parser = head)]
    pub head: Option<Head>,
    /// Judge a file as of this time instead of now: Unix seconds, or UTC as 2026-11-21T12:00:00Z.
    #[arg(long, value_name = "TIME", value_parser = crate::time::parse)]
    pub at: Option<UnixTime>,
    /// File with the account that asks an ICL, 64 hex digits, mode 0600; a fresh account is made without it.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub key: Option<PathBuf>,
    /// A line for every check instead of one for each group.
    #[arg(long)]
    pub verbose: bool,
}

impl VerifyArgs {
    /// Those of `blf verify TARGET`.
    pub fn new(target: impl Into<String>) -> Self {
        Self {
            target: target.into(),
            network: None,
            policy: None,
            references: None,
            node: None,
            nonce: None,
            audience: None,
            purpose: "preview".into(),
            head: None,
            at: None,
            key: None,
            verbose: false,
        }
    }
}

/// `blf show`
#[derive(Args)]
pub struct ShowArgs {
    /// The file; what it is is told by its content.
    #[arg(value_hint = ValueHint::FilePath, required_unless_present = "policy")]
    pub file: Option<PathBuf>,
    /// Read the file as this instead.
    #[arg(long, value_parser = PossibleValuesParser::new(crate::show::kinds()))]
    pub kind: Option<String>,
    /// Print a policy that needs no file instead.
    #[arg(long, value_name = "NAME", num_args = 0..=1, default_missing_value = "devnet", conflicts_with_all = ["file", "kind"],
          value_parser = ["confidential", "devnet", "released"])]
    pub policy: Option<String>,
}

/// `blf measure`
#[derive(Args)]
pub struct MeasureArgs {
    /// The unified kernel image.
    #[arg(long, value_name = "UKI", value_hint = ValueHint::FilePath)]
    pub image: PathBuf,
    /// What it was built from, as `image/build` wrote it.
    #[arg(long, value_name = "FILE", requires_all = ["manifest", "profile"], value_hint = ValueHint::FilePath)]
    pub inputs: Option<PathBuf>,
    /// The network profile inside the image.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub profile: Option<PathBuf>,
    /// Write the release manifest here.
    #[arg(long, value_name = "FILE", requires = "inputs", value_hint = ValueHint::FilePath)]
    pub manifest: Option<PathBuf>,
    /// Compare with this release manifest instead.
    #[arg(long, value_name = "FILE", conflicts_with = "manifest", value_hint = ValueHint::FilePath)]
    pub check: Option<PathBuf>,
    /// Write the Reference Values (`blf.references/v1`) of this one image here, if it is the manifest's.
    #[arg(long, value_name = "FILE", requires = "check", value_hint = ValueHint::FilePath)]
    pub references: Option<PathBuf>,
}

/// A block as the command line names it.
fn head(text: &str) -> Result<Head, String> {
    let numbers = text.split_once(':').and_then(|(chain, block)| Some((chain.parse().ok()?, block.parse().ok()?)));
    let (chain_id, block_number) = numbers.ok_or("wanted CHAIN_ID:NUMBER, e.g. 421614:98765432")?;
    Ok(Head { block_number, chain_id })
}
