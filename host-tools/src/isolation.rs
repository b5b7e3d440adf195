//! What isolation this host really has, found by doing: an openable `/dev/kvm` proves nothing, so the image itself is
//! booted under KVM, and only a guest that reaches its agent counts.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use blf_evidence::Hex;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use tokio::process::Command;
use tokio::time::{interval, timeout};

use crate::error::Error;
use crate::folders;
use crate::node;
use crate::programs::Programs;
use crate::release::Image;
use crate::vm::{Accel, Transport, Vm, VmSpec};

/// The hardware isolation that the operator asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub enum Tee {
    /// None: the operator can read everything.
    None,
    /// AMD SEV-SNP.
    Snp,
    /// Intel TDX.
    Tdx,
    /// The best this release can start here.
    #[default]
    Auto,
}

/// What executes the guest, as the operator asks for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub enum AccelChoice {
    /// KVM if the image really boots under it, else TCG.
    #[default]
    Auto,
    /// KVM, whatever comes of it.
    Kvm,
    /// QEMU's translator.
    Tcg,
}

/// What a VM of this host runs under.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Isolation {
    /// What executes the guest.
    pub accel: Accel,
    /// Why this one, one clause.
    pub why: String,
}

/// How to find out whether KVM works here.
pub struct Probe<'a> {
    /// The programs to boot with.
    pub programs: &'a Programs,
    /// How vsock reaches the host.
    pub transport: &'a Transport,
    /// The image to boot.
    pub image: &'a Path,
    /// Its SHA-256.
    pub image_sha256: Hex<32>,
    /// The KVM device.
    pub device: &'a Path,
    /// Where the result is kept.
    pub cache: PathBuf,
    /// Where run folders go; `None` for the default.
    pub run_base: Option<&'a Path>,
    /// How long a boot may take until the agent's first connection.
    pub within: Duration,
}

/// The KVM device of every Linux.
pub const KVM: &str = "/dev/kvm";
/// For a boot under KVM; it takes about two seconds where KVM works.
pub const PROBE: Duration = Duration::from_secs(20);

/// Memory of the probing VM in MiB: enough for the agent to start, not for a model.
const PROBE_MEMORY: u32 = 256;

/// Refuses the isolation that this release cannot start, before anything else happens.
///
/// # Errors
/// An environment error for [`Tee::Snp`] and [`Tee::Tdx`]: without measured firmware a VM under them would prove nothing
/// about the image, and nothing may look like tier 2 without being it.
pub fn check_tee(tee: Tee) -> Result<(), Error> {
    let name = match tee {
        Tee::None | Tee::Auto => return Ok(()),
        Tee::Snp => "SEV-SNP",
        Tee::Tdx => "TDX",
    };
    Err(Error::environment("TEE_NOT_YET", format!("--tee: wanted {name}; the measured firmware it needs comes with a later release, so this one starts no confidential VM"
    ))
    .hint("use --tee none for a development node that is not confidential (tier 0)"))
}

impl Isolation {
    /// What it protects and what not, in one sentence.
    pub fn sentence(&self) -> String {
        let boundary = match self.accel {
            Accel::Kvm => "KVM keeps the guest away from this machine",
            Accel::Tcg => "QEMU's translator keeps the guest away from this machine, slowly",
        };
        format!(
            "NOT CONFIDENTIAL (tier 0): {boundary}, but nothing keeps this machine away from the guest: \
             its operator can read everything, prompts and answers included"
        )
    }

    /// Chooses: what was asked for, or what the probe finds.
    ///
    /// # Errors
    /// Those of starting the probing VM; a guest that does not come up under KVM is a result, not an error.
    pub async fn choose(choice: AccelChoice, probe: &Probe<'_>) -> Result<Self, Error> {
        match choice {
            AccelChoice::Kvm => Ok(Self { accel: Accel::Kvm, why: "asked for with --accel kvm".into() }),
            AccelChoice::Tcg => Ok(Self { accel: Accel::Tcg, why: "asked for with --accel tcg".into() }),
            AccelChoice::Auto => probe.run().await,
        }
    }
}

/// What was found, and under which circumstances.
#[derive(PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Found {
    boot_id: String,
    qemu: String,
    image_sha256: Hex<32>,
    accel: Accel,
    why: String,
}

/// Why the image did not come up.
enum NotBooted {
    /// It was seen to fail.
    Failed(String),
    /// Nothing was seen in time: perhaps the machine was busy.
    Silent(String),
}

