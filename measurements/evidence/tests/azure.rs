//! HCL reports as Azure's paravisor writes them: what is in them, one form each, and what is refused.

use base64::Engine as _;
use base64::engine::general_purpose::{URL_SAFE, URL_SAFE_NO_PAD};
use blf_evidence::azure::{
    HCL_REPORT_CAP, HardwareReport, HclError, HclReport, RuntimeData, SNP_REPORT_SIZE, TD_REPORT_SIZE, TdReport,
};
use proptest::prelude::*;
use sha2::{Digest as _, Sha256};

/// Where the TDREPORT, the request data and the runtime data start.
const HARDWARE: usize = 32;
const REQUEST: usize = HARDWARE + SNP_REPORT_SIZE;
const RUNTIME: usize = REQUEST + 20;

fn vector(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/../appraisal/tests/vectors/azure/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// Every HCL report at hand, by the kind of hardware below it.
fn reports() -> [(&'static str, Vec<u8>); 4] {
    let member = |file: &str| {
        let evidence: serde_json::Value = serde_json::from_slice(&vector(file)).unwrap();
        URL_SAFE.decode(evidence["hcl_report"].as_str().unwrap()).unwrap()
    };
    [
        ("snp", vector("hcl-report-snp.bin")),
        ("snp", member("evidence-snp-v1.json")),
        ("tdx", vector("hcl-report-tdx.bin")),
        ("tdx", member("evidence-tdx-v1.json")),
    ]
}

fn of(kind: &str) -> Vec<u8> {
    reports().into_iter().find(|(other, _)| *other == kind).unwrap().1
}

#[test]
fn real_reports() {
    for (kind, raw) in reports() {
        let hcl = HclReport::parse(&raw).unwrap();
        assert_eq!(hcl.to_bytes(), raw);
        let digest = Sha256::digest(&hcl.runtime_data);
        assert_eq!(hcl.hardware.report_data(), [&digest[..], &[0; 32]].concat()[..]);
        assert!(hcl.padding > 100, "real reports are padded to their NV index");
        match &hcl.hardware {
            HardwareReport::Snp(report) => {
                assert_eq!((kind, &report[..]), ("snp", &raw[HARDWARE..REQUEST]));
            }
            HardwareReport::Tdx(report) => {
                assert_eq!((kind, &report.to_bytes()[..]), ("tdx", &raw[HARDWARE..HARDWARE + TD_REPORT_SIZE]));
                assert_eq!(report.rtmrs, [blf_evidence::Hex([0; 48]); 4], "Azure's firmware extends none");
            }
        }
    }
}

#[test]
fn real_runtime_data() {
    let data = RuntimeData::parse(&HclReport::parse(&of("snp")).unwrap().runtime_data).unwrap();
    assert_eq!(hex::encode(&data.ak_modulus[..8]), "b58541a6000104e7");
    assert_eq!(data.vm_configuration.vm_unique_id.as_deref(), Some("BAEFD3E1-184B-4C4C-AB88-0BDAD260505F"));
    assert_eq!((data.vm_configuration.secure_boot, data.vm_configuration.console_enabled), (Some(true), Some(true)));
    assert_eq!(data.vm_configuration.tpm_persisted, None, "older paravisors do not say");
    let data = RuntimeData::parse(&HclReport::parse(&of("tdx")).unwrap().runtime_data).unwrap();
    assert_eq!((data.vm_configuration.secure_boot, data.vm_configuration.tpm_persisted), (Some(false), Some(false)));
    assert_eq!(data.ak_modulus[..4], [0xB2, 0x07, 0xA8, 0x15]);
}

/// Each row puts bytes where they do not belong, and names what is complained about.
#[test]
fn refusals() {
    let huge = u32::MAX.to_le_bytes();
    let word = |value: u32| value.to_le_bytes();
    let rows: [(&str, &str, &str, usize, &[u8]); 30] = [
        ("another signature", "snp", "signature", 0, b"HCLB"),
        ("version 0", "snp", "version", 4, &word(0)),
        ("version 3", "snp", "version", 4, &word(3)),
        ("report_size one less", "snp", "report_size", 8, &word(1818)),
        ("report_size huge", "snp", "report_size", 8, &huge),
        ("a key release request", "snp", "request_type", 12, &word(1)),
        ("a status", "snp", "status", 16, &word(1)),
        ("reserved 0", "snp", "reserved", 20, &[1]),
        ("reserved 2", "snp", "reserved", 31, &[1]),
        ("data_size one more", "snp", "data_size", REQUEST, &word(604)),
        ("data_size huge", "snp", "data_size", REQUEST, &huge),
        ("request data of version 2", "snp", "request_data.version", REQUEST + 4, &word(2)),
        ("no report", "snp", "report_type", REQUEST + 8, &word(0)),
        ("a VBS report", "snp", "report_type", REQUEST + 8, &word(1)),
        ("a trusted VM without report", "snp", "report_type", REQUEST + 8, &word(3)),
        ("SNP taken for TDX", "snp", "REPORTTYPE.TYPE", REQUEST + 8, &word(4)),
        ("SHA-384", "snp", "report_data_hash_type", REQUEST + 12, &word(2)),
        ("no hash", "snp", "report_data_hash_type", REQUEST + 12, &word(0)),
        ("no runtime data", "snp", "variable_data_size", REQUEST + 16, &word(0)),
        ("variable_data_size huge", "snp", "variable_data_size", REQUEST + 16, &huge),
        ("variable_data_size one behind the end", "snp", "variable_data_size", REQUEST + 16, &word(813)),
        ("variable_data_size one less", "snp", "data_size", REQUEST + 16, &word(582)),
        ("padding that is not zero", "snp", "padding", 2047, &[1]),
        ("a type that is no TD's", "tdx", "REPORTTYPE.TYPE", HARDWARE, &[0]),
        ("a subtype", "tdx", "REPORTTYPE.SUBTYPE", HARDWARE + 1, &[1]),
        ("REPORTTYPE of version 2", "tdx", "REPORTTYPE.VERSION", HARDWARE + 2, &[2]),
        ("a bit in reserved", "tdx", "REPORTMACSTRUCT.RESERVED", HARDWARE + 4, &[1]),
        ("a bit behind TEE_TCB_INFO", "tdx", "TDREPORT_STRUCT.RESERVED", HARDWARE + 500, &[1]),
        ("an edited MRTD", "tdx", "TEE_INFO_HASH", HARDWARE + 512 + 16, &[0xEE]),
        ("an edited TEE_TCB_SVN", "tdx", "TEE_TCB_INFO_HASH", HARDWARE + 256 + 8, &[0xEE]),
    ];
    for (name, kind, field, at, patch) in rows {
        let good = of(kind);
        HclReport::parse(&good).unwrap();
        let mut bad = good.clone();
        bad[at..at + patch.len()].copy_from_slice(patch);
        assert_ne!(bad, good, "{name}: no effect");
        assert_eq!(HclReport::parse(&bad).unwrap_err().field, field, "{name}");
    }
    let error = HclReport::parse(&[0; 1236]).unwrap_err();
    assert_eq!(error.to_string(), "signature: wanted 0x414c4348, got 0x0");
}

#[test]
fn lengths() {
    for (_, good) in reports() {
        let size = good.len() - HclReport::parse(&good).unwrap().padding;
        for len in 0..size {
            assert!(HclReport::parse(&good[..len]).is_err(), "cut to {len}");
        }
        // Padding means nothing, up to the cap; it is written back as it came.
        for len in [size, size + 1, HCL_REPORT_CAP] {
            let mut padded = good.clone();
            padded.resize(len, 0);
            assert_eq!(HclReport::parse(&padded).unwrap().to_bytes(), padded, "{len}");
        }
        let mut long = good.clone();
        long.resize(HCL_REPORT_CAP + 1, 0);
        assert_eq!(HclReport::parse(&long).unwrap_err().field, "HCL report");
    }
}

/// Nothing outside the hardware report, the runtime data and what the module names may take another value.
#[test]
fn one_flipped_bit() {
    for (kind, good) in reports() {
        let size = good.len() - HclReport::parse(&good).unwrap().padding;
        let mut accepted = Vec::new();
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            if let Ok(hcl) = HclReport::parse(&bad) {
                assert_eq!(hcl.to_bytes(), bad, "bit {bit}");
                accepted.push(bit / 8);
            }
        }
        accepted.dedup();
        // Signed, or compared with what is signed: the report and the runtime data.
        let covered = |at: &usize| (HARDWARE..REQUEST).contains(at) || (RUNTIME..size).contains(at);
        assert_eq!(accepted.iter().filter(|at| !covered(at)).count(), 0, "{kind}: {accepted:?}");
        if kind == "tdx" {
            let report = accepted.iter().filter(|at| **at < REQUEST).map(|at| at - HARDWARE);
            // REPORTTYPE.VERSION, CPUSVN, REPORTDATA, MAC: the digests cover all the rest.
            let free = [2].into_iter().chain(16..32).chain(128..192).chain(224..256);
            assert!(report.eq(free), "{accepted:?}");
        }
    }
}

/// What a library's tests call a TDREPORT are random bytes.
#[test]
fn a_td_report_that_is_none() {
    let raw = vector("../tdx/report/tdreport.bin");
    assert_eq!(TdReport::parse(&raw).unwrap_err().to_string(), "REPORTTYPE.TYPE: wanted 0x81, got 0xf");
    assert_eq!(TdReport::parse(&raw[1..]).unwrap_err().to_string(), "TDREPORT: wanted 1024 bytes, got 1023");
}

/// Runtime data as the paravisor could be made to say, each without what makes an AK of them.
#[test]
fn runtime_data_refused() {
    let good = String::from_utf8(HclReport::parse(&of("tdx")).unwrap().runtime_data).unwrap();
    let modulus = good.split("\"n\":\"").nth(1).unwrap().split('"').next().unwrap().to_string();
    let bytes = URL_SAFE_NO_PAD.decode(&modulus).unwrap();
    let spelled = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let ak = &good[good.find('{').unwrap() + 9..good.find("},{").unwrap() + 1];
    assert!(ak.starts_with("{\"kid\":\"HCLAkPub\"") && ak.ends_with('}'), "{ak}");
    RuntimeData::parse(good.as_bytes()).unwrap();
    for (name, field, from, to) in [
        ("no AK", "keys", "HCLAkPub", "HCLTransferKey"),
        ("two AKs", "keys", "HCLEkPub", "HCLAkPub"),
        ("the AK once more", "keys", ak, &format!("{ak},{ak}")),
        ("a name twice", "runtime data", "\"kty\":\"RSA\"", "\"kty\":\"RSA\",\"kty\":\"RSA\""),
        ("a name twice, once escaped", "runtime data", "\"n\":\"", "\"\\u006e\":\"AA\",\"n\":\""),
        ("keys twice", "runtime data", "\"vm-configuration\"", "\"keys\":[],\"vm-configuration\""),
        (
            "a name twice among what we do not read",
            "runtime data",
            "\"user-data\"",
            "\"x\":{\"a\":1,\"a\":2},\"user-data\"",
        ),
        ("EC", "HCLAkPub.kty", "\"kty\":\"RSA\"", "\"kty\":\"EC\""),
        ("e = 3", "HCLAkPub.e", "AQAB", "Aw"),
        ("e = 65537 with a zero in front", "HCLAkPub.e", "AQAB", "AAEAAQ"),
        ("no e", "HCLAkPub.e", "\"e\":\"AQAB\",", ""),
        ("1024 bits", "HCLAkPub.n", &modulus, &spelled(&bytes[..128])),
        ("4096 bits", "HCLAkPub.n", &modulus, &spelled(&[&bytes[..], &bytes].concat())),
        ("a zero in front", "HCLAkPub.n", &modulus, &spelled(&[&[0], &bytes[..]].concat())),
        ("2047 bits", "HCLAkPub.n", &modulus, &spelled(&[&[0x7F], &bytes[1..]].concat())),
        ("padded base64", "HCLAkPub.n", &modulus, &format!("{modulus}==")),
        ("standard base64", "HCLAkPub.n", &modulus, &modulus.replace(['-', '_'], "+")),
        ("bits behind its end", "HCLAkPub.n", &modulus, &format!("{}R", &modulus[..modulus.len() - 1])),
        ("no modulus", "HCLAkPub.n", &modulus, ""),
        ("a number for text", "runtime data", "\"e\":\"AQAB\"", "\"e\":65537"),
        ("an object for keys", "runtime data", "\"keys\":[", "\"keys\":{},\"other\":["),
        ("not JSON", "runtime data", "{\"keys\"", "\"keys\""),
        ("a list", "runtime data", "{\"keys\"", "[{\"keys\""),
        ("another document behind it", "runtime data", "\"user-data\":\"", "\"user-data\":\"\"}{\"x\":\""),
    ] {
        let bad = good.replacen(from, to, 1);
        assert_ne!(bad, good, "{name}: no effect");
        let error: HclError = RuntimeData::parse(bad.as_bytes()).expect_err(name);
        assert_eq!(error.field, field, "{name}: {error}");
    }
    // What Microsoft may add does not matter, unless it is our AK.
    for (from, to) in [
        ("\"vm-configuration\":{", "\"vm-configuration\":{\"filtered-vpci-devices-allowed\":true,"),
        ("\"user-data\"", "\"new\":{\"deep\":[1,null]},\"user-data\""),
        ("\"keys\":[", "\"keys\":[{\"kty\":\"EC\",\"crv\":\"P-384\"},"),
        ("\"key_ops\":[\"sign\"]", "\"key_ops\":[\"encrypt\"],\"alg\":\"RS256\""),
    ] {
        let other = good.replacen(from, to, 1);
        assert_ne!(other, good, "{from}: no effect");
        assert_eq!(RuntimeData::parse(other.as_bytes()).unwrap(), RuntimeData::parse(good.as_bytes()).unwrap());
    }
}

#[test]
fn messages_are_one_short_line() {
    let good = String::from_utf8(HclReport::parse(&of("snp")).unwrap().runtime_data).unwrap();
    let bad = good.replacen("\"kty\":\"RSA\"", &format!("\"kty\":\"\\u001b[2J\\n{}\"", "é".repeat(3000)), 1);
    let message = RuntimeData::parse(bad.as_bytes()).unwrap_err().to_string();
    assert!(message.starts_with("HCLAkPub.kty: wanted RSA, got"), "{message}");
    assert!(message.len() < 5000 && message.bytes().all(|b| b == b' ' || b.is_ascii_graphic()), "{message}");
}

proptest! {
    /// Whatever is accepted is written back unchanged.
    #[test]
    fn accepted_bytes_round_trip(kind in prop_oneof![Just("snp"), Just("tdx")], edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4)) {
        let mut raw = of(kind);
        for (at, byte) in edits {
            let at = at.index(raw.len());
            raw[at] = byte;
        }
        if let Ok(hcl) = HclReport::parse(&raw) {
            prop_assert_eq!(hcl.to_bytes(), raw);
        }
    }

    /// What is built is read back.
    #[test]
    fn what_is_built_is_read_back(version in 1_u32..3, data in prop::collection::vec(any::<u8>(), 1..2000), padding in 0_usize..2000, report: u8) {
        let hardware = HardwareReport::Snp(Box::new([report; SNP_REPORT_SIZE]));
        let hcl = HclReport { version, hardware, runtime_data: data, padding };
        prop_assert_eq!(&HclReport::parse(&hcl.to_bytes()).unwrap(), &hcl);
    }

    #[test]
    fn any_bytes(raw in prop::collection::vec(any::<u8>(), 0..3000)) {
        let _ = (HclReport::parse(&raw), RuntimeData::parse(&raw), TdReport::parse(&raw));
        let mut headed = of("tdx");
        let len = raw.len().min(headed.len() - HARDWARE);
        headed[HARDWARE..HARDWARE + len].copy_from_slice(&raw[..len]);
        let _ = HclReport::parse(&headed);
    }
}
