//! `blf show`: every kind by its content, in the names of its standard; what is broken by the field that is.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use blf_evidence::Base64;
use blf_evidence::bundle::Platform;
use blf_evidence::endorsements::{Endorsements, SnpEndorsements};
use serde_json::Value;
use x509_cert::der::pem::decode_vec;

use super::node::Node;
use super::{blf, object, schema, text, vector};

/// A file of one kind, what must be shown of it (in lines with single spaces), and what is said of its first half.
struct Case {
    kind: &'static str,
    file: Vec<u8>,
    lines: &'static [&'static str],
    half: &'static str,
}

fn case(kind: &'static str, file: Vec<u8>, lines: &'static [&'static str], half: &'static str) -> Case {
    Case { kind, file, lines, half }
}

/// A member of a JSON vector, as bytes from hex or as text.
fn member(file: &[u8], pointer: &str) -> Vec<u8> {
    let value: Value = serde_json::from_slice(file).unwrap();
    let text = value.pointer(pointer).and_then(Value::as_str).unwrap_or_else(|| panic!("{pointer}"));
    hex::decode(text).unwrap_or_else(|_| text.as_bytes().to_vec())
}

/// A certificate table of one certificate, as a host lends it.
fn table(vcek: &[u8]) -> Vec<u8> {
    let guid = hex::decode("8d75da6364e66445adc5f4b93be8accd").unwrap();
    let length = u32::try_from(vcek.len()).unwrap();
    [&guid[..], &48_u32.to_le_bytes(), &length.to_le_bytes(), &[0; 24], vcek].concat()
}

/// Everything that a node may send along.
fn stapled(collateral: &[u8]) -> Vec<u8> {
    let (_, vek) = decode_vec(&vector("appraisal", "snp/turin-v5-azure/vcek.pem")).unwrap();
    let snp = SnpEndorsements { vek: Some(Base64(vek)), ..SnpEndorsements::default() };
    let stapled =
        Endorsements { snp: Some(snp), tdx: super::collateral::collateral(collateral), ..Endorsements::default() };
    stapled.to_json().unwrap().into_bytes()
}

fn pem_of(der: &[u8], label: &str) -> String {
    let base64 = STANDARD.encode(der);
    let lines: Vec<&str> = base64.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

fn cases() -> Vec<Case> {
    let appraisal = |name: &str| vector("appraisal", name);
    let collateral = appraisal("tdx/v4-phala-uptodate/collateral.json");
    let swtpm = vector("evidence", "tpm/swtpm.json");
    vec![
        case(
            "snp-report",
            appraisal("snp/turin-v5-azure/report.bin"),
            &[
                "VERSION 5",
                "VMPL 0",
                "DEBUG 0",
                "ALIAS_CHECK_COMPLETE 1",
                "SIGNING_KEY 0 (VCEK)",
                "MEASUREMENT 6d6c354511d6f7c6",
                "FMC 1",
                "MICROCODE 81",
                "product Turin",
                "not vouched for: who made it",
            ],
            "ATTESTATION_REPORT: wanted 1184 bytes, got ",
        ),
        case(
            "snp-report",
            appraisal("snp/milan-v2-google/report.bin"),
            &["VERSION 2", "DEBUG 1", "BOOT_LOADER", "CPUID_FAM_ID none"],
            "1184",
        ),
        case(
            "certificate-table",
            table(&appraisal("snp/milan-v2-virtee/vcek.der")),
            &["productName Milan-B0", "CN=SEV-VCEK", "ARK none"],
            "certificate table: entry 0",
        ),
        case(
            "td-quote",
            appraisal("tdx/v4-phala-uptodate/quote.bin"),
            &[
                "version 4",
                "mr_td 91eb2b44d141d4ec",
                "rt_mr3",
                "report_data 9a9d48e7f6799642",
                "SEPT_VE_DISABLE 1",
                "SGX TCB Comp01 SVN",
                "FMSPC b0c06f000000",
                "mr_service_td none",
            ],
            "quote signature data: wanted",
        ),
        case("td-quote", appraisal("tdx/coco/quote4.bin"), &["DEBUG 1"], "quote signature data: wanted"),
        case(
            "td-report",
            appraisal("azure/hcl-report-tdx.bin")[32..1056].to_vec(),
            &["MRTD", "RTMR3", "TEE_TCB_SVN", "REPORTDATA", "only the processor that made it"],
            "TDREPORT: wanted 1024 bytes, got ",
        ),
        case(
            "hcl-report",
            appraisal("azure/hcl-report-snp.bin"),
            &["signature HCLA", "ATTESTATION_REPORT", "HCLAkPub.n", "secure-boot"],
            "HCL report",
        ),
        case(
            "hcl-report",
            appraisal("azure/hcl-report-tdx.bin"),
            &["report_type 4 (TDX_VM_REPORT)", "TDREPORT", "MRSEAM"],
            "HCL report: wanted 1236 to 8192 bytes",
        ),
        case(
            "tpm-quote",
            vector("evidence", "tpm/az-quote.msg"),
            &[
                "type 0x8018 (TPM_ST_ATTEST_QUOTE)",
                "extraData 6368616c6c656e6765",
                "pcrSelect.hash TPM_ALG_SHA256",
                "(PCR 0 1 2 3",
            ],
            "clockInfo",
        ),
        case(
            "tpm-signature",
            member(&swtpm, "/p256/signature"),
            &["sigAlg TPM_ALG_ECDSA", "ecdsa.signatureR"],
            "ecdsa.signature",
        ),
        case("tpm-public", member(&swtpm, "/p256/ak_public"), &["type TPM_ALG_ECC", "restricted", "Name 000b"], ""),
        case(
            "event-log",
            vector("evidence", "eventlog/gcp-ubuntu2404-snp.bin"),
            &[
                "TPM_ALG_SHA256 (32 bytes)",
                "PCR eventType",
                "EV_EFI_VARIABLE_DRIVER_CONFIG",
                "SecureBoot,",
                "replay",
                "PCR 9 ",
            ],
            "event log, event",
        ),
        case(
            "event-log",
            vector("evidence", "eventlog/ccel-ovmf.bin"),
            &["RTMR eventType", "SHA-384", "EV_EFI_HANDOFF_TABLES", "RTMR 0"],
            "",
        ),
        case(
            "certificate",
            appraisal("snp/turin-v5-azure/vcek.pem"),
            &["CN=SEV-Turin", "fmcSPL 1", "ucodeSPL 81", "hwID 59790fb1c39f35c1", "secp384r1"],
            "certificates, 0",
        ),
        case(
            "certificate",
            appraisal("snp/milan-v3-vlek/vlek.der"),
            &["cspID CN=cc-us-east-2.amazonaws.com", "productName Milan", "id-RSASSA-PSS"],
            "Certificate:",
        ),
        case(
            "certificate",
            member(&collateral, "/tcb_info_issuer_chain"),
            &["CN=Intel SGX TCB Signing", "CN=Intel SGX Root CA", "keyCertSign"],
            "certificates,",
        ),
        case(
            "crl",
            member(&collateral, "/pck_crl"),
            &["thisUpdate", "CN=Intel SGX PCK Platform CA", "cRLNumber"],
            "CertificateList:",
        ),
        case(
            "crl",
            pem_of(&member(&collateral, "/root_ca_crl"), "X509 CRL").into_bytes(),
            &["CN=Intel SGX Root CA", "nextUpdate"],
            "CRLs, 0",
        ),
        case(
            "tcb-info",
            member(&collateral, "/tcb_info"),
            &["fmspc", "tcbEvaluationDataNumber", "tcbStatus", "INTEL-SA-", "UpToDate"],
            "tcbInfo: EOF",
        ),
        case(
            "qe-identity",
            member(&collateral, "/qe_identity"),
            &["mrsigner", "id TD_QE", "isvsvn"],
            "enclaveIdentity: EOF",
        ),
        case(
            "evidence",
            Node::new().evidence.to_json().unwrap().into_bytes(),
            &[
                "statement 0505050505050505050505050505050505050505",
                "audience",
                "platform tpm",
                "TPMS_ATTEST",
                "EV_EFI_BOOT_SERVICES_APPLICATION",
                "11",
                "endorsements none",
            ],
            "as evidence: evidence: EOF",
        ),
        case(
            "policy",
            appraisal("../../policies/released.json"),
            &["minimum_tier", "not vouched for: anything"],
            "policy: EOF",
        ),
        case(
            "references",
            Node::new().references.to_json().unwrap().into_bytes(),
            &["version 0.1.0", "11"],
            "references: EOF",
        ),
        case(
            "endorsements",
            stapled(&collateral),
            &[
                "CN=SEV-Turin",
                "fmcSPL 1",
                "ark none",
                "CN=Intel SGX TCB Signing",
                "thisUpdate",
                "fmspc B0C06F000000",
                "id TD_QE",
            ],
            "endorsements: EOF",
        ),
        case(
            "release",
            vector("blf", "devnet/devnet-release.json"),
            &["measurement_id tpm-pcr11:b06a3308a4891bc9", "name systemd-boot-efi"],
            "release manifest: EOF",
        ),
        case(
            "network",
            vector("blf", "devnet/network.json"),
            &["model blf-tiny-1", "pinning_token 11 bytes, not shown", "development 1"],
            "network: EOF",
        ),
        case(
            "profile",
            std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../../agent/profiles/devnet.json")).unwrap(),
            &["name devnet", "id"],
            "network profile: EOF",
        ),
    ]
}

#[test]
fn every_kind_by_its_content() {
    let (dir, schema) = (tempfile::tempdir().unwrap(), schema("show"));
    for (index, case) in cases().iter().enumerate() {
        let path = dir.path().join(format!("{index}")).display().to_string();
        std::fs::write(&path, &case.file).unwrap();
        let output = blf(&["show", &path]);
        let shown = text(&output.stdout);
        assert!(output.status.success(), "{index} {}: {}", case.kind, text(&output.stderr));
        assert!(shown.starts_with(&format!("{}: ", case.kind)), "{index}: {shown}");
        let squeezed: String =
            shown.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ") + "\n").collect();
        for line in case.lines {
            assert!(squeezed.contains(line), "{index} {}: {line:?} is not in\n{squeezed}", case.kind);
        }
        assert_eq!(shown.matches("not vouched for: ").count(), 1, "{shown}");
        let json = object(&blf(&["--json", "show", "--kind", case.kind, &path]));
        assert!(schema.is_valid(&json), "{json}");
        assert_eq!(json["kind"], case.kind);
    }
}

#[test]
fn half_a_file_names_the_field() {
    let dir = tempfile::tempdir().unwrap();
    for (index, case) in cases().iter().enumerate() {
        let path = dir.path().join(format!("{index}")).display().to_string();
        // Half of what is not the padding of a buffer.
        let end = case.file.iter().rposition(|byte| !matches!(byte, 0 | 0xFF)).unwrap();
        std::fs::write(&path, &case.file[..end / 2]).unwrap();
        let output = blf(&["--json", "show", &path]);
        assert_eq!(output.status.code(), Some(1), "{index} {}: {}", case.kind, text(&output.stdout));
        let failure = &object(&output)["failure"];
        assert_eq!(failure["code"], "UNKNOWN_FILE");
        let message = failure["message"].as_str().unwrap();
        assert!(message.contains(&format!("as {}: ", case.kind)), "{message}");
        assert!(message.contains(case.half), "{index} {}: {:?} is not in {message}", case.kind, case.half);
    }
}

#[test]
fn what_is_nothing_known_says_what_was_tried() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name).display().to_string();
        std::fs::write(&path, bytes).unwrap();
        path
    };
    for (path, tried, not_tried) in [
        (file("junk", b"\xAA\xBB\xCC"), ["snp-report", "td-quote", "tpm-public", "event-log", "crl"], "evidence"),
        (file("json", b"{}"), ["evidence", "endorsements", "policy", "references", "tcb-info"], "td-quote"),
    ] {
        let output = blf(&["show", &path]);
        assert_eq!(output.status.code(), Some(1));
        let said = text(&output.stderr);
        for kind in tried {
            assert!(said.contains(&format!("\n  as {kind}: ")), "{kind}: {said}");
        }
        assert!(!said.contains(&format!("as {not_tried}:")), "{said}");
        assert!(said.contains("next: blf show --kind"), "{said}");
    }
    let empty = blf(&["show", &file("empty", b"")]);
    assert_eq!(empty.status.code(), Some(1), "no bytes are no certificate table either");
    let large = file("large", &vec![b' '; 5 * 1024 * 1024]);
    let output = blf(&["--json", "show", &large]);
    assert_eq!((output.status.code(), &object(&output)["failure"]["code"]), (Some(6), &"FILE".into()));
}

