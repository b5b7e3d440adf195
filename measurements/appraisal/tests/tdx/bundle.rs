//! TDX evidence of a node: the quote vouches for the statement, and the event log explains the RTMRs.

use blf_appraisal::aws_lc::AwsLc;
use blf_appraisal::{Claims, Endorsers, Rejected, authenticate};
use blf_evidence::bundle::{Evidence, Platform, SCHEMA, TdxEvidence};
use blf_evidence::endorsements::Endorsements;
use blf_evidence::eventlog::{EV_EFI_ACTION, EV_EVENT_TAG, EV_SEPARATOR, EventLog};
use blf_evidence::statement::{Binding, Statement};
use blf_evidence::{Base64, Hex};
use sha2::{Digest as _, Sha256, Sha384};

use crate::intel::{Intel, NOW};
use crate::vectors::vector;

const EXIT: &[u8] = b"Exit Boot Services Returned with Success";

/// An event of a CC event log: register, type, data; its digest is of the data.
type Event = (u32, u32, &'static [u8]);

/// A whole boot.
const BOOT: [Event; 5] = [
    (1, EV_SEPARATOR, &[0; 4]),
    (2, EV_EFI_ACTION, b"Calling EFI Application from Boot Option"),
    (2, EV_SEPARATOR, &[0; 4]),
    (3, EV_EVENT_TAG, b"Linux initrd"),
    (2, EV_EFI_ACTION, EXIT),
];

/// What a node hands out, and a relying party that believes its Intel.
struct Node {
    evidence: Evidence,
    endorsers: Endorsers,
}

impl Node {
    /// A node that booted like this, and hands out this log.
    fn new(booted: &[u8], log: Option<Vec<u8>>) -> Self {
        let rtmrs = EventLog::parse(booted).unwrap().replay_rtmrs().unwrap();
        Self::with(log, |intel| intel.quote.rtmrs = rtmrs.map(Hex))
    }

    fn with(log: Option<Vec<u8>>, edit: impl FnOnce(&mut Intel)) -> Self {
        let config = "{}".to_string();
        let binding = Binding {
            config_sha256: Hex(Sha256::digest(&config).into()),
            ..Binding::parse(include_bytes!("../../../evidence/tests/vectors/binding.json")).unwrap()
        };
        let raw = binding.to_canonical().unwrap();
        let mut intel = Intel::new();
        intel.quote.report_data = Statement::new(binding.keys.node, raw.as_bytes()).0;
        edit(&mut intel);
        let made = intel.make();
        let endorsements = Endorsements { tdx: Some(made.collateral.clone()), ..Endorsements::default() };
        let evidence = Evidence {
            schema: SCHEMA.into(),
            binding: raw,
            config,
            platform: Platform::Tdx(TdxEvidence { quote: Base64(made.quote.clone()), event_log: log.map(Base64) }),
            endorsements: Some(Base64(endorsements.to_json().unwrap().into_bytes())),
        };
        Self { evidence, endorsers: Endorsers { intel: made.root(), ..Endorsers::default() } }
    }

    fn verdict(&self) -> Result<bool, Rejected> {
        match authenticate(&self.evidence, &self.endorsers, NOW, &AwsLc) {
            Ok(authentic) => {
                let Claims::Tdx(claims) = &authentic.platform else { panic!("of another platform") };
                Ok(claims.event_log)
            }
            Err(rejected) => Err(*rejected),
        }
    }
}

fn ccel(events: &[Event]) -> Vec<u8> {
    let spec_id = [b"Spec ID Event03\0", &[0; 4][..], &[0, 2, 0, 2], &[1, 0, 0, 0], &[0x0C, 0, 48, 0], &[0]].concat();
    let mut log = [1_u32, 3].map(u32::to_le_bytes).concat();
    log.extend([0; 20]);
    log.extend(u32::try_from(spec_id.len()).unwrap().to_le_bytes());
    log.extend(spec_id);
    for (register, kind, data) in events {
        log.extend([*register, *kind, 1].map(u32::to_le_bytes).concat());
        log.extend([0x0C, 0]);
        log.extend(Sha384::digest(data));
        log.extend(u32::try_from(data.len()).unwrap().to_le_bytes());
        log.extend(*data);
    }
    log
}

#[track_caller]
fn code(node: &Node) -> &'static str {
    assert_eq!(Node::new(&ccel(&BOOT), Some(ccel(&BOOT))).verdict(), Ok(true));
    node.verdict().unwrap_err().code
}

#[test]
fn whole_boot_with_its_log_and_without() {
    let boot = ccel(&BOOT);
    assert_eq!(Node::new(&boot, Some(boot.clone())).verdict(), Ok(true));
    assert_eq!(Node::new(&boot, None).verdict(), Ok(false));
    let padded = [&boot[..], &[0xFF; 1000]].concat();
    assert_eq!(Node::new(&boot, Some(padded)).verdict(), Ok(true));
}

