//! The configfs-tsm attester against a look-alike of the kernel's interface, well-behaved and hostile.
//!
//! Where FUSE cannot be mounted a test says `skipped:` on standard error and proves nothing.

use std::io::{self, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use blf_agent::attester::tsm::Provider;
use blf_agent::attester::{AttestError, Attester, Devices, Tsm, TsmFailure};
use blf_evidence::Hex;
use blf_evidence::bundle::Platform;
use blf_evidence::statement::Statement;
use fuser::Errno;
use sha2::{Digest as _, Sha384};

use lookalike::{Act, LookAlike, Machine};

mod lookalike;

const STATEMENT: Statement = Statement(Hex([0xA5; 64]));
const SNP_REPORT: &[u8] = include_bytes!("vectors/snp-v5.bin");
const TDX_V4: &[u8] = include_bytes!("vectors/tdx-v4-padded.bin");
const TDX_V5: &[u8] = include_bytes!("vectors/tdx-v5-td15.bin");
/// Long for the look-alike, short for a test.
const DEADLINE: Duration = Duration::from_secs(20);

macro_rules! mount {
    ($machine:expr) => {
        match LookAlike::mount($machine) {
            Ok(mounted) => mounted,
            Err(error) => {
                // Past libtest's capture, so that a script can count the lines.
                let test = thread::current().name().unwrap_or("?").to_owned();
                let _ = writeln!(io::stderr(), "skipped: attester_tsm::{test}: FUSE cannot be mounted: {error}");
                return;
            }
        }
    };
}

#[test]
fn snp_report_carries_the_statement() {
    let table = vec![0x42; 5000];
    let mounted = mount!(Machine { auxblob: Some(table.clone()), ..snp() });
    let mut tsm = open(&mounted);
    assert_eq!(tsm.provider(), Provider::Snp);
    let Platform::Snp(evidence) = tsm.attest(&STATEMENT).unwrap() else { panic!("not SNP") };
    assert_eq!(evidence.report.0, snp_report(&STATEMENT.0.0, 0));
    assert_eq!(evidence.certificates.unwrap().0, table);
    assert_eq!(mounted.live(), 0);
    assert_eq!(
        mounted.log()[3..],
        [
            "mkdir",
            "read provider",
            "read generation",
            "read privlevel_floor",
            "write privlevel",
            "read generation",
            "write inblob",
            "read generation",
            "read outblob",
            "read auxblob",
            "read generation",
            "rmdir"
        ]
    );
}

#[test]
fn tdx_quotes_of_both_versions() {
    for (report, certificates) in [
        (tdx_v4 as fn(&[u8], u32) -> Vec<u8>, None),
        (tdx_v5, None),
        (tdx_v5, Some(vec![1])), // an auxblob has no place in TDX evidence
    ] {
        let mounted = mount!(Machine { report, auxblob: certificates, ..tdx() });
        let mut tsm = open(&mounted);
        let Platform::Tdx(evidence) = tsm.attest(&STATEMENT).unwrap() else { panic!("not TDX") };
        assert_eq!(evidence.quote.0, report(&STATEMENT.0.0, 0));
        assert_eq!(evidence.event_log, None);
        assert!(!mounted.log().iter().any(|access| access.contains("privlevel")));
        assert_eq!(mounted.live(), 0);
    }
}

/// The name of what was started in the TD with this report body: MRTD, RTMR 1 and RTMR 2.
fn td(body: &[u8]) -> String {
    let digest = Sha384::digest([&body[136..184], &body[376..424], &body[424..472]].concat());
    format!("tdx:{}", hex::encode(digest))
}

#[test]
fn measurement_is_named_and_asked_for_once() {
    for (machine, name) in [
        (snp(), format!("snp:{}", hex::encode(&SNP_REPORT[0x90..0xC0]))),
        (tdx(), td(&TDX_V4[48..])),
        (Machine { report: tdx_v5, ..tdx() }, td(&TDX_V5[54..])),
    ] {
        let mounted = mount!(machine);
        let mut tsm = open(&mounted);
        assert_eq!(tsm.measurement_id().unwrap(), name);
        assert_eq!(tsm.measurement_id().unwrap(), name);
        tsm.attest(&STATEMENT).unwrap();
        assert_eq!(mounted.names().len(), 3, "provider, measurement, statement");
    }
}

#[test]
fn detection_prefers_the_tsm() {
    let mounted = mount!(snp());
    let devices = |mounted: &LookAlike| Devices {
        tsm_reports: mounted.reports().into(),
        tpm: "/nonexistent/tpm".into(),
        event_log: "/nonexistent/log".into(),
        deadline: DEADLINE,
    };
    let mut attester = Attester::detect(&devices(&mounted)).unwrap();
    assert_eq!(attester.platform(), "snp");
    assert!(attester.measurement_id().unwrap().starts_with("snp:"));
    assert!(matches!(attester.attest(&STATEMENT), Ok(Platform::Snp(_))));
    let mounted = mount!(tdx());
    assert_eq!(Attester::detect(&devices(&mounted)).unwrap().platform(), "tdx");

    // ENXIO: the interface without a driver behind it, as on every machine without a TEE.
    let mounted = mount!(Machine { provider: None, ..snp() });
    assert!(Tsm::open(mounted.reports(), DEADLINE).unwrap().is_none());
    assert!(matches!(Attester::detect(&devices(&mounted)), Err(AttestError::NoDevice { .. })));

    // Anything else must not lead to weaker evidence.
    let mounted = mount!(Machine { provider: Some("arm_cca_guest"), ..snp() });
    let error = Attester::detect(&devices(&mounted)).err().unwrap().to_string();
    assert_eq!(error, "configfs-tsm provider: wanted sev_guest or tdx_guest, got \"arm_cca_guest\"");
    assert_eq!(mounted.live(), 0);
    let mounted = mount!(Machine { on: fail("mkdir", u32::MAX, Errno::EPERM), ..snp() });
    assert!(matches!(
        Attester::detect(&devices(&mounted)),
        Err(AttestError::Tsm(TsmFailure::Attribute { attribute: "mkdir", .. }))
    ));
}

#[test]
fn every_request_has_a_fresh_directory() {
    let mounted = mount!(snp());
    let mut tsm = open(&mounted);
    for _ in 0..20 {
        tsm.attest(&STATEMENT).unwrap();
    }
    let mut names = mounted.names();
    assert_eq!(names.len(), 21);
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 21);
    assert_eq!(mounted.live(), 0);
}

