//! Real TCG event logs, their replay as an independent parser has it, and what a hostile log may not do.

use std::path::{Path, PathBuf};

use blf_evidence::Base64;
use blf_evidence::eventlog::{EV_EFI_BOOT_SERVICES_APPLICATION, EVENT_LOG_CAP, EventLog};

fn vector(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/eventlog").join(name)
}

fn log(name: &str) -> Vec<u8> {
    std::fs::read(vector(name)).unwrap()
}

/// Compares every register the oracle names; the others must still have their initial value.
fn compare<const N: usize>(name: &str, oracle: &serde_json::Value, replay: Option<&[[u8; N]; 24]>) {
    let (Some(oracle), Some(replay)) = (oracle.as_object(), replay) else {
        assert_eq!(oracle.is_object(), replay.is_some(), "{name}");
        return;
    };
    for (index, value) in replay.iter().enumerate() {
        let initial = if (17..=22).contains(&index) { [0xFF; N] } else { [0; N] };
        let wanted =
            oracle.get(&index.to_string()).map_or_else(|| hex::encode(initial), |v| v.as_str().unwrap().into());
        assert_eq!(hex::encode(value), wanted, "{name}, PCR {index}");
    }
}

#[test]
fn replay_equals_the_oracle() {
    let oracle: serde_json::Value = serde_json::from_slice(&log("expected-replay.json")).unwrap();
    for (name, wanted) in oracle.as_object().unwrap() {
        let bytes = log(name);
        let log = EventLog::parse(&bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(log.events.len() as u64 + 1, wanted["events"].as_u64().unwrap(), "{name}: header and events");
        compare(name, &wanted["replay"]["sha256"], log.replay_sha256().as_ref());
        compare(name, &wanted["replay"]["sha384"], log.replay_sha384().as_ref());
    }
}

/// Event by event, as another parser has them.
#[test]
fn events_equal_the_oracle() {
    for name in ["ccel-ovmf", "ccel-grub"] {
        let oracle: serde_json::Value = serde_json::from_slice(&log(&format!("{name}.json"))).unwrap();
        let bytes = log(&format!("{name}.bin"));
        let log = EventLog::parse(&bytes).unwrap();
        let wanted = oracle["uefi_event_logs"].as_array().unwrap();
        assert_eq!(log.events.len(), wanted.len(), "{name}");
        for (event, wanted) in log.events.iter().zip(wanted) {
            assert_eq!(u64::from(event.pcr), wanted["index"].as_u64().unwrap(), "{name}: {wanted}");
            assert_eq!(event.kind_name().to_string(), wanted["type_name"].as_str().unwrap(), "{name}");
            assert_eq!(hex::encode(event.sha384.unwrap()), wanted["digests"][0]["digest"].as_str().unwrap(), "{name}");
            assert_eq!(Base64(event.data.to_vec()).to_string(), wanted["event"].as_str().unwrap(), "{name}");
        }
    }
}

/// A CC event log counts RTMRs from 1; MRTD and registers that do not exist cannot be extended.
#[test]
fn rtmrs() {
    let bytes = log("ccel-ovmf.bin");
    let parsed = EventLog::parse(&bytes).unwrap();
    let replay = parsed.replay_sha384().unwrap();
    assert_eq!(parsed.replay_rtmrs().unwrap()[..], replay[1..5]);
    assert_ne!(replay[1], [0; 48]);
    let first = 32 + 33; // the first event begins with its register
    for register in [0, 5, 17] {
        let mut bad = bytes.clone();
        assert_eq!(bad[first], 1);
        bad[first] = register;
        assert_eq!(EventLog::parse(&bad).unwrap().replay_rtmrs(), None, "{register}");
    }
    assert_eq!(EventLog::parse(&log("crypto-agile.bin")).unwrap().replay_rtmrs(), None, "no SHA-384 bank");
}

#[test]
fn events_of_one_register() {
    let bytes = log("gcp-ubuntu2404-snp.bin");
    let log = EventLog::parse(&bytes).unwrap();
    assert!(log.extended(4).any(|event| event.kind == EV_EFI_BOOT_SERVICES_APPLICATION));
    assert!(log.extended(4).all(|event| event.pcr == 4));
    assert_eq!(log.extended(12).count(), 0);
}

#[test]
fn truncated_no_action() {
    let error = EventLog::parse(&log("bad-short-no-action.bin")).unwrap_err();
    assert_eq!(error.event, 0, "{error}");
}

#[test]
fn every_truncation_is_refused_or_ends_between_events() {
    let bytes = log("crypto-agile.bin");
    let whole = EventLog::parse(&bytes).unwrap().events.len();
    let mut ends = 0;
    for len in 0..bytes.len() {
        if let Ok(log) = EventLog::parse(&bytes[..len]) {
            assert!(log.events.len() < whole, "{len}");
            ends += 1;
        }
    }
    // Between events, and inside the padding-like first bytes of an event that begins with zeros.
    assert!(ends >= whole && ends < 16 * whole, "{ends}");
}

#[test]
fn padding_must_reach_the_end() {
    let mut bytes = log("crypto-agile.bin");
    let events = EventLog::parse(&bytes).unwrap().events.len();
    for padding in [0x00, 0xFF] {
        let mut padded = bytes.clone();
        padded.resize(bytes.len() + 100, padding);
        assert_eq!(EventLog::parse(&padded).unwrap().events.len(), events);
        padded.push(1);
        assert!(EventLog::parse(&padded).is_err(), "{padding:#x}");
    }
    bytes.resize(EVENT_LOG_CAP + 1, 0);
    assert!(EventLog::parse(&bytes).unwrap_err().to_string().contains("at most 512 KiB"));
}

#[test]
fn hostile_members() {
    let bytes = log("crypto-agile.bin");
    // The header is 32 bytes and 33 of Spec ID event; the first event follows.
    let first = 32 + 33;
    for (name, offset, patch) in [
        ("header of another type", 4, &[4_u8][..]),
        ("header with a digest", 8, &[1]),
        ("header longer than the log", 28, &[0xFF, 0xFF, 0xFF, 0x7F]),
        ("other specification", 32, b"X"),
        ("no algorithm", 56, &[0]),
        ("a billion algorithms", 56, &[0, 0, 0, 0x40]),
        ("SHA-256 of 20 bytes", 62, &[20]),
        ("PCR 24", first, &[24]),
        ("PCR 0x01000000", first, &[0, 0, 0, 1]),
        ("digest count 0", first + 8, &[0]),
        ("digest count 2", first + 8, &[2]),
        ("undeclared algorithm", first + 12, &[0x0C]),
        ("event longer than the log", first + 46, &[0xFF, 0xFF, 0xFF, 0xFF]),
    ] {
        let mut bad = bytes.clone();
        bad[offset..offset + patch.len()].copy_from_slice(patch);
        assert_ne!(bad, bytes, "{name}: no effect");
        assert!(EventLog::parse(&bad).is_err(), "{name}");
    }
}

#[test]
fn startup_locality_sets_pcr_0() {
    /// `TCG_PCR_EVENT2` for a log with one SHA-256 bank.
    fn event(pcr: u32, kind: u32, digest: [u8; 32], data: &[u8]) -> Vec<u8> {
        let mut out = [pcr, kind, 1].map(u32::to_le_bytes).concat();
        out.extend(0x000B_u16.to_le_bytes());
        out.extend(digest);
        out.extend(u32::try_from(data.len()).unwrap().to_le_bytes());
        out.extend(data);
        out
    }
    let header = log("crypto-agile.bin")[..65].to_vec();
    let locality = |value: u8| event(0, 3, [0; 32], &[b"StartupLocality\0", &[value][..]].concat());
    for (name, events, wanted) in [
        ("locality 3", locality(3), 3_u8),
        ("locality 4", locality(4), 4),
        ("no such locality", locality(9), 0),
        ("another PCR's event", event(1, 3, [0; 32], b"StartupLocality\0\x03"), 0),
    ] {
        let bytes = [&header[..], &events].concat();
        let pcrs = EventLog::parse(&bytes).unwrap().replay_sha256().unwrap();
        assert_eq!(pcrs[0][31], wanted, "{name}");
    }
    // Said too late, it changes nothing.
    let late = [&header[..], &event(0, 8, [7; 32], b""), &locality(3)].concat();
    let early = [&header[..], &event(0, 8, [7; 32], b"")].concat();
    let replay = |bytes: &[u8]| EventLog::parse(bytes).unwrap().replay_sha256();
    assert_eq!(replay(&late), replay(&early));
}