/// What a stranger wrote is shown, and obeyed by no terminal.
#[test]
fn hostile_words() {
    let hostile = "m\u{1b}]52;c;bGVhaw==\u{7}\u{9b}31m\u{202e}";
    let mut node = Node::new();
    node.evidence.config = format!("{{\"name\":{}}}", serde_json::to_string(hostile).unwrap());
    let log = vector("evidence", "eventlog/crypto-agile.bin");
    let header = 32 + u32::from_le_bytes(log[28..32].try_into().unwrap()) as usize;
    let words = b"w\x1b]52;c;bGVhaw==\x07";
    // PCR 8, EV_IPL, one digest, SHA-256.
    let size = u8::try_from(words.len()).unwrap();
    let event = [&[8, 0, 0, 0, 0x0D, 0, 0, 0, 1, 0, 0, 0, 0x0B, 0][..], &[0; 32], &[size, 0, 0, 0], words];
    let Platform::Tpm(tpm) = &mut node.evidence.platform else { unreachable!() };
    tpm.event_log = Some(Base64([&log[..header], &event.concat()].concat()));
    let path = node.write("evidence.json", node.evidence.to_json().unwrap());
    for arguments in [&["show", &path][..], &["--json", "show", &path]] {
        let output = blf(arguments);
        let shown = text(&output.stdout);
        assert!(output.status.success(), "{shown}");
        assert_eq!(shown.matches("bGVhaw==").count(), 2, "{shown}");
        let obeyed = shown.chars().find(|c| (c.is_control() && *c != '\n') || *c == '\u{202e}');
        assert_eq!(obeyed, None, "{shown:?}");
    }
}

#[test]
fn own_policies_need_no_file() {
    for (arguments, tier) in [
        (&["--json", "show", "--policy"][..], 0),
        (&["--json", "show", "--policy", "devnet"], 0),
        (&["--json", "show", "--policy", "released"], 1),
        (&["--json", "show", "--policy", "confidential"], 2),
    ] {
        let object = object(&blf(arguments));
        assert_eq!((&object["kind"], &object["fields"]["minimum_tier"]), (&"policy".into(), &tier.into()));
    }
    assert_eq!(blf(&["show"]).status.code(), Some(2));
}