#[test]
fn two_at_once_do_not_disturb_each_other() {
    let mounted = mount!(snp());
    thread::scope(|scope| {
        for n in 0..4 {
            let mounted = &mounted;
            scope.spawn(move || {
                let mut tsm = open(mounted);
                for m in 0..10 {
                    let statement = Statement(Hex([n * 16 + m; 64]));
                    let Platform::Snp(evidence) = tsm.attest(&statement).unwrap() else { panic!("not SNP") };
                    assert_eq!(evidence.report.0, snp_report(&statement.0.0, 0));
                }
            });
        }
    });
    assert_eq!(mounted.live(), 0);
}

#[test]
fn generation_races_are_dropped_and_tried_again() {
    let case = |access, interference: fn() -> Act, times: u32| {
        let mounted = mount!(Machine { on: times_at(access, times, interference), ..snp() });
        match open(&mounted).attest(&STATEMENT) {
            Ok(Platform::Snp(evidence)) => {
                assert!(times < 5, "{access}: the race went unnoticed");
                assert_eq!(evidence.report.0, snp_report(&STATEMENT.0.0, 0));
                assert_eq!(mounted.names().len(), 2 + usize::try_from(times).unwrap());
            }
            Err(TsmFailure::GaveUp { attempts: 5, last }) => {
                assert!(times >= 5, "{access}: {last}");
                assert!(matches!(*last, TsmFailure::Generation { .. }), "{access}: {last}");
            }
            other => panic!("{access}: {other:?}"),
        }
        assert_eq!(mounted.live(), 0);
    };
    // At once, because each of them spends its time in pauses.
    thread::scope(|scope| {
        for access in ["write privlevel", "write inblob", "read outblob", "read auxblob"] {
            for interference in [|| Act::Interfere, || Act::Usurp] {
                for times in [1, 4, u32::MAX] {
                    let name = format!("generation race at {access}, {times} times");
                    thread::Builder::new()
                        .name(name)
                        .spawn_scoped(scope, move || case(access, interference, times))
                        .unwrap();
                }
            }
        }
    });
}

