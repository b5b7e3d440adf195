//! Real quotes of several clouds, and known damage: each gets its stated verdict (`tests/vectors/tdx/README.md`).

use blf_appraisal::tdx::{Root, TcbStatus};
use blf_appraisal::{CheckId, RootKind};
use blf_evidence::endorsements::TdxEndorsements;
use blf_evidence::eventlog::EventLog;
use blf_evidence::tdx::{Quote, attributes};
use blf_evidence::{Hex, UnixTime};
use serde_json::Value;
use sha2::{Digest as _, Sha384};

use crate::collateral::collateral;
use crate::{everyones_verdict, passed, verdict};

/// A quote with its collateral, at a time when both were genuine.
pub(crate) struct Genuine {
    pub(crate) quote: Vec<u8>,
    pub(crate) collateral: TdxEndorsements,
    pub(crate) now: UnixTime,
}

impl Genuine {
    /// Version 4, TD 1.0, padded by 70 zeros.
    pub(crate) fn v4() -> Self {
        Self::read("v4-phala-uptodate", 1_752_000_000)
    }

    /// Version 5, TD 1.5.
    pub(crate) fn v5() -> Self {
        Self::read("v5-google-uptodate", 1_774_000_000)
    }

    fn read(name: &str, now: u64) -> Self {
        let quote = vector(&format!("{name}/quote.bin"));
        let collateral = collateral(&vector(&format!("{name}/collateral.json"))).unwrap();
        Self { quote, collateral, now: UnixTime(now) }
    }
}

