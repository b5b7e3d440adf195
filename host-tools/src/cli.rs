//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueHint};
use clap_complete::Shell;

use crate::journal::Log;
use crate::settings::Flags;

/// Launch a node and carry its bytes: the operator's side, which nobody has to trust.
///
/// Exit codes: 0 ok, 1 failed, 2 usage, 3 rejected, 4 no verdict, 5 environment, 6 configuration.
#[derive(Clone, Parser, Debug)]
#[command(name = "blf-host", version, max_term_width = 100)]
pub struct Cli {
    /// Print JSON on stdout: one object, or one a line while launched.
    #[arg(long, global = true)]
    pub json: bool,
    /// Where what guests report about themselves is written down [default: auto]
    #[arg(long, global = true, value_enum)]
    pub log: Option<Log>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Clone, Subcommand, Debug)]
pub enum Command {
    /// Configure a node: makes its folder and file. No key is made: the guest is born with its own at every boot.
    Init(Box<InitArgs>),
    /// Run a configured node until Ctrl-C or SIGTERM, which drain it first; a second one does not wait.
    Run(Box<NodeArgs>),
    /// Say how a node stands: address, tier, models, evidence, certificate, ICL, jobs.
    Status(Named),
    /// Show the verdict on a node's evidence: of the running node, or else of one boot made for it.
    Attest(Box<AttestArgs>),
    /// Make, check and try model packs.
    #[command(subcommand, alias = "model")]
    Models(ModelsCommand),
    /// Ask the network's payment service for a node's jobs and earnings.
    #[command(subcommand)]
    Jobs(JobsCommand),
    /// Check and show a node's configuration.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Configure a node from a folder of the existing network's node, and say what became of each of its keys.
    Import(Box<ImportArgs>),
    /// Launch nodes from the command line alone: check the image, start VMs, appraise, open the tunnel.
    Launch(Box<LaunchArgs>),
    /// Say what this host has and lacks, and how to get it.
    Doctor {
        /// Folder of the image to try KVM with.
        #[arg(long, default_value = "out")]
        image: PathBuf,
    },
    /// Write the systemd unit and the user it runs as, and say what to do next.
    InstallUnits {
        /// Folder for the unit.
        #[arg(long, default_value = "/etc/systemd/system", value_hint = ValueHint::DirPath)]
        dir: PathBuf,
        /// Folder for the user `blf` that the unit runs as.
        #[arg(long, default_value = "/etc/sysusers.d", value_hint = ValueHint::DirPath)]
        sysusers: PathBuf,
        /// The blf-host that the service runs, where it can see it; by default this one.
        #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
        program: Option<PathBuf>,
    },
    /// Print completions for a shell.
    Completions {
        /// The shell.
        shell: Shell,
    },
    /// Print the manual pages of every command, one after another.
    Man {
        /// Write one file for each into this folder instead.
        #[arg(long, value_hint = ValueHint::DirPath)]
        dir: Option<PathBuf>,
    },
}

/// Which node.
#[derive(Clone, Args, Debug)]
pub struct Named {
    /// The node's name on this host.
    #[arg(long, default_value = "node", value_parser = name)]
    pub name: String,
}

/// Arguments of `run`.
#[derive(Clone, Args, Debug)]
pub struct NodeArgs {
    /// Which node.
    #[command(flatten)]
    pub node: Named,
    /// What holds over its configuration.
    #[command(flatten)]
    pub flags: Flags,
}

/// Arguments of `init`.
#[derive(Clone, Args, Debug)]
pub struct InitArgs {
    /// Which node.
    #[command(flatten)]
    pub node: Named,
    /// Ask nothing, even at a terminal.
    #[arg(long)]
    pub non_interactive: bool,
    /// What to write into its configuration.
    #[command(flatten)]
    pub flags: Flags,
}

/// Arguments of `import`.
#[derive(Clone, Args, Debug)]
pub struct ImportArgs {
    /// The existing node's folder, with config.json.
    #[arg(value_hint = ValueHint::DirPath)]
    pub folder: PathBuf,
    /// Which node.
    #[command(flatten)]
    pub node: Named,
    /// What to write into its configuration besides.
    #[command(flatten)]
    pub flags: Flags,
}