#[test]
fn a_write_that_did_not_happen_is_noticed() {
    for access in ["write inblob", "write privlevel"] {
        let mounted = mount!(Machine { on: times_at(access, u32::MAX, || Act::Ignore), ..snp() });
        let error = open(&mounted).attest(&STATEMENT).unwrap_err();
        let TsmFailure::GaveUp { last, .. } = error else { panic!("{error}") };
        assert!(matches!(*last, TsmFailure::Generation { wanted, got, .. } if wanted == got + 1), "{last}");
    }
}

#[test]
fn hostile_reports_are_refused() {
    type Report = fn(&[u8], u32) -> Vec<u8>;
    let snp_cases: [(&str, Report, &str); 8] = [
        ("empty", |_, _| Vec::new(), "ATTESTATION_REPORT length: wanted 1184, got 0"),
        ("too short", |s, l| snp_report(s, l)[..1183].to_vec(), "ATTESTATION_REPORT length: wanted 1184, got 1183"),
        ("too long", |s, l| [snp_report(s, l), vec![0]].concat(), "ATTESTATION_REPORT length: wanted 1184, got 1185"),
        ("16 KiB", |_, _| vec![0; 16384], "ATTESTATION_REPORT length: wanted 1184, got 16384"),
        ("more than the cap", |_, _| vec![0; 16385], "configfs-tsm outblob: wanted at most 16384 bytes, got more"),
        ("another statement", |_, l| snp_report(&[1; 64], l), "REPORT_DATA: wanted our statement, got other bytes"),
        (
            "last byte of the statement",
            |s, l| {
                let mut report = snp_report(s, l);
                report[0x8F] ^= 1;
                report
            },
            "REPORT_DATA: wanted our statement, got other bytes",
        ),
        ("another level", |s, l| snp_report(s, l + 1), "VMPL: wanted 0, got 1"),
    ];
    for (what, report, text) in snp_cases {
        let mounted = mount!(Machine { report, ..snp() });
        let error = open(&mounted).attest(&STATEMENT).unwrap_err();
        assert_eq!(error.to_string(), text, "{what}");
        assert_eq!((mounted.live(), mounted.names().len()), (0, 2), "{what}: removed, not tried again");
    }
    let tdx_cases: [(&str, Report, &str); 8] = [
        ("empty", |_, _| Vec::new(), "quote tee_type: wanted 8, got 0"),
        ("SGX", |s, _| patched(tdx_v4(s, 0), 4, &[0]), "quote tee_type: wanted 129, got 0"),
        ("version 3", |s, _| patched(tdx_v4(s, 0), 0, &[3]), "quote version: wanted 5, got 3"),
        ("body type", |s, _| patched(tdx_v5(s, 0), 48, &[1]), "quote body type: wanted 3, got 1"),
        ("body size", |s, _| patched(tdx_v5(s, 0), 50, &[0x89]), "quote body size: wanted 648, got 649"),
        (
            "signature longer than the buffer",
            |s, _| patched(tdx_v4(s, 0), 632, &[0xFF, 0xFF, 0xFF, 0x7F]),
            "quote signature length: wanted 7364, got 2147483647",
        ),
        ("no signature", |s, _| patched(tdx_v4(s, 0), 632, &[0; 4]), "quote signature length: wanted 7364, got 0"),
        (
            "another statement",
            |s, _| patched(tdx_v5(s, 0), 54 + 583, &[0]),
            "REPORT_DATA: wanted our statement, got other bytes",
        ),
    ];
    for (what, report, text) in tdx_cases {
        let mounted = mount!(Machine { report, ..tdx() });
        let error = open(&mounted).attest(&STATEMENT).unwrap_err();
        assert_eq!(error.to_string(), text, "{what}");
        assert_eq!(mounted.live(), 0, "{what}");
    }
}