pub(crate) fn vector(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/tests/vectors/tdx/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

pub(crate) fn intels_root() -> Vec<u8> {
    include_bytes!("../../roots/intel/sgx-root-ca.der").to_vec()
}

/// The quotes of which the collateral is not at hand.
fn dstack() -> (Vec<u8>, Value) {
    let json: Value = serde_json::from_slice(&vector("dstack/tdx-lite-getquote.json")).unwrap();
    (hex::decode(json["quote"].as_str().unwrap()).unwrap(), json)
}

#[test]
fn up_to_date() {
    for (genuine, fmspc, version, evaluation) in
        [(Genuine::v4(), "b0c06f000000", 4, 17), (Genuine::v5(), "90c06f000000", 5, 18)]
    {
        let claims = everyones_verdict(&genuine.quote, &genuine.collateral, &intels_root(), genuine.now).unwrap();
        assert_eq!((claims.tcb_status, claims.advisory_ids), (TcbStatus::UpToDate, Vec::new()));
        assert_eq!((claims.fmspc.to_string().as_str(), claims.quote.version), (fmspc, version));
        assert_eq!((claims.tcb_evaluation_data_number, claims.roots), (evaluation, RootKind::Production));
        assert!(claims.collateral_issued < genuine.now && !claims.event_log);
    }
    let claims = |genuine: Genuine| Quote::parse(&genuine.quote).unwrap();
    assert!(claims(Genuine::v4()).mr_td.to_string().starts_with("91eb2b44d141d4ec"));
    assert!(claims(Genuine::v4()).report_data.to_string().starts_with("9a9d48e7f6799642"));
    assert!(claims(Genuine::v5()).mr_td.to_string().starts_with("7348651a34b2d2d3"));
}

#[test]
fn each_with_its_code() {
    let (v4, v5) = (Genuine::v4(), Genuine::v5());
    let nomatch = Genuine::read("v5-phala-nomatch", 1_772_000_000);
    for (name, quote, collateral, now, code, signed) in [
        ("v5-phala-nomatch", &nomatch.quote, &nomatch.collateral, nomatch.now, "TCB_LEVEL_UNKNOWN", true),
        ("coco/quote-td15.bin", &vector("coco/quote-td15.bin"), &v5.collateral, v5.now, "TCB_LEVEL_UNKNOWN", true),
        ("coco/quote4.bin", &vector("coco/quote4.bin"), &v5.collateral, v5.now, "COLLATERAL_MISMATCH", true),
        ("gcp-cos113", &vector("gcp-cos113/quote.bin"), &v5.collateral, v5.now, "COLLATERAL_MISMATCH", true),
        ("dstack", &dstack().0, &v5.collateral, v5.now, "STALE_COLLATERAL", true),
        ("flip-rtmr1", &vector("derived-bad/flip-rtmr1.bin"), &v4.collateral, v4.now, "TDX_SIGNATURE", false),
        (
            "flip-report-data",
            &vector("derived-bad/flip-report-data.bin"),
            &v4.collateral,
            v4.now,
            "TDX_SIGNATURE",
            false,
        ),
        ("debug-bit-set", &vector("derived-bad/debug-bit-set.bin"), &v4.collateral, v4.now, "TDX_SIGNATURE", false),
        ("siglen-huge", &vector("derived-bad/siglen-huge.bin"), &v4.collateral, v4.now, "TDX_QUOTE_MALFORMED", false),
        ("truncated", &vector("derived-bad/truncated.bin"), &v4.collateral, v4.now, "TDX_QUOTE_MALFORMED", false),
        ("tdreport", &vector("report/tdreport.bin"), &v4.collateral, v4.now, "TDX_QUOTE_MALFORMED", false),
        ("v4, before", &v4.quote, &v4.collateral, UnixTime(1_750_200_000), "STALE_COLLATERAL", true),
        ("v4, after", &v4.quote, &v4.collateral, UnixTime(1_753_000_000), "STALE_COLLATERAL", true),
        ("v5, at v4's time", &v5.quote, &v5.collateral, v4.now, "STALE_COLLATERAL", true),
        ("v4 with v5's", &v4.quote, &v5.collateral, v5.now, "COLLATERAL_MISMATCH", true),
        ("v5 with v4's", &v5.quote, &v4.collateral, v4.now, "STALE_COLLATERAL", true),
    ] {
        let rejected = everyones_verdict(quote, collateral, &intels_root(), now).unwrap_err();
        assert_eq!((rejected.code, passed(&rejected, CheckId::TdQuoteSignature)), (code, signed), "{name}: {rejected}");
    }
}

#[test]
fn validity_to_the_second() {
    let Genuine { quote, collateral, .. } = Genuine::v4();
    // From the QE identity's issueDate, 2025-06-19T10:32:27Z, to the PCK CRL's nextUpdate, 2025-07-19T10:00:35Z. For
    // dcap-qvl a list ends a second before that.
    let (from, to) = (UnixTime(1_750_329_147), UnixTime(1_752_919_235));
    everyones_verdict(&quote, &collateral, &intels_root(), from).unwrap();
    everyones_verdict(&quote, &collateral, &intels_root(), UnixTime(to.0 - 1)).unwrap();
    verdict(&quote, &collateral, &Root::pinned(), to).unwrap();
    for (now, part) in [(from.0 - 1, "QE identity"), (to.0 + 1, "PCK CRL")] {
        let rejected = everyones_verdict(&quote, &collateral, &intels_root(), UnixTime(now)).unwrap_err();
        assert_eq!(rejected.code, "STALE_COLLATERAL");
        assert!(rejected.failed.got.starts_with(part), "{rejected}");
    }
}

#[test]
fn debug_and_service_td_are_there_for_the_policy() {
    let debug = Quote::parse(&vector("coco/quote4.bin")).unwrap();
    assert_eq!(debug.td_attributes, attributes::DEBUG | attributes::SEPT_VE_DISABLE);
    let served = Quote::parse(&vector("coco/quote-td15.bin")).unwrap();
    assert!(served.mr_service_td.unwrap().to_string().starts_with("383c87d3bbb047b2"));
}

/// The log of a cloud's TD explains the quote of the same boot.
#[test]
fn log_of_a_cloud_gives_its_rtmrs() {
    let quote = Quote::parse(&vector("gcp-cos113/quote.bin")).unwrap();
    let ccel = vector("gcp-cos113/ccel.bin");
    let log = EventLog::parse(&ccel).unwrap();
    assert_eq!((1 + log.events.len(), log.replay_rtmrs().map(|rtmrs| rtmrs.map(Hex))), (44, Some(quote.rtmrs)));
    assert_eq!(quote.report_data.0.to_vec(), vector("gcp-cos113/nonce.bin"));
    assert!(quote.mr_td.to_string().starts_with("dae67181d3d65e07"));
}

/// dstack keeps its log as JSON; events of its own, in RTMR 3, without their digests.
#[test]
fn log_of_dstack_gives_its_rtmrs() {
    let (quote, json) = dstack();
    let quote = Quote::parse(&quote).unwrap();
    let events: Value = serde_json::from_str(json["event_log"].as_str().unwrap()).unwrap();
    let mut rtmrs = [[0; 48]; 4];
    for event in events.as_array().unwrap() {
        let text = |member: &str| event[member].as_str().unwrap();
        let digest = match event["event_type"].as_u64().unwrap() {
            0x0800_0001 => {
                let kind = 0x0800_0001_u32.to_le_bytes();
                let payload = hex::decode(text("event_payload")).unwrap();
                Sha384::digest([&kind[..], b":", text("event").as_bytes(), b":", &payload].concat()).to_vec()
            }
            _ => hex::decode(text("digest")).unwrap(),
        };
        let rtmr = &mut rtmrs[usize::try_from(event["imr"].as_u64().unwrap()).unwrap()];
        *rtmr = Sha384::digest([&rtmr[..], &digest].concat()).into();
    }
    assert_eq!(rtmrs.map(Hex), quote.rtmrs);
    // The other file of that boot holds the same quote.
    let whole: Value = serde_json::from_slice(&vector("dstack/tdx-lite-attestation.json")).unwrap();
    let bytes = hex::decode(whole["attestation"].as_str().unwrap()).unwrap();
    let start = bytes.windows(8).position(|window| window == [4, 0, 2, 0, 0x81, 0, 0, 0]).unwrap();
    let len = quote.to_bytes().len();
    assert_eq!(Quote::parse(&bytes[start..start + len]).unwrap(), quote);
}

/// Parsing, then writing, gives the bytes up to their declared end.
#[test]
fn parsed_and_written() {
    for name in ["v4-phala-uptodate", "v5-google-uptodate", "v5-phala-nomatch", "gcp-cos113"] {
        let bytes = vector(&format!("{name}/quote.bin"));
        let quote = Quote::parse(&bytes).unwrap();
        let written = quote.to_bytes();
        assert_eq!(written, bytes[..written.len()], "{name}");
        assert!(bytes[written.len()..].iter().all(|byte| *byte == 0), "{name}");
        assert_eq!(Quote::parse(&written).unwrap(), quote, "{name}");
    }
}