impl<'a> Probe<'a> {
    /// The usual one, of this machine's KVM.
    pub fn of_this_machine(
        programs: &'a Programs,
        transport: &'a Transport,
        image: &'a Image,
        run_base: Option<&'a Path>,
    ) -> Self {
        Self {
            programs,
            transport,
            image: image.boots(),
            image_sha256: image.sha256,
            device: Path::new(KVM),
            cache: folders::cache(),
            run_base,
            within: PROBE,
        }
    }
}

impl Probe<'_> {
    /// The result of an earlier probe under the same circumstances, or of a new one.
    async fn run(&self) -> Result<Isolation, Error> {
        if let Err(e) = fs::OpenOptions::new().read(true).write(true).open(self.device) {
            return Ok(Isolation {
                accel: Accel::Tcg,
                why: format!("{} cannot be opened: {e}", self.device.display()),
            });
        }
        let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned();
        let qemu = qemu_version(&self.programs.qemu).await?;
        if let Some(found) = self.recall(&boot_id, &qemu) {
            return Ok(Isolation { accel: found.accel, why: format!("{} (found earlier)", found.why) });
        }
        let failed = |why| format!("{} opens, but the image does not boot under it: {why}", self.device.display());
        let (accel, why) = match self.boot().await? {
            Ok(()) => (Accel::Kvm, "the image boots under KVM".to_owned()),
            Err(NotBooted::Failed(why)) => (Accel::Tcg, failed(why)),
            // No result to keep: the next launch may find the machine less busy.
            Err(NotBooted::Silent(why)) => return Ok(Isolation { accel: Accel::Tcg, why: failed(why) }),
        };
        self.keep(&Found { boot_id, qemu, image_sha256: self.image_sha256, accel, why: why.clone() });
        Ok(Isolation { accel, why })
    }

    /// Boots the image under KVM until its agent connects. The inner error says why it did not.
    async fn boot(&self) -> Result<Result<(), NotBooted>, Error> {
        let spec = VmSpec {
            name: format!("probe-{}", std::process::id()),
            image: self.image.to_owned(),
            model: None,
            memory_mib: PROBE_MEMORY,
            cpus: 1,
            accel: Accel::Kvm,
        };
        let (mut vm, mut listeners) = Vm::start(&spec, self.programs, self.transport, self.run_base).await?;
        let boot = async {
            let mut tick = interval(Duration::from_secs(1));
            loop {
                tokio::select! {
                    connected = listeners.documents.accept() => return connected.map(drop).map_err(|e| e.to_string()),
                    connected = listeners.telemetry.accept() => return connected.map(drop).map_err(|e| e.to_string()),
                    ended = vm.ended() => return Err(match ended {
                        Ok(()) => "the guest ended before its agent started".into(),
                        Err(error) => error.message,
                    }),
                    _ = tick.tick() => {
                        // KVM's "emulation failure" stops the VM and leaves QEMU running.
                        if let Some(status @ ("internal-error" | "guest-panicked")) = vm.status().await.as_deref() {
                            return Err(format!("QEMU reports {status}"));
                        }
                    }
                }
            }
        };
        let booted = match timeout(self.within, boot).await {
            Ok(booted) => booted.map_err(NotBooted::Failed),
            Err(_) => Err(NotBooted::Silent(format!("no word from its agent within {} s", self.within.as_secs_f32()))),
        };
        vm.stop(Duration::ZERO).await;
        Ok(booted)
    }

    fn recall(&self, boot_id: &str, qemu: &str) -> Option<Found> {
        let found: Found = serde_json::from_slice(&fs::read(self.file()).ok()?).ok()?;
        let same = found.boot_id == boot_id && found.qemu == qemu && found.image_sha256 == self.image_sha256;
        same.then_some(found)
    }

    /// Keeps a result. One that cannot be kept is found again next time.
    fn keep(&self, found: &Found) {
        let write = || -> std::io::Result<()> {
            fs::create_dir_all(&self.cache)?;
            node::write(&self.file(), &serde_json::to_vec(found)?, 0o600, true)
        };
        if let Err(error) = write() {
            tracing::warn!(%error, "cannot keep the result of the KVM probe");
        }
    }

    fn file(&self) -> PathBuf {
        self.cache.join("isolation.json")
    }
}

/// The first line of `qemu --version`.
///
/// # Errors
/// An environment error if it cannot be run.
pub async fn qemu_version(qemu: &Path) -> Result<String, Error> {
    let output =
        timeout(Duration::from_secs(10), Command::new(qemu).arg("--version").kill_on_drop(true).output()).await;
    let cannot = |e: &dyn std::fmt::Display| {
        Error::environment("PROGRAM", format!("cannot run {} --version: {e}", qemu.display()))
    };
    let output = output.map_err(|e| cannot(&e))?.map_err(|e| cannot(&e))?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().next().unwrap_or_default().chars().take(200).collect())
}
