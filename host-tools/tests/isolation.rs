//! The choice of isolation, with a QEMU that is a script: what counts is a guest that reaches its agent, not a device
//! that opens.

mod common;

use std::path::{Path, PathBuf};
use std::time::Duration;

use blf_evidence::Hex;
use blf_evidence::tunnel::PORT_DOCUMENTS;
use blf_host::Exit;
use blf_host::isolation::{AccelChoice, Isolation, Probe, Tee, check_tee};
use blf_host::vm::{Accel, Transport};
use common::{Machine, QEMU, eventually};
use tokio::net::UnixStream;

/// A file that opens like `/dev/kvm` and proves as little.
fn device(machine: &Machine) -> PathBuf {
    let device = machine.path().join("kvm");
    std::fs::write(&device, "").unwrap();
    device
}

/// A QEMU that gives up.
const DIES: &str = r#"
[ "$1" != --version ] || exec echo QEMU
echo started >>"$0.starts"
echo "kvm: emulation failure" >&2
exit 134
"#;

async fn choose(machine: &Machine, device: &Path, image: u8, within: u64) -> Isolation {
    let probe = Probe {
        programs: &machine.programs,
        transport: &Transport::User,
        image: "blf.efi".as_ref(),
        image_sha256: Hex([image; 32]),
        device,
        cache: machine.path().join("cache"),
        run_base: Some(&machine.run()),
        within: Duration::from_secs(within),
    };
    Isolation::choose(AccelChoice::Auto, &probe).await.unwrap()
}

#[tokio::test]
async fn a_kvm_that_opens_but_never_boots_is_not_chosen() {
    let machine = Machine::new(QEMU);
    let device = device(&machine);
    let isolation = choose(&machine, &device, 1, 2).await;
    assert_eq!(isolation.accel, Accel::Tcg);
    assert!(isolation.why.contains("opens, but the image does not boot under it: no word from its agent within 2 s"));
    assert!(isolation.sentence().starts_with("NOT CONFIDENTIAL (tier 0)"));
    assert_eq!(machine.starts(), 1);

    // Silence is no finding: a machine that was busy may be less so next time.
    let again = choose(&machine, &device, 1, 2).await;
    assert_eq!((again.accel, machine.starts()), (Accel::Tcg, 2));
    assert!(!again.why.contains("found earlier"), "{}", again.why);
}

#[tokio::test]
async fn a_kvm_that_dies_is_not_chosen() {
    let machine = Machine::new(DIES);
    let device = device(&machine);
    let isolation = choose(&machine, &device, 1, 60).await;
    assert_eq!((isolation.accel, machine.starts()), (Accel::Tcg, 1));
    assert!(isolation.why.contains("kvm: emulation failure"), "{}", isolation.why);

    // Found once for this machine, QEMU and image; another image is another question.
    let again = choose(&machine, &device, 1, 60).await;
    assert_eq!((again.accel, machine.starts()), (Accel::Tcg, 1));
    assert!(again.why.ends_with("(found earlier)"), "{}", again.why);
    choose(&machine, &device, 2, 60).await;
    assert_eq!(machine.starts(), 2);
}

#[tokio::test]
async fn a_kvm_under_which_the_agent_connects_is_chosen() {
    let machine = Machine::new(QEMU);
    let device = device(&machine);
    let folder = machine.run().join(format!("probe-{}", std::process::id()));
    let guest = async {
        eventually("QEMU runs", || folder.join("arguments").exists()).await;
        let arguments = std::fs::read_to_string(folder.join("arguments")).unwrap();
        assert!(arguments.contains("-accel\nkvm\n-cpu\nhost\n"), "{arguments}");
        UnixStream::connect(folder.join(format!("v_{PORT_DOCUMENTS}"))).await.unwrap()
    };
    let (isolation, _guest) = tokio::join!(choose(&machine, &device, 1, 60), guest);
    assert_eq!((isolation.accel, isolation.why.as_str()), (Accel::Kvm, "the image boots under KVM"));
    assert!(isolation.sentence().starts_with("NOT CONFIDENTIAL (tier 0)"));
    assert!(!folder.exists());
}

#[tokio::test]
async fn without_a_kvm_nothing_is_started() {
    let machine = Machine::new(QEMU);
    let isolation = choose(&machine, &machine.path().join("none"), 1, 60).await;
    assert_eq!((isolation.accel, machine.starts()), (Accel::Tcg, 0));
    assert!(isolation.why.contains("cannot be opened"), "{}", isolation.why);
}

#[test]
fn what_this_release_cannot_start_is_refused() {
    for tee in [Tee::Snp, Tee::Tdx] {
        let error = check_tee(tee).unwrap_err();
        assert_eq!((error.exit, error.code.as_str()), (Exit::Environment, "TEE_NOT_YET"));
        assert!(error.message.contains("comes with a later release"), "{error}");
    }
    for tee in [Tee::None, Tee::Auto] {
        check_tee(tee).unwrap();
    }
}
