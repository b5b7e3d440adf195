//! ATTESTATION_REPORTs and certificate tables: parse then write is the identity, and what is refused.

use blf_evidence::Hex;
use blf_evidence::snp::{CertificateTable, CertificateTableError, Family, Report, ReportError, TABLE_CAP, Tcb};
use proptest::prelude::*;

/// A report of Turin, version 5, as the ABI lays it out: every byte that may be set is.
fn turin() -> Vec<u8> {
    let mut report: Vec<u8> = (0..Report::SIZE).map(|index| u8::try_from(index % 251).unwrap() | 1).collect();
    let mut put = |at: usize, field: &[u8]| report[at..at + field.len()].copy_from_slice(field);
    put(0x000, &[5, 0, 0, 0]);
    put(0x008, &0x3FF_FFFF_u64.to_le_bytes());
    put(0x034, &[1, 0, 0, 0]);
    put(0x040, &[0xFF, 0, 0, 0, 0, 0, 0, 0]);
    put(0x048, &[0b111, 0, 0, 0, 0, 0, 0, 0]);
    put(0x188, &[0x1A, 0x02, 1]);
    for (start, end) in [(0x18B, 0x1A0), (0x1EB, 0x1EC), (0x1EF, 0x1F0), (0x208, 0x2A0), (0x2D0, 0x2E8), (0x318, 0x4A0)]
    {
        put(start, &vec![0; end - start]);
    }
    for tcb in [0x038, 0x180, 0x1E0, 0x1F0] {
        put(tcb, &[1, 2, 3, 4, 0, 0, 0, 8]);
    }
    report
}

/// The same of Milan, in version 2 or 3.
fn milan(version: u8) -> Vec<u8> {
    let mut report = turin();
    let mut put = |at: usize, field: &[u8]| report[at..at + field.len()].copy_from_slice(field);
    put(0x000, &[version]);
    put(0x188, if version == 2 { &[0; 3] } else { &[0x19, 0x01, 1] });
    put(0x1F8, &[0; 16]);
    for tcb in [0x038, 0x180, 0x1E0, 0x1F0] {
        put(tcb, &[1, 2, 0, 0, 0, 0, 7, 8]);
    }
    report
}

fn good() -> [Vec<u8>; 3] {
    [milan(2), milan(3), turin()]
}

#[test]
fn parse_then_write() {
    for bytes in good() {
        let report = Report::parse(&bytes).unwrap();
        assert_eq!(report.to_bytes(), *bytes, "version {}", report.version);
        assert_eq!(Report::signed_part(&bytes).unwrap(), &bytes[..0x2A0]);
    }
    assert_eq!(Report::signed_part(&[0; 0x29F]), None);
}

/// Each field from where the ABI puts it.
#[test]
fn fields() {
    let bytes = turin();
    let report = Report::parse(&bytes).unwrap();
    let u32 = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let u64 = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    assert_eq!((report.version, report.guest_svn, report.vmpl), (5, u32(4), u32(0x30)));
    assert_eq!((report.policy, report.platform_info), (0x3FF_FFFF, 0xFF));
    assert_eq!((report.family_id.0, report.image_id.0), (field(&bytes, 0x10), field(&bytes, 0x20)));
    assert_eq!((report.author_key_enabled, report.mask_chip_key, report.signing_key), (true, true, 1));
    assert_eq!(report.report_data.0, field(&bytes, 0x50));
    assert_eq!((report.measurement.0, report.host_data.0), (field(&bytes, 0x90), field(&bytes, 0xC0)));
    assert_eq!((report.id_key_digest.0, report.author_key_digest.0), (field(&bytes, 0xE0), field(&bytes, 0x110)));
    assert_eq!((report.report_id.0, report.report_id_ma.0), (field(&bytes, 0x140), field(&bytes, 0x160)));
    assert_eq!((report.cpuid, report.chip_id.0), (Some([0x1A, 2, 1]), field(&bytes, 0x1A0)));
    assert_eq!(report.current_firmware, [bytes[0x1EA], bytes[0x1E9], bytes[0x1E8]]);
    assert_eq!(report.committed_firmware, [bytes[0x1EE], bytes[0x1ED], bytes[0x1EC]]);
    assert_eq!(report.launch_mitigations, Some(u64(0x1F8)));
    assert_eq!(report.current_mitigations, Some(u64(0x200)));
    let (mut r, mut s): ([u8; 48], [u8; 48]) = (field(&bytes, 0x2A0), field(&bytes, 0x2E8));
    r.reverse();
    s.reverse();
    assert_eq!((&report.signature.0[..48], &report.signature.0[48..]), (&r[..], &s[..]));
    let tcb = report.reported_tcb.components(Family::Turin);
    assert_eq!(tcb.to_string(), "fmc 1, bootloader 2, tee 3, snp 4, microcode 8");
    let tcb = Report::parse(&milan(2)).unwrap().launch_tcb.components(Family::Milan);
    assert_eq!(tcb.to_string(), "bootloader 1, tee 2, snp 7, microcode 8");
    assert_eq!(Tcb([1, 2, 0, 0, 0, 0, 7, 8]).components(Family::Genoa), tcb);
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().unwrap()
}