/// Arguments of `attest`.
#[derive(Clone, Args, Debug)]
pub struct AttestArgs {
    /// Which node.
    #[command(flatten)]
    pub node: Named,
    /// The existing node's flag; what makes evidence is measured here, and nothing is to be chosen.
    #[arg(long, hide = true)]
    pub mock: bool,
    /// The existing node's flag; see `--mock`.
    #[arg(long, hide = true, value_name = "KEY")]
    pub tee_key: Option<String>,
    /// What holds over its configuration.
    #[command(flatten)]
    pub flags: Flags,
}

/// Arguments of `launch`.
#[derive(Clone, Args, Debug)]
pub struct LaunchArgs {
    /// How many nodes to start.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=16))]
    pub nodes: u8,
    /// What the nodes are called: NAME-1, NAME-2, …
    #[arg(long, default_value = "node", value_parser = name)]
    pub name: String,
    /// What they are like.
    #[command(flatten)]
    pub flags: Flags,
}

/// What to do with models.
#[derive(Clone, Subcommand, Debug)]
pub enum ModelsCommand {
    /// Say which model pack each configured node gives its guest, and whether it is whole.
    List,
    /// Check every byte of a node's model pack, boot a guest with it, and see that its evidence names this model.
    Test {
        /// Which node.
        #[command(flatten)]
        node: Named,
        /// Check the pack only.
        #[arg(long)]
        no_boot: bool,
        /// What holds over its configuration.
        #[command(flatten)]
        flags: Box<Flags>,
    },
    /// Make one file of a model's four, with a manifest that is the model's identity.
    Pack {
        /// The model's name in assignments: a-z, 0-9, '.', '-'.
        #[arg(long)]
        id: String,
        /// Folder with config.json, tokenizer.json, template.txt and model.safetensors.
        #[arg(long)]
        dir: PathBuf,
        /// Where the pack goes.
        #[arg(long)]
        out: PathBuf,
        /// Longest prompt and answer together in tokens; max_position_embeddings if not given.
        #[arg(long)]
        max_context: Option<u32>,
        /// Longest answer in tokens; half of the context if not given.
        #[arg(long)]
        max_new_tokens: Option<u32>,
        /// Token that ends an answer, may be repeated; eos_token_id if not given.
        #[arg(long)]
        eos: Vec<u32>,
    },
    /// Check every byte of a pack and say what is in it.
    Show {
        /// The pack.
        file: PathBuf,
    },
}

/// What to ask the payment service.
#[derive(Clone, Subcommand, Debug)]
pub enum JobsCommand {
    /// The newest jobs.
    List {
        /// Whose.
        #[command(flatten)]
        whose: Whose,
        /// How many.
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u8).range(1..=100))]
        limit: u8,
    },
    /// The sum of what was earned.
    Earnings {
        /// Whose.
        #[command(flatten)]
        whose: Whose,
    },
}

/// Whose jobs.
#[derive(Clone, Args, Debug)]
pub struct Whose {
    /// Which node.
    #[command(flatten)]
    pub node: Named,
    /// This address instead of the node's own, 0x and 40 hex digits with the EIP-55 checksum.
    #[arg(long)]
    pub address: Option<String>,
    /// Also the addresses of the node's earlier boots: each boot is born with a new one.
    #[arg(long, conflicts_with = "address")]
    pub all: bool,
    /// The network's payment service: https://HOST, or http:// on this machine.
    #[arg(long, value_name = "URL", value_hint = ValueHint::Url)]
    pub payment_service_url: Option<String>,
    /// PEM file with the roots to believe for the payment service instead of the machine's.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub payment_roots: Option<PathBuf>,
}

/// What to do with a configuration.
#[derive(Clone, Subcommand, Debug)]
pub enum ConfigCommand {
    /// Check everything that can be checked without starting anything.
    Check {
        /// Which node.
        #[command(flatten)]
        node: Named,
    },
    /// Show every value.
    Show {
        /// Which node.
        #[command(flatten)]
        node: Named,
        /// And where it comes from: default, file and line, environment, flag.
        #[arg(long)]
        origin: bool,
    },
}

/// A name that leaves room for a number within the 64 characters of the public configuration.
fn name(text: &str) -> Result<String, String> {
    let plain = text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'));
    if (1..=48).contains(&text.len()) && plain {
        return Ok(text.into());
    }
    Err("wanted 1 to 48 characters of [a-z0-9-]".into())
}
