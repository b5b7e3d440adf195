//! The keys as flags of the command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, ValueHint};

use super::spelled;
use crate::isolation::{AccelChoice, Tee};
use crate::journal::{Level, Log};

/// The keys as flags.
#[derive(Clone, Args, Debug, Default)]
pub struct Flags {
    /// Folder with the image and its release manifest [default: out]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub image: Option<PathBuf>,
    /// Model pack to give to the guests.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub model: Option<PathBuf>,
    /// Run a local network in this process: ICL and blob store with development keys.
    #[arg(long)]
    pub devnet: bool,
    /// Network profile: the one compiled into the image. Not needed for images of the devnet profile.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with = "devnet")]
    pub profile: Option<PathBuf>,
    /// Hardware isolation [default: auto]
    #[arg(long, value_enum)]
    pub tee: Option<Tee>,
    /// What executes the guests [default: auto]
    #[arg(long, value_enum)]
    pub accel: Option<AccelChoice>,
    /// Memory of each guest in MiB [default: 512]
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u32).range(192..=1_048_576))]
    pub memory: Option<u32>,
    /// Virtual processors of each guest [default: 2]
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=64))]
    pub cpus: Option<u8>,
    /// Jobs side by side in each guest [default: 2]
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=2))]
    pub max_jobs: Option<u8>,
    /// File with the credentials the guests need, mode 0600. Not needed with --devnet.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with = "devnet")]
    pub credentials: Option<PathBuf>,
    /// File with one opaque document that the guests staple to their evidence.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub endorsements: Option<PathBuf>,
    /// A name of the profile that answers at another address than DNS says; may be repeated.
    #[arg(long, value_name = "NAME:PORT=ADDRESS:PORT")]
    pub resolve: Vec<String>,
    /// Lead connections to this address into the guest's attested API, e.g. 127.0.0.1:7443; without it nobody gets in. Each
    /// further node has the next port.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub api: Option<SocketAddr>,
    /// Seconds a guest may take until its evidence [default: 300]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub boot_timeout: Option<u64>,
    /// Seconds a guest may take to finish its jobs after Ctrl-C; a second Ctrl-C does not wait [default: 390]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(0..=3600))]
    pub stop_timeout: Option<u64>,
    /// Where sockets and locks of running VMs go.
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub run_dir: Option<PathBuf>,
    /// The network's payment service: https://HOST, or http:// on this machine.
    #[arg(long, value_name = "URL", value_hint = ValueHint::Url)]
    pub payment_service_url: Option<String>,
    /// PEM file with the roots to believe for the payment service instead of the machine's.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub payment_roots: Option<PathBuf>,
    /// Least level of the log [default: info]
    #[arg(long, value_enum, ignore_case = true)]
    pub log_level: Option<Level>,
}

impl Flags {
    /// Every key with what a flag says of it.
    pub(super) fn given(&self, log: Option<Log>) -> [(&'static str, Option<String>); 20] {
        let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
        let number = |number: Option<u64>| number.map(|number| number.to_string());
        [
            ("image", path(&self.image)),
            ("model", path(&self.model)),
            ("devnet", self.devnet.then(|| "true".into())),
            ("profile", path(&self.profile)),
            ("tee", self.tee.map(spelled)),
            ("accel", self.accel.map(spelled)),
            ("memory", number(self.memory.map(u64::from))),
            ("cpus", number(self.cpus.map(u64::from))),
            ("max_jobs", number(self.max_jobs.map(u64::from))),
            ("credentials", path(&self.credentials)),
            ("endorsements", path(&self.endorsements)),
            ("resolve", Some(self.resolve.join(",")).filter(|text| !text.is_empty())),
            ("api", self.api.map(|address| address.to_string())),
            ("boot_timeout", number(self.boot_timeout)),
            ("stop_timeout", number(self.stop_timeout)),
            ("run_dir", path(&self.run_dir)),
            ("payment_service_url", self.payment_service_url.clone()),
            ("payment_roots", path(&self.payment_roots)),
            ("log", log.map(spelled)),
            ("log_level", self.log_level.map(spelled)),
        ]
    }
}