#[test]
fn every_prefix_of_a_report_is_refused() {
    // Through one mount: the look-alike gives one byte more each time.
    for (genuine, machine) in [(SNP_REPORT, snp as fn() -> Machine), (TDX_V5, tdx)] {
        let length = Arc::new(AtomicU32::new(0));
        let at = Arc::clone(&length);
        let on = move |access: &str| match access {
            "read outblob" => {
                let full = if genuine == TDX_V5 { tdx_v5(&STATEMENT.0.0, 0) } else { snp_report(&STATEMENT.0.0, 0) };
                Act::Give(full[..usize::try_from(at.load(Ordering::Relaxed)).unwrap()].to_vec())
            }
            _ => Act::Genuine,
        };
        let mounted = mount!(Machine { on: Box::new(on), ..machine() });
        let mut tsm = open(&mounted);
        // The certificates at the quote's end are the verifier's to parse; their declared length is ours.
        let steps = (0..u32::try_from(genuine.len()).unwrap()).step_by(7);
        for n in steps {
            length.store(n, Ordering::Relaxed);
            assert!(tsm.attest(&STATEMENT).is_err(), "{n} bytes were believed");
        }
        length.store(u32::try_from(genuine.len()).unwrap(), Ordering::Relaxed);
        assert!(tsm.attest(&STATEMENT).is_ok());
    }
}

#[test]
fn oversized_and_endless_attributes_are_capped() {
    let cases = [
        ("read outblob", "configfs-tsm outblob: wanted at most 16384 bytes, got more"),
        ("read auxblob", "configfs-tsm auxblob: wanted at most 16384 bytes, got more"),
        ("read generation", "configfs-tsm generation: wanted at most 64 bytes, got more"),
    ];
    for (access, text) in cases {
        let mounted = mount!(Machine { on: times_at(access, u32::MAX, || Act::Endless), ..snp() });
        let error = open(&mounted).attest(&STATEMENT).unwrap_err();
        assert_eq!(error.to_string(), text);
        assert_eq!(mounted.live(), 0);
    }
    // The same words when it is the kernel that says EFBIG.
    let mounted = mount!(Machine { on: fail("read outblob", u32::MAX, Errno::EFBIG), ..snp() });
    let error = open(&mounted).attest(&STATEMENT).unwrap_err();
    assert_eq!(error.to_string(), "configfs-tsm outblob: wanted at most 16384 bytes, got more");
    assert_eq!(mounted.live(), 0);
}

#[test]
fn certificates_may_be_absent_or_empty() {
    for auxblob in [None, Some(Vec::new())] {
        let mounted = mount!(Machine { auxblob, ..snp() });
        let Platform::Snp(evidence) = open(&mounted).attest(&STATEMENT).unwrap() else { panic!("not SNP") };
        assert_eq!(evidence.certificates, None);
    }
}

#[test]
fn text_that_is_none() {
    for (access, content, text) in [
        ("read generation", &b"one\n"[..], "configfs-tsm generation: wanted a decimal number, got \"one\""),
        ("read generation", b"", "configfs-tsm generation: wanted a decimal number, got \"\""),
        ("read generation", b"+1\n", "configfs-tsm generation: wanted a decimal number, got \"+1\""),
        (
            "read generation",
            b"99999999999999999999\n",
            "configfs-tsm generation: wanted a decimal number, got \"99999999999999999999\"",
        ),
        ("read generation", b"\xFF\n", "configfs-tsm generation: wanted one line of ASCII, got \"\u{FFFD}\""),
        ("read privlevel_floor", b"4\n", "privlevel_floor: wanted 3, got 4"),
    ] {
        let mounted = mount!(Machine { on: times_at(access, u32::MAX, move || Act::Give(content.to_vec())), ..snp() });
        assert_eq!(open(&mounted).attest(&STATEMENT).unwrap_err().to_string(), text);
        assert_eq!(mounted.live(), 0);
    }
    // Another driver took over between two requests.
    let mut reads = 0;
    let on = move |access: &str| {
        reads += u32::from(access == "read provider");
        if access == "read provider" && reads > 1 { Act::Give(b"tdx_guest\n".to_vec()) } else { Act::Genuine }
    };
    let mounted = mount!(Machine { on: Box::new(on), ..snp() });
    assert!(matches!(open(&mounted).attest(&STATEMENT), Err(TsmFailure::Text { attribute: "provider", .. })));
}

