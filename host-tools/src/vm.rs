//! One VM: QEMU, a software TPM beside it, and where the kernel lacks vhost-vsock a process that carries vsock.
//! Every process is owned here, awaited, and ends with us.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use blf_evidence::tunnel::{PORT_DIAL, PORT_DOCUMENTS, PORT_TELEMETRY};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::time::{Instant, sleep, timeout};

use crate::child::{Child, Output};
use crate::error::Error;
use crate::folders::RunFolder;
use crate::programs::{INSTALL_VSOCK, Programs};
use crate::qmp::Qmp;
use crate::vsock::{Dialer, Kernel, Listener, VHOST_VSOCK};

/// What executes the guest's instructions.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accel {
    /// The processor, under the kernel's supervision.
    Kvm,
    /// QEMU's translator: slow, works everywhere.
    Tcg,
}

/// What to start.
#[derive(Clone, Debug)]
pub struct VmSpec {
    /// Name of the VM, `[a-z0-9-]`.
    pub name: String,
    /// The unified kernel image.
    pub image: PathBuf,
    /// The model pack, given to the guest as a read-only disk.
    pub model: Option<PathBuf>,
    /// Guest memory.
    pub memory_mib: u32,
    /// Virtual processors.
    pub cpus: u8,
    /// What executes the guest.
    pub accel: Accel,
}

/// How vsock reaches the host.
#[derive(Clone)]
pub enum Transport {
    /// The kernel's vhost-vsock.
    Kernel(Arc<Kernel>),
    /// A `vhost-device-vsock` process for each VM.
    User,
}

/// Where a guest's connections arrive, and how it is reached.
pub struct Listeners {
    /// Port 5005.
    pub documents: Listener,
    /// Port 5006.
    pub telemetry: Listener,
    /// Port 5007.
    pub dials: Listener,
    /// To its port 5008.
    pub inbound: Dialer,
}

/// A running VM.
pub struct Vm {
    qemu: Child,
    /// In the order in which they stop after QEMU.
    helpers: Vec<Child>,
    folder: RunFolder,
}

/// For a helper process to make its socket.
const HELPER_READY: Duration = Duration::from_secs(10);
/// For a process to end after it was told to.
const GRACE: Duration = Duration::from_secs(3);

impl Transport {
    /// The kernel's where it can be opened and nobody else listens, else a process of our own.
    ///
    /// # Errors
    /// An environment error if neither is there.
    pub fn find(programs: &Programs) -> Result<Self, Error> {
        let opened = fs::OpenOptions::new().read(true).write(true).open(VHOST_VSOCK);
        let kernel = opened.and_then(|_| Kernel::bind(&[PORT_DOCUMENTS, PORT_TELEMETRY, PORT_DIAL]));
        match (kernel, &programs.vsock) {
            (Ok(kernel), _) => Ok(Self::Kernel(Arc::new(kernel))),
            (Err(_), Some(_)) => Ok(Self::User),
            (Err(e), None) => Err(Error::environment(
                "VSOCK_MISSING",
                format!("wanted {VHOST_VSOCK} ({e}) or the program vhost-device-vsock, got neither"),
            )
            .hint(format!("modprobe vhost_vsock, or: {INSTALL_VSOCK}"))),
        }
    }

    /// Its name for people.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Kernel(_) => "vhost-vsock of the kernel",
            Self::User => "vhost-device-vsock, a process of its own",
        }
    }
}