#[test]
fn families() {
    for (cpuid, family) in [
        ([0x19, 0x01, 1], Some(Family::Milan)),
        ([0x19, 0x0F, 0], Some(Family::Milan)),
        ([0x19, 0x10, 0], Some(Family::Genoa)),
        ([0x19, 0x1F, 0], Some(Family::Genoa)),
        ([0x19, 0x20, 0], None),
        ([0x19, 0x9F, 0], None),
        ([0x19, 0xA0, 2], Some(Family::Genoa)),
        ([0x19, 0xAF, 2], Some(Family::Genoa)),
        ([0x19, 0xB0, 2], None),
        ([0x1A, 0x02, 1], Some(Family::Turin)),
        ([0x1A, 0x1F, 1], Some(Family::Turin)),
        ([0x1A, 0x20, 1], None),
        ([0x17, 0x31, 0], None),
    ] {
        assert_eq!(Family::of_cpuid(cpuid), family, "{cpuid:x?}");
    }
}

#[test]
fn lengths() {
    for length in [0, 1, 1183, 1185, 2368] {
        assert_eq!(Report::parse(&vec![0; length]), Err(ReportError::Length { got: length }));
    }
}

/// A bit that the ABI reserves is refused wherever it is, with the field's name.
#[test]
fn reserved_bits() {
    // Offset, mask of the reserved bits, how many bytes, name.
    let everywhere = [
        (0x00B, 0xFC, 1, "POLICY"),
        (0x00C, 0xFF, 4, "POLICY"),
        (0x041, 0xFF, 7, "PLATFORM_INFO"),
        (0x048, 0xE0, 1, "KEY_INFO"),
        (0x049, 0xFF, 3, "KEY_INFO"),
        (0x04C, 0xFF, 4, "reserved"),
        (0x18B, 0xFF, 0x15, "reserved"),
        (0x1EB, 0xFF, 1, "reserved"),
        (0x1EF, 0xFF, 1, "reserved"),
        (0x208, 0xFF, 0x98, "reserved"),
        (0x2D0, 0xFF, 24, "reserved"),
        (0x318, 0xFF, 24, "reserved"),
        (0x330, 0xFF, 0x170, "reserved"),
    ];
    let of_turin = [0x038, 0x180, 0x1E0, 0x1F0].map(|at| (at + 4, 0xFF, 3, "TCB"));
    let of_milan = [0x038, 0x180, 0x1E0, 0x1F0].map(|at| (at + 2, 0xFF, 4, "TCB"));
    let before_5 = [(0x1F8, 0xFF, 16, "reserved")];
    let before_3 = [(0x188, 0xFF, 3, "reserved")];
    let [v2, v3, v5] = good();
    for (genuine, more) in [
        (v2, [&of_milan[..], &before_5, &before_3].concat()),
        (v3, [&of_milan[..], &before_5].concat()),
        (v5, of_turin.to_vec()),
    ] {
        for (start, mask, count, name) in [&everywhere[..], &more].concat() {
            for (at, bit) in (start..start + count).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
                if mask >> bit & 1 == 0 {
                    continue;
                }
                let mut bad = genuine.clone();
                bad[at] ^= 1 << bit;
                let error = Report::parse(&bad).unwrap_err().to_string();
                assert!(error.contains(name), "bit {bit} at 0x{at:x}: {error}");
            }
        }
    }
}