/// Firmware and boot loaders of others.
#[test]
fn logs_of_real_boots() {
    let evidence =
        |name: &str| std::fs::read(format!("{}/../evidence/tests/vectors/eventlog/{name}", env!("CARGO_MANIFEST_DIR")));
    for log in [evidence("ccel-ovmf.bin").unwrap(), evidence("ccel-grub.bin").unwrap(), vector("gcp-cos113/ccel.bin")] {
        // Without most of the padding, as the guest hands it out.
        let end = log.iter().rposition(|byte| *byte != 0 && *byte != 0xFF).unwrap() + 1;
        assert_eq!(Node::new(&log, Some(log[..end].to_vec())).verdict(), Ok(true));
    }
}

#[test]
fn no_collateral() {
    let mut node = Node::new(&ccel(&BOOT), None);
    node.evidence.endorsements = Some(Base64(Endorsements::default().to_json().unwrap().into_bytes()));
    assert_eq!(code(&node), "COLLATERAL_MISSING");
    node.evidence.endorsements = None;
    assert_eq!(code(&node), "COLLATERAL_MISSING");
}

#[test]
fn quote_of_another_statement() {
    assert_eq!(code(&Node::with(None, |intel| intel.quote.report_data.0[63] ^= 1)), "STATEMENT_MISMATCH");
    assert_eq!(code(&Node::with(None, |intel| intel.quote.report_data = Hex([0; 64]))), "STATEMENT_MISMATCH");
}

#[test]
fn nothing_measured() {
    for zero in [&[0][..], &[1], &[0, 1, 2, 3]] {
        let node = Node::with(None, |intel| zero.iter().for_each(|index| intel.quote.rtmrs[*index] = Hex([0; 48])));
        assert_eq!(code(&node), "NOTHING_MEASURED", "{zero:?}");
    }
}

#[test]
fn log_that_is_none() {
    let boot = ccel(&BOOT);
    assert_eq!(code(&Node::new(&boot, Some(boot[..boot.len() - 1].to_vec()))), "EVENT_LOG_MALFORMED");
    assert_eq!(code(&Node::new(&boot, Some(Vec::new()))), "EVENT_LOG_MALFORMED");
}

#[test]
fn log_of_another_boot() {
    let boot = ccel(&BOOT);
    let mut other = BOOT;
    other[3].2 = b"Linux initrd, another";
    assert_eq!(code(&Node::new(&boot, Some(ccel(&other)))), "EVENT_LOG_MISMATCH");
    assert_eq!(code(&Node::new(&boot, Some(ccel(&BOOT[..4])))), "EVENT_LOG_MISMATCH");
    // RTMR 3 counts as well, and a register that does not exist explains nothing.
    for register in [0, 4, 5] {
        let more = [&BOOT[..], &[(register, EV_EVENT_TAG, b"more")]].concat();
        assert_eq!(code(&Node::new(&boot, Some(ccel(&more)))), "EVENT_LOG_MISMATCH", "{register}");
    }
}

#[test]
fn boots_that_are_not_whole() {
    let without = |index: usize| [&BOOT[..index], &BOOT[index + 1..]].concat();
    let with = |event: Event, at: usize| [&BOOT[..at], &[event], &BOOT[at..]].concat();
    for (name, events) in [
        ("no separator in RTMR 0", [&[(1, EV_EVENT_TAG, &[0; 4][..])], &BOOT[1..]].concat()),
        ("no separator in RTMR 1", without(2)),
        ("no exit from boot services", without(4)),
        ("three separators", with((1, EV_SEPARATOR, &[0; 4]), 0)),
        ("something behind the exit", with((2, EV_EFI_ACTION, b"more"), 5)),
        ("an exit of another register", [&BOOT[..4], &[(3, EV_EFI_ACTION, EXIT)]].concat()),
        ("an error for a separator", [&[(1, EV_SEPARATOR, &[1, 0, 0, 0][..])], &BOOT[1..]].concat()),
    ] {
        let log = ccel(&events);
        assert_eq!(code(&Node::new(&log, Some(log.clone()))), "EVENT_LOG_INCOMPLETE", "{name}");
    }
}

/// The data of an event is not what the RTMR covers.
#[test]
fn relabelled_events() {
    let mut events = BOOT;
    events[4].2 = b"Exit Boot Services Returned with Failure";
    let boot = ccel(&events);
    let at = boot.len() - EXIT.len();
    let relabelled = [&boot[..boot.len() - events[4].2.len()], EXIT].concat();
    assert_eq!((relabelled.len(), &relabelled[at..]), (boot.len(), EXIT));
    assert_eq!(code(&Node::new(&boot, Some(relabelled))), "EVENT_LOG_INCOMPLETE");
}