impl Vm {
    /// Starts a VM. What its guest sends arrives at the returned listeners.
    ///
    /// # Errors
    /// An environment error for what this host lacks; a failure with the last words of a process that ended.
    pub async fn start(
        spec: &VmSpec,
        programs: &Programs,
        transport: &Transport,
        run_base: Option<&Path>,
    ) -> Result<(Self, Listeners), Error> {
        let folder = RunFolder::create(run_base, &spec.name)?;
        let dir = folder.path().to_owned();
        let cid = random_cid()?;
        let listeners = listeners(transport, &dir, cid).map_err(|e| {
            Error::environment("LISTEN", format!("cannot listen for the guest in {}: {e}", dir.display()))
        })?;

        let mut helpers = Vec::new();
        if matches!(transport, Transport::User) {
            let daemon = programs.vsock.as_deref().ok_or_else(|| {
                Error::environment("PROGRAM_MISSING", "wanted the program vhost-device-vsock, it is not in PATH")
                    .hint(INSTALL_VSOCK)
            })?;
            let socket = dir.join("vhost");
            let vm = format!("guest-cid={cid},uds-path={},socket={}", dir.join("v").display(), socket.display());
            let mut child = Child::start("vhost-device-vsock", &programs.setpriv, daemon, ["--vm", vm.as_str()])?;
            ready(&mut child, &socket).await?;
            helpers.push(child);
        }
        let (state, socket) = (dir.join("tpm"), dir.join("tpm.sock"));
        fs::create_dir(&state).map_err(|e| Error::environment("RUN_FOLDER", format!("{}: {e}", state.display())))?;
        let (state, control) =
            (format!("dir={}", state.display()), format!("type=unixio,path={},mode=0600", socket.display()));
        let arguments = ["socket", "--tpm2", "--tpmstate", &state, "--ctrl", &control, "--flags", "startup-clear"];
        let mut tpm = Child::start("swtpm", &programs.setpriv, &programs.swtpm, arguments)?;
        ready(&mut tpm, &socket).await?;
        helpers.push(tpm);

        let arguments = qemu_arguments(spec, programs, transport, &dir, cid);
        let qemu = Child::start("qemu", &programs.setpriv, &programs.qemu, arguments)?;
        Ok((Self { qemu, helpers, folder }, listeners))
    }

    /// What the guest wrote to its serial console: text of a stranger, empty in production.
    pub fn console(&self) -> &Output {
        &self.qemu.stdout
    }

    /// What QEMU had to say.
    pub fn words(&self) -> &Output {
        &self.qemu.stderr
    }

    /// QEMU's `RunState`, or `None` if it does not answer.
    pub async fn status(&self) -> Option<String> {
        Qmp::connect(&self.qmp()).await.ok()?.status().await.ok()
    }

    /// Waits until QEMU ends, or a process it needs does.
    ///
    /// # Errors
    /// A failure with the last words of the helper that ended, or of QEMU if it did not end well.
    pub async fn ended(&mut self) -> Result<(), Error> {
        let helpers = async |helpers: &mut [Child]| loop {
            for helper in helpers.iter_mut() {
                if let Ok(Some(status)) = helper.ended() {
                    return helper.died(status);
                }
            }
            sleep(Duration::from_millis(500)).await;
        };
        let status = tokio::select! {
            status = self.qemu.wait() => status,
            error = helpers(&mut self.helpers) => {
                // The TPM ends when QEMU does; give QEMU the first word.
                match timeout(GRACE, self.qemu.wait()).await {
                    Ok(status) => status,
                    Err(_) => return Err(error),
                }
            }
        };
        match status {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(self.qemu.died(status)),
            Err(e) => Err(Error::failed("PROGRAM_ENDED", format!("qemu: {e}"))),
        }
    }

    /// Waits `within` for the guest to power off, then ends QEMU, then its helpers. True if the guest ended by itself and
    /// QEMU well.
    pub async fn stop(mut self, within: Duration) -> bool {
        let orderly = matches!(timeout(within, self.qemu.wait()).await, Ok(Ok(status)) if status.success());
        if !orderly {
            let quit = async { Qmp::connect(&self.qmp()).await?.quit().await };
            if quit.await.is_err() || timeout(GRACE, self.qemu.wait()).await.is_err() {
                self.qemu.stop(GRACE).await;
            }
        }
        for helper in &mut self.helpers {
            helper.stop(GRACE).await;
        }
        orderly
    }

    fn qmp(&self) -> PathBuf {
        self.folder.path().join("qmp")
    }
}