#[test]
fn values_that_are_not_defined() {
    let message = |at: usize, bytes: &[u8]| {
        let mut bad = turin();
        bad[at..at + bytes.len()].copy_from_slice(bytes);
        Report::parse(&bad).unwrap_err().to_string()
    };
    for version in [0, 1, 4, 6, 0xFF] {
        assert_eq!(message(0, &[version]), format!("VERSION: wanted 2, 3 or 5, got 0x{version:x}"));
    }
    assert_eq!(message(1, &[1]), "VERSION: wanted 2, 3 or 5, got 0x105");
    for algorithm in [0, 2] {
        assert_eq!(message(0x34, &[algorithm]), format!("SIGNATURE_ALGO: wanted 1, got 0x{algorithm:x}"));
    }
    for key in 2..=6 {
        let wanted = format!("SIGNING_KEY: wanted 0 (VCEK), 1 (VLEK) or 7 (none), got 0x{key:x}");
        assert_eq!(message(0x48, &[key << 2]), wanted);
    }
    assert!(message(0x0A, &[0]).starts_with("POLICY: wanted bit 17 one, bits 26 to 63 zero, got 0x3"));
    assert_eq!(message(0x2D0, &[7]), "reserved: wanted zero at offset 0x2d0, got 0x7");
}

/// The bytes of TCB_VERSION that a family does not use are known only where the family is.
#[test]
fn a_family_that_nobody_knows_still_parses() {
    let mut report = turin();
    report[0x188..0x18A].copy_from_slice(&[0x1A, 0x50]);
    report[0x03C] = 9;
    let parsed = Report::parse(&report).unwrap();
    assert_eq!((parsed.cpuid.and_then(Family::of_cpuid), parsed.to_bytes().to_vec()), (None, report));
}

const VCEK: &str = "8d75da6364e66445adc5f4b93be8accd";
const VLEK: &str = "c24b07a85aa23e48aae639c045a0b8a1";
const ASK: &str = "79b3b74aacbbe44fa02f05aef327c782";
const ARK: &str = "a406b4c003a8524997433fb6014cd0ae";

fn entry(guid: &str, offset: u32, length: u32) -> Vec<u8> {
    [&hex::decode(guid).unwrap()[..], &offset.to_le_bytes(), &length.to_le_bytes()].concat()
}

/// Entries, their end, and a hundred bytes to point at.
fn table(entries: &[Vec<u8>]) -> Vec<u8> {
    [entries.concat(), vec![0; 24], (1..=100).collect()].concat()
}

#[test]
fn certificates_of_a_table() {
    let at = 24 * 6;
    let bytes = table(&[
        entry(ARK, at + 3, 1),
        entry("ffffffffffffffffffffffffffffffff", at + 10, 90),
        entry(VLEK, at + 1, 1),
        entry(ASK, at + 2, 1),
        entry(VCEK, at, 1),
    ]);
    let table = CertificateTable::parse(&bytes).unwrap();
    let wanted = CertificateTable { vcek: Some(&[1]), vlek: Some(&[2]), ask: Some(&[3]), ark: Some(&[4]) };
    assert_eq!(table, wanted);
    assert_eq!(CertificateTable::parse(&[]).unwrap(), CertificateTable::default());
    assert_eq!(CertificateTable::parse(&[0; 4096]).unwrap(), CertificateTable::default());
    assert_eq!(CertificateTable::parse(&[0; 24]).unwrap(), CertificateTable::default());
}

