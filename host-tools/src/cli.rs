//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

use crate::isolation::{AccelChoice, Tee};
use crate::journal::Log;

/// Launch a node and carry its bytes: the operator's side, which nobody has to trust.
///
/// Exit codes: 0 ok, 1 failed, 2 usage, 3 rejected, 4 no verdict, 5 environment, 6 configuration.
#[derive(Clone, Parser, Debug)]
#[command(name = "blf-host", version, max_term_width = 100)]
pub struct Cli {
    /// Print JSON on stdout: one object, or one a line while launched.
    #[arg(long, global = true)]
    pub json: bool,
    /// Where what guests report about themselves is written down.
    #[arg(long, global = true, value_enum, default_value_t)]
    pub log: Log,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Clone, Subcommand, Debug)]
pub enum Command {
    /// Check the image, start the VM, appraise its evidence, open the tunnel, show what happens until Ctrl-C.
    Launch(Box<LaunchArgs>),
    /// Make and look at model packs.
    #[command(subcommand)]
    Model(ModelCommand),
    /// Say what this host has and lacks, and how to get it.
    Doctor {
        /// Folder of the image to try KVM with.
        #[arg(long, default_value = "out")]
        image: PathBuf,
    },
    /// Print completions for a shell.
    Completions {
        /// The shell.
        shell: Shell,
    },
    /// Print the manual page.
    Man,
}

/// Arguments of `launch`.
#[derive(Clone, Args, Debug)]
pub struct LaunchArgs {
    /// Folder with the image and its release manifest.
    #[arg(long, default_value = "out")]
    pub image: PathBuf,
    /// Model pack to give to the guests.
    #[arg(long)]
    pub model: Option<PathBuf>,
    /// Network profile: the one compiled into the image. Not needed for images of the devnet profile.
    #[arg(long, conflicts_with = "devnet")]
    pub profile: Option<PathBuf>,
    /// Run a local network in this process: ICL and blob store with development keys.
    #[arg(long)]
    pub devnet: bool,
    /// Hardware isolation.
    #[arg(long, value_enum, default_value_t)]
    pub tee: Tee,
    /// What executes the guests.
    #[arg(long, value_enum, default_value_t)]
    pub accel: AccelChoice,
    /// How many nodes to start.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=16))]
    pub nodes: u8,
    /// What the nodes are called: NAME-1, NAME-2, …
    #[arg(long, default_value = "node", value_parser = name)]
    pub name: String,
    /// Memory of each guest in MiB.
    #[arg(long, value_name = "MIB", default_value_t = 512, value_parser = clap::value_parser!(u32).range(192..=1_048_576))]
    pub memory: u32,
    /// Virtual processors of each guest.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=64))]
    pub cpus: u8,
    /// Jobs side by side in each guest.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=2))]
    pub max_jobs: u8,
    /// File with the credentials the guests need, mode 0600. Not needed with --devnet.
    #[arg(long, conflicts_with = "devnet")]
    pub credentials: Option<PathBuf>,
    /// File with one opaque document that the guests staple to their evidence.
    #[arg(long)]
    pub endorsements: Option<PathBuf>,
    /// A name of the profile that answers at another address than DNS says; may be repeated.
    #[arg(long, value_name = "NAME:PORT=ADDRESS:PORT")]
    pub resolve: Vec<String>,
    /// Lead connections to this address into the guest's attested API, e.g. 127.0.0.1:7443; without it nobody gets in. Each
    /// further node has the next port.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub api: Option<SocketAddr>,
    /// Seconds a guest may take until its evidence.
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    pub boot_timeout: u64,
    /// Seconds a guest may take to finish its jobs after Ctrl-C; a second Ctrl-C does not wait.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub stop_timeout: u64,
    /// Where sockets and locks of running VMs go.
    #[arg(long, value_name = "DIR")]
    pub run_dir: Option<PathBuf>,
}

/// What to do with model packs.
#[derive(Clone, Subcommand, Debug)]
pub enum ModelCommand {
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

/// A name that leaves room for a number within the 64 characters of the public configuration.
fn name(text: &str) -> Result<String, String> {
    let plain = text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'));
    if (1..=48).contains(&text.len()) && plain {
        return Ok(text.into());
    }
    Err("wanted 1 to 48 characters of [a-z0-9-]".into())
}