/// QEMU's arguments: what is named here is all the guest gets.
fn qemu_arguments(spec: &VmSpec, programs: &Programs, transport: &Transport, dir: &Path, cid: u32) -> Vec<String> {
    let socket = |name: &str| dir.join(name).display().to_string().replace(',', ",,");
    let memory = format!("{}M", spec.memory_mib);
    let (accel, cpu) = match spec.accel {
        Accel::Kvm => ("kvm", "host"),
        // The processors take turns. With a thread for each, a guest was once seen to panic where its kernel patches its own
        // code while the others run it (the static branch of sched_clock_cpu); booting costs the same processor time.
        Accel::Tcg => ("tcg,thread=single", "max"),
    };
    let mut arguments: Vec<String> = [
        "-name",
        &spec.name,
        "-nodefaults",
        "-no-user-config",
        "-display",
        "none",
        "-no-reboot",
        "-nic",
        "none",
        "-sandbox",
        "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
        "-accel",
        accel,
        "-cpu",
        cpu,
        "-smp",
        &spec.cpus.to_string(),
        // vhost-user reads the guest's memory through this file.
        "-machine",
        "q35,memory-backend=memory",
        "-m",
        &memory,
        "-object",
        &format!("memory-backend-memfd,id=memory,size={memory},share=on"),
        "-bios",
        &programs.firmware.display().to_string(),
        "-kernel",
        &spec.image.display().to_string(),
        "-chardev",
        &format!("socket,id=tpm,path={}", socket("tpm.sock")),
        "-tpmdev",
        "emulator,id=tpm0,chardev=tpm",
        "-device",
        "tpm-crb,tpmdev=tpm0",
        "-chardev",
        "stdio,id=console,signal=off",
        "-serial",
        "chardev:console",
        "-chardev",
        &format!("socket,id=qmp,path={},server=on,wait=off", socket("qmp")),
        "-mon",
        "chardev=qmp,mode=control",
    ]
    .map(str::to_owned)
    .into();
    match transport {
        Transport::Kernel(_) => {
            arguments.extend(["-device".into(), format!("vhost-vsock-pci,guest-cid={cid}")]);
        }
        Transport::User => arguments.extend([
            "-chardev".into(),
            format!("socket,id=vsock,path={}", socket("vhost")),
            "-device".into(),
            "vhost-user-vsock-pci,chardev=vsock".into(),
        ]),
    }
    if let Some(model) = &spec.model {
        let disk = json!({
            "driver": "raw", "node-name": "model", "read-only": true,
            "file": { "driver": "file", "filename": model, "read-only": true, "auto-read-only": false },
        });
        arguments.extend(["-blockdev".into(), disk.to_string()]);
        arguments.extend(["-device".into(), "virtio-blk-pci,drive=model".into()]);
    }
    arguments
}

fn listeners(transport: &Transport, dir: &Path, cid: u32) -> io::Result<Listeners> {
    let listener = |port| match transport {
        Transport::Kernel(kernel) => kernel.listener(cid, port),
        Transport::User => Listener::unix(&dir.join("v"), port),
    };
    Ok(Listeners {
        documents: listener(PORT_DOCUMENTS)?,
        telemetry: listener(PORT_TELEMETRY)?,
        dials: listener(PORT_DIAL)?,
        inbound: match transport {
            Transport::Kernel(_) => Dialer::Kernel(cid),
            Transport::User => Dialer::Unix(dir.join("v")),
        },
    })
}

/// A CID that no other VM of this machine is likely to have; QEMU refuses one that is taken.
fn random_cid() -> Result<u32, Error> {
    let mut bytes = [0; 4];
    getrandom::fill(&mut bytes).map_err(|e| Error::environment("RANDOM", format!("random numbers: {e}")))?;
    // Without the reserved ones (vsock(7)) at either end.
    Ok((u32::from_ne_bytes(bytes) & 0x7fff_ffff) | 0x1000)
}

async fn ready(child: &mut Child, socket: &Path) -> Result<(), Error> {
    let deadline = Instant::now() + HELPER_READY;
    while !socket.exists() {
        if let Ok(Some(_)) = child.ended() {
            let status = child.wait().await.map_err(|e| Error::failed("PROGRAM_ENDED", e))?;
            return Err(child.died(status));
        }
        if Instant::now() > deadline {
            return Err(Error::failed(
                "PROGRAM_SLOW",
                format!("{} was not there within {HELPER_READY:?}", socket.display()),
            ));
        }
        sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}