#[test]
fn privilege_level_is_the_floor_as_decimal_text() {
    for floor in [1, 2, 3] {
        let mounted = mount!(Machine { floor: Some(floor), ..snp() });
        let Platform::Snp(evidence) = open(&mounted).attest(&STATEMENT).unwrap() else { panic!("not SNP") };
        assert_eq!(evidence.report.0, snp_report(&STATEMENT.0.0, floor));
    }
}

#[test]
fn a_busy_device_is_asked_again_and_a_refusal_is_final() {
    for (access, errno) in [
        ("mkdir", Errno::EBUSY),
        ("write inblob", Errno::EBUSY),
        ("read outblob", Errno::EAGAIN), // EWOULDBLOCK
        ("read outblob", Errno::EBUSY),
        ("read outblob", Errno::ETIMEDOUT),
        ("read auxblob", Errno::EAGAIN),
    ] {
        // The first access is the one at opening.
        let skipped = u32::from(access == "mkdir");
        let mut seen = 0;
        let on = move |got: &str| {
            seen += u32::from(got == access);
            if got == access && seen > skipped && seen <= skipped + 2 { Act::Fail(errno) } else { Act::Genuine }
        };
        let mounted = mount!(Machine { on: Box::new(on), ..snp() });
        assert!(open(&mounted).attest(&STATEMENT).is_ok(), "{access}");
        assert_eq!(mounted.live(), 0, "{access}");
    }
    let mounted = mount!(Machine { on: fail("read outblob", u32::MAX, Errno::EAGAIN), ..snp() });
    let error = open(&mounted).attest(&STATEMENT).unwrap_err();
    assert!(
        error.to_string().starts_with("configfs-tsm: wanted a report, got none in 5 attempts: configfs-tsm outblob:")
    );
    assert_eq!((mounted.live(), mounted.names().len()), (0, 6));

    for (access, errno, name) in [
        ("read outblob", Errno::EIO, "outblob"),
        ("read outblob", Errno::EINVAL, "outblob"),
        ("read auxblob", Errno::EIO, "auxblob"),
        ("write inblob", Errno::EINVAL, "inblob"),
        ("write privlevel", Errno::EINVAL, "privlevel"),
        ("read generation", Errno::EACCES, "generation"),
    ] {
        let mounted = mount!(Machine { on: fail(access, u32::MAX, errno), ..snp() });
        let error = open(&mounted).attest(&STATEMENT).unwrap_err();
        assert!(matches!(error, TsmFailure::Attribute { attribute, .. } if attribute == name), "{access}: {error}");
        assert_eq!((mounted.live(), mounted.names().len()), (0, 2), "{access}: removed, not tried again");
    }
    let mounted = mount!(Machine { on: fail("read outblob", u32::MAX, Errno::ENXIO), ..snp() });
    assert!(matches!(open(&mounted).attest(&STATEMENT), Err(TsmFailure::NoProvider)));
}

#[test]
fn a_directory_that_stays_is_an_error() {
    let mut seen = 0;
    let on = move |access: &str| {
        seen += u32::from(access == "rmdir");
        if access == "rmdir" && seen > 1 { Act::Fail(Errno::EPERM) } else { Act::Genuine }
    };
    let mounted = mount!(Machine { on: Box::new(on), ..snp() });
    let error = open(&mounted).attest(&STATEMENT).unwrap_err();
    assert!(matches!(error, TsmFailure::Attribute { attribute: "rmdir", .. }), "{error}");
}