#[test]
fn tables_that_are_refused() {
    let range = |bytes: &[u8], wanted: usize| {
        let error = CertificateTable::parse(bytes).unwrap_err();
        assert!(matches!(error, CertificateTableError::Range { index, .. } if index == wanted), "{error}");
    };
    // One entry, its end, a hundred bytes: 148.
    for (offset, length) in [
        (0, 1),
        (47, 1),
        (24, 24),
        (48, 101),
        (148, 1),
        (149, 0),
        (48, 0),
        (u32::MAX, 2),
        (48, u32::MAX),
        (u32::MAX, u32::MAX),
    ] {
        range(&table(&[entry(VCEK, offset, length)]), 0);
        range(&table(&[entry("ffffffffffffffffffffffffffffffff", offset, length)]), 0);
    }
    CertificateTable::parse(&table(&[entry(VCEK, 48, 100)])).unwrap();
    for (offset, length) in [(72, 50), (121, 1), (71, 2), (72, 100), (80, 10)] {
        range(&table(&[entry(VCEK, 72, 50), entry(ASK, offset, length)]), 1);
    }
    let twice = table(&[entry(VCEK, 72, 50), entry(VCEK, 122, 50)]);
    let duplicate = CertificateTableError::Duplicate { certificate: "the VCEK" };
    assert_eq!(CertificateTable::parse(&twice), Err(duplicate));
    for unterminated in [&[0; 23][..], &[1; 24], &table(&[entry(VCEK, 48, 100)])[..40]] {
        assert_eq!(CertificateTable::parse(unterminated), Err(CertificateTableError::Unterminated));
    }
    let long = CertificateTable::parse(&[0; TABLE_CAP + 1]);
    assert_eq!(long, Err(CertificateTableError::Length { got: TABLE_CAP + 1 }));
    CertificateTable::parse(&[0; TABLE_CAP]).unwrap();
}

proptest! {
    /// Whatever parses is written as it came.
    #[test]
    fn identity(noise in proptest::collection::vec((0..Report::SIZE, any::<u8>()), 0..20), which in 0_usize..3) {
        let mut bytes = good()[which].clone();
        noise.into_iter().for_each(|(at, byte)| bytes[at] = byte);
        if let Ok(report) = Report::parse(&bytes) {
            prop_assert_eq!(report.to_bytes().to_vec(), bytes);
        }
    }

    /// Whatever a report says, its bytes say the same.
    #[test]
    fn write_then_parse(
        data in any::<[u8; 32]>(), key in prop_oneof![Just(0_u8), Just(1), Just(7)], vmpl in any::<u32>(), masked in any::<bool>(),
        vectors in any::<(u64, u64)>(), which in 0_usize..3,
    ) {
        let mut report = Report::parse(&good()[which]).unwrap();
        (report.host_data, report.signing_key, report.vmpl, report.mask_chip_key) = (Hex(data), key, vmpl, masked);
        report.signature.0[..32].copy_from_slice(&data);
        if report.version == 5 {
            (report.launch_mitigations, report.current_mitigations) = (Some(vectors.0), Some(vectors.1));
        }
        prop_assert_eq!(Report::parse(&report.to_bytes()).unwrap(), report);
    }

    #[test]
    fn no_panic(bytes in proptest::collection::vec(any::<u8>(), 0..1300)) {
        let _ = Report::parse(&bytes);
        let _ = CertificateTable::parse(&bytes);
    }

    /// Entries with numbers near the edges, whole tables of them: certificates lie in the table, and apart.
    #[test]
    fn certificates_lie_apart(entries in proptest::collection::vec((0..5_usize, 0..400_u32, 0..60_u32), 0..8)) {
        let guids = [VCEK, VLEK, ASK, ARK, "0123456789abcdef0123456789abcdef"];
        let entries: Vec<_> = entries.into_iter().map(|(guid, offset, length)| entry(guids[guid], offset, length)).collect();
        let bytes = table(&entries);
        if let Ok(table) = CertificateTable::parse(&bytes) {
            let found: Vec<_> = [table.vcek, table.vlek, table.ask, table.ark].into_iter().flatten().collect();
            let start = |slice: &[u8]| slice.as_ptr() as usize - bytes.as_ptr() as usize;
            for (index, one) in found.iter().enumerate() {
                prop_assert!(start(one) >= (entries.len() + 1) * 24 && start(one) + one.len() <= bytes.len());
                for other in &found[index + 1..] {
                    prop_assert!(start(one) + one.len() <= start(other) || start(other) + other.len() <= start(one));
                }
            }
        }
    }
}
