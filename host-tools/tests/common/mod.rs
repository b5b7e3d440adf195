//! Programs that stand in for QEMU and its helpers: shell scripts of the test, found like the real ones.
#![allow(dead_code, reason = "each test crate uses its part")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use blf_evidence::bundle::{Evidence, PCRS, Platform, SCHEMA, TpmEvidence};
use blf_evidence::statement::{Binding, Keys, Profile, Purpose};
use blf_evidence::{Address, Base64, Hex, UnixTime};
use blf_host::programs::{Programs, program};
use tempfile::TempDir;

pub(crate) const SOON: Duration = Duration::from_secs(10);

/// A QEMU that runs until a file `off` appears in its run folder, and writes down how it was called.
pub(crate) const QEMU: &str = r#"
[ "$1" != --version ] || { echo "fake QEMU 1.0"; exit; }
for a; do case $a in socket,id=qmp,path=*) d=${a#*path=}; d=${d%/qmp,*};; esac; done
printf '%s\n' "$@" >"$d/arguments.new"
mv "$d/arguments.new" "$d/arguments"
echo started >>"$0.starts"
echo "console of the guest"
while [ ! -e "$d/off" ]; do sleep 0.05; done
"#;

/// Run folders and programs of one test.
pub(crate) struct Machine {
    folder: TempDir,
    pub(crate) programs: Programs,
}

impl Machine {
    /// A machine whose `qemu-system-x86_64` is this script.
    pub(crate) fn new(qemu: &str) -> Self {
        let folder = TempDir::with_prefix("blf").unwrap();
        let helper = |after: &str| {
            format!(
                "for a; do case $a in *{after}*) s=${{a#*{after}}}; s=${{s%%,*}};; esac; done\necho $$ >\"$s\"\nexec sleep 1000"
            )
        };
        for (name, script) in [
            ("qemu-system-x86_64", qemu.to_owned()),
            ("swtpm", helper("unixio,path=")),
            ("vhost-device-vsock", helper(",socket=")),
        ] {
            let file = folder.path().join(name);
            fs::write(&file, format!("#!/bin/sh\n{script}\n")).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let bin = |name| folder.path().join(name);
        let programs = Programs {
            qemu: bin("qemu-system-x86_64"),
            swtpm: bin("swtpm"),
            setpriv: program(&std::env::var_os("PATH").unwrap(), "setpriv").unwrap(),
            vsock: Some(bin("vhost-device-vsock")),
            firmware: "/dev/null".into(),
        };
        Self { folder, programs }
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Where the run folders go.
    pub(crate) fn run(&self) -> PathBuf {
        self.folder.path().join("run")
    }

    /// How often QEMU was started.
    pub(crate) fn starts(&self) -> usize {
        let starts = fs::read_to_string(format!("{}.starts", self.programs.qemu.display()));
        starts.map_or(0, |text| text.lines().count())
    }
}

/// Waits until `condition` holds.
pub(crate) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let waited = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(tokio::time::timeout(SOON, waited).await.is_ok(), "{what}");
}

/// Well-formed evidence that answers `nonce`; no TPM made it.
pub(crate) fn evidence(audience: &str, nonce: Hex<32>, config: &str) -> Evidence {
    let binding = Binding {
        anchor: None,
        audience: audience.into(),
        boot_id: Hex([1; 16]),
        config_sha256: Hex([2; 32]),
        egress: vec![],
        gpu_sha256: None,
        keys: Keys {
            cofhe_sealing: Hex([3; 32]),
            hpke: Hex([4; 32]),
            node: Address([5; 20]),
            response: Address([6; 20]),
            tls_spki_sha256: Hex([7; 32]),
        },
        models: vec![],
        nonce,
        not_after: UnixTime(1),
        numeric_profile: "f32".into(),
        profile: Profile { id: Hex([8; 32]), name: "devnet".into() },
        purpose: Purpose::Session,
        v: 1,
    };
    let platform = Platform::Tpm(TpmEvidence {
        quote: Base64(vec![1]),
        signature: Base64(vec![1]),
        ak_public: Base64(vec![1]),
        ak_certificate: None,
        pcrs: vec![Hex([0; 32]); PCRS],
        event_log: None,
    });
    Evidence {
        schema: SCHEMA.into(),
        binding: binding.to_canonical().unwrap(),
        config: config.into(),
        platform,
        endorsements: None,
    }
}