#[test]
fn a_slow_host_is_waited_for() {
    let on = times_at("read outblob", 1, || Act::Slow(Duration::from_millis(700)));
    let mounted = mount!(Machine { on, ..snp() });
    assert!(open(&mounted).attest(&STATEMENT).is_ok());
}

#[test]
fn a_read_that_never_returns_ends_at_the_deadline() {
    let mounted = mount!(Machine { on: times_at("read outblob", 1, || Act::Hang), ..snp() });
    let deadline = Duration::from_millis(300);
    let mut tsm = Tsm::open(mounted.reports(), deadline).unwrap().unwrap();
    let start = Instant::now();
    let error = tsm.attest(&STATEMENT).unwrap_err();
    assert!(matches!(error, TsmFailure::Deadline { .. }), "{error}");
    assert!(start.elapsed() >= deadline && start.elapsed() < Duration::from_secs(5));
    assert_eq!(mounted.live(), 1, "the kernel still holds that request");

    // While it is held no other is made, so that requests and threads do not pile up.
    for _ in 0..3 {
        assert!(matches!(tsm.attest(&STATEMENT), Err(TsmFailure::Overdue)));
        assert!(matches!(tsm.measurement_id(), Err(TsmFailure::Overdue)));
    }
    assert_eq!(mounted.names().len(), 2);

    // The host answers at last: the request is removed, its late report reaches nobody, and the next one succeeds.
    mounted.release();
    assert_eq!(mounted.live(), 0);
    let until = Instant::now() + Duration::from_secs(5);
    while matches!(tsm.attest(&STATEMENT), Err(TsmFailure::Overdue)) {
        assert!(Instant::now() < until, "the helper thread did not end");
    }
    assert!(tsm.attest(&STATEMENT).is_ok());
}

#[test]
fn retries_end_at_the_deadline() {
    let mounted = mount!(Machine { on: fail("read outblob", u32::MAX, Errno::EAGAIN), ..snp() });
    let mut tsm = Tsm::open(mounted.reports(), Duration::from_millis(650)).unwrap().unwrap();
    let start = Instant::now();
    assert!(matches!(tsm.attest(&STATEMENT), Err(TsmFailure::GaveUp { attempts: 1..=3, .. })));
    assert!(start.elapsed() < Duration::from_secs(5));
}

fn snp() -> Machine {
    Machine {
        provider: Some("sev_guest"),
        floor: Some(0),
        report: snp_report,
        auxblob: Some(vec![7; 100]),
        on: Box::new(|_| Act::Genuine),
    }
}

fn tdx() -> Machine {
    Machine { provider: Some("tdx_guest"), floor: None, report: tdx_v4, auxblob: None, ..snp() }
}

fn open(mounted: &LookAlike) -> Tsm {
    Tsm::open(mounted.reports(), DEADLINE).unwrap().unwrap()
}

fn times_at(
    access: &'static str,
    times: u32,
    act: impl Fn() -> Act + Send + 'static,
) -> Box<dyn FnMut(&str) -> Act + Send> {
    let mut left = times;
    Box::new(move |got| {
        if got != access || left == 0 {
            return Act::Genuine;
        }
        left -= 1;
        act()
    })
}

fn fail(access: &'static str, times: u32, errno: Errno) -> Box<dyn FnMut(&str) -> Act + Send> {
    times_at(access, times, move || Act::Fail(errno))
}

fn snp_report(statement: &[u8], level: u32) -> Vec<u8> {
    let report = patched(SNP_REPORT.to_vec(), 0x50, statement);
    patched(report, 0x30, &level.to_le_bytes())
}

fn tdx_v4(statement: &[u8], _: u32) -> Vec<u8> {
    patched(TDX_V4.to_vec(), 48 + 520, statement)
}

fn tdx_v5(statement: &[u8], _: u32) -> Vec<u8> {
    patched(TDX_V5.to_vec(), 54 + 520, statement)
}

fn patched(mut bytes: Vec<u8>, at: usize, with: &[u8]) -> Vec<u8> {
    bytes[at..at + with.len()].copy_from_slice(with);
    bytes
}
