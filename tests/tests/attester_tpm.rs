//! The TPM attester against swtpm, and against TPMs that lie.
//!
//! Who checks: signatures by aws-lc-rs and, where tpm2-tools is installed, by `tpm2_checkquote`; credentials are made by
//! `tpm2_makecredential`. Without swtpm a test says `skipped:` on standard error and proves nothing.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use blf_agent::attester::tpm::{Rc, Transport};
use blf_agent::attester::{Tpm, TpmFailure};
use blf_evidence::Hex;
use blf_evidence::bundle::{PCRS, TpmEvidence};
use blf_evidence::statement::Statement;
use blf_evidence::tpm::{AK_REQUIRED, ObjectAttributes, PublicKey, Quote, Signature, left_pad};
use blf_evidence::tpm::{Public, ek_p256_template, ek_rsa2048_template};
use blf_tests::swtpm::{PASSWORD, Socket, SwTpm, extend, raw, skip};
use sha2::{Digest as _, Sha256};

const STATEMENT: Statement = Statement(Hex([0x5A; 64]));
const NOWHERE: &str = "/nonexistent/event-log";
const ALL_ZERO: [u8; 32] = [0; 32];

macro_rules! swtpm {
    () => {
        match SwTpm::start() {
            Some(tpm) => tpm,
            None => return,
        }
    };
}

#[test]
fn quote_is_genuine() {
    let swtpm = swtpm!();
    let mut tpm = swtpm.attester(Path::new(NOWHERE));
    let evidence = tpm.attest(&STATEMENT).unwrap();

    let quote = Quote::parse(&evidence.quote.0).unwrap();
    assert_eq!(quote.extra_data, STATEMENT.qualifying_data());
    assert_eq!(quote.pcr_digest, digest_of_pcrs(&evidence));
    assert_eq!(evidence.pcrs.len(), PCRS);
    assert_eq!(evidence.event_log, None);
    assert_eq!(evidence.ak_certificate, None);
    assert_eq!(evidence.ak_public.0, tpm.ak_public());

    let ak = Public::parse(&evidence.ak_public.0).unwrap();
    assert!(ak.attributes.contains(AK_REQUIRED));
    assert!(!ak.attributes.contains(ObjectAttributes::DECRYPT));
    assert!(verifies(&evidence));

    let mut tampered = evidence.clone();
    tampered.quote.0[60] ^= 1;
    assert!(!verifies(&tampered));

    tpm.set_ak_certificate(vec![1, 2, 3]);
    assert_eq!(tpm.attest(&STATEMENT).unwrap().ak_certificate.unwrap().0, [1, 2, 3]);
}

#[test]
fn tpm2_checkquote_agrees() {
    let swtpm = swtpm!();
    if !installed("tpm2_checkquote") {
        return skip("tpm2_checkquote is not installed");
    }
    let mut tpm = swtpm.attester(Path::new(NOWHERE));
    let evidence = tpm.attest(&STATEMENT).unwrap();
    let dir = swtpm.dir();
    let sized = [&u16::try_from(evidence.ak_public.0.len()).unwrap().to_be_bytes()[..], &evidence.ak_public.0].concat();
    fs::write(dir.join("ak"), sized).unwrap();
    fs::write(dir.join("quote"), &evidence.quote.0).unwrap();
    fs::write(dir.join("signature"), &evidence.signature.0).unwrap();
    fs::write(dir.join("pcrs"), tpm2_tools_pcrs(&evidence)).unwrap();
    let check = |qualification: [u8; 32]| {
        Command::new("tpm2_checkquote")
            .current_dir(dir)
            .args(["-u", "ak", "-m", "quote", "-s", "signature", "-f", "pcrs"])
            .args(["-g", "sha256", "-q", &Hex(qualification).to_string()])
            .output()
            .unwrap()
    };
    let good = check(STATEMENT.qualifying_data());
    assert!(good.status.success(), "{}", String::from_utf8_lossy(&good.stderr));
    assert!(!check([0; 32]).status.success(), "another nonce must fail");
    let mut other = evidence.clone();
    other.pcrs[23].0[0] ^= 1;
    fs::write(dir.join("pcrs"), tpm2_tools_pcrs(&other)).unwrap();
    assert!(!check(STATEMENT.qualifying_data()).status.success(), "other PCR values must fail");
}

#[test]
fn extending_a_pcr_shows() {
    let swtpm = swtpm!();
    assert_eq!(swtpm.attester(Path::new(NOWHERE)).measurement_id().unwrap(), format!("tpm-pcr11:{}", Hex(ALL_ZERO)));

    extend(&mut swtpm.connect(), 11, [7; 32]);
    let mut tpm = swtpm.attester(Path::new(NOWHERE));
    let extended: [u8; 32] = Sha256::new().chain_update(ALL_ZERO).chain_update([7; 32]).finalize().into();
    assert_eq!(tpm.measurement_id().unwrap(), format!("tpm-pcr11:{}", Hex(extended)));
    let evidence = tpm.attest(&STATEMENT).unwrap();
    assert_eq!(evidence.pcrs[11].0, extended);
    assert_eq!(evidence.pcrs[12].0, ALL_ZERO);
    assert_eq!(evidence.pcrs[17].0, [0xFF; 32], "dynamic PCRs start with all bits set");
    assert!(verifies(&evidence));
}

#[test]
fn every_boot_has_a_new_ak_and_the_same_ek() {
    let swtpm = swtpm!();
    let mut seen = Vec::new();
    // swtpm has three slots for keys: that ten rounds fit shows that each round frees its two.
    for _ in 0..10 {
        let tpm = swtpm.attester(Path::new(NOWHERE));
        seen.push((tpm.ek_public(), tpm.ak_public()));
    }
    assert!(seen.iter().all(|(ek, _)| *ek == seen[0].0));
    let mut aks: Vec<_> = seen.iter().map(|(_, ak)| ak).collect();
    aks.sort();
    aks.dedup();
    assert_eq!(aks.len(), seen.len());
}

#[test]
fn pcr_changing_under_the_quote() {
    let swtpm = swtpm!();
    for (changes, stable) in [(1, true), (4, true), (u32::MAX, false)] {
        let mut left = changes;
        let transport = Hooked {
            inner: swtpm.connect(),
            after: Box::new(move |tpm, command, response| {
                if code(command) == TPM2_QUOTE && left > 0 {
                    left -= 1;
                    extend(tpm, 16, [1; 32]);
                }
                response
            }),
        };
        let mut tpm = Tpm::new(Box::new(transport), Path::new(NOWHERE)).unwrap();
        match tpm.attest(&STATEMENT) {
            Ok(evidence) => {
                assert!(stable);
                assert!(verifies(&evidence));
                assert_eq!(Quote::parse(&evidence.quote.0).unwrap().pcr_digest, digest_of_pcrs(&evidence));
            }
            Err(error) => assert!(matches!(error, TpmFailure::Unstable { .. }) && !stable, "{error}"),
        }
    }
}

#[test]
fn pcr_changing_between_reads() {
    let swtpm = swtpm!();
    let mut reads = 0;
    let transport = Hooked {
        inner: swtpm.connect(),
        after: Box::new(move |tpm, command, response| {
            if code(command) == TPM2_PCR_READ {
                reads += 1;
                if reads == 1 {
                    extend(tpm, 0, [1; 32]);
                }
            }
            response
        }),
    };
    let mut tpm = Tpm::new(Box::new(transport), Path::new(NOWHERE)).unwrap();
    let evidence = tpm.attest(&STATEMENT).unwrap();
    assert_ne!(evidence.pcrs[0].0, ALL_ZERO);
    assert_eq!(Quote::parse(&evidence.quote.0).unwrap().pcr_digest, digest_of_pcrs(&evidence));
}

#[test]
fn credential_for_this_ek_and_ak_opens() {
    let swtpm = swtpm!();
    if !installed("tpm2_makecredential") {
        return skip("tpm2_makecredential is not installed");
    }
    let mut tpm = swtpm.attester(Path::new(NOWHERE));
    assert!(matches!(Public::parse(&tpm.ek_public()).unwrap().key, PublicKey::EccP256 { .. }));
    let (ek, ak) = (tpm.ek_public(), tpm.ak_public());
    for secret in [[1; 32], [2; 32]] {
        let (id_object, encrypted_secret) = make_credential(&ek, &name(&ak), secret);
        assert_eq!(tpm.activate(&id_object, &encrypted_secret).unwrap(), secret);
    }
    assert!(tpm.attest(&STATEMENT).is_ok());
}

#[test]
fn credential_of_our_icl_opens() {
    let swtpm = swtpm!();
    let mut tpm = swtpm.attester(Path::new(NOWHERE));
    let (ek, ak) = (Public::parse(&tpm.ek_public()).unwrap(), Public::parse(&tpm.ak_public()).unwrap());
    let credential = blf_appraisal::credential::make_credential(&ek, &ak, &[6; 32]).unwrap();
    let (id_object, encrypted_secret) = (credential.id_object.to_bytes(), credential.encrypted_secret.to_bytes());
    assert_eq!(tpm.activate(&id_object, &encrypted_secret).unwrap(), [6; 32]);
}

#[test]
fn credential_for_another_ek_or_ak_does_not_open() {
    let (swtpm, other) = (swtpm!(), swtpm!());
    if !installed("tpm2_makecredential") {
        return skip("tpm2_makecredential is not installed");
    }
    let stranger = other.attester(Path::new(NOWHERE));
    let former_ak = swtpm.attester(Path::new(NOWHERE)).ak_public();
    let mut tpm = swtpm.attester(Path::new(NOWHERE));
    assert_ne!(stranger.ek_public(), tpm.ek_public());
    let (ek, ak) = (tpm.ek_public(), tpm.ak_public());
    // Each refusal holds a session until it is flushed; a TPM has room for three.
    for _ in 0..5 {
        for (what, ek, ak) in [
            ("AK of another TPM", &ek, &stranger.ak_public()),
            ("AK of an earlier boot", &ek, &former_ak),
            ("EK of another TPM", &stranger.ek_public(), &ak),
        ] {
            let (id_object, encrypted_secret) = make_credential(ek, &name(ak), [9; 32]);
            let error = tpm.activate(&id_object, &encrypted_secret).unwrap_err();
            assert!(matches!(error, TpmFailure::Refused { command: "TPM2_ActivateCredential", .. }), "{what}: {error}");
        }
    }
    let (mut id_object, encrypted_secret) = make_credential(&ek, &name(&ak), [9; 32]);
    *id_object.last_mut().unwrap() ^= 1;
    let error = tpm.activate(&id_object, &encrypted_secret).unwrap_err();
    assert!(error.to_string().contains("TPM_RC_INTEGRITY"), "{error}");
    for short in [&id_object[..10], &[]] {
        assert!(matches!(tpm.activate(short, &encrypted_secret), Err(TpmFailure::Structure(_))));
    }
}

#[test]
fn ek_certificate_decides_which_ek() {
    const P256: u32 = 0x01C0_000A;
    const RSA: u32 = 0x01C0_0002;
    // Longer than one TPM2_NV_Read, and with the padding that some makers leave behind it.
    let der = [&[0x30, 0x82, 0x04, 0xB0][..], &[0xAB; 1200]].concat();
    let padded = [&der[..], &[0xFF; 50]].concat();
    let cases = [
        ("none", vec![], false, ek_p256_template()),
        ("defined but never written", vec![(P256, None)], false, ek_p256_template()),
        ("P-256", vec![(P256, Some(&padded))], true, ek_p256_template()),
        ("RSA", vec![(RSA, Some(&padded))], true, ek_rsa2048_template()),
        ("both", vec![(RSA, Some(&padded)), (P256, Some(&padded))], true, ek_p256_template()),
    ];
    for (what, indices, present, template) in cases {
        let swtpm = swtpm!();
        for (index, content) in indices {
            nv_define_and_write(&mut swtpm.connect(), index, content.map(Vec::as_slice));
        }
        let mut tpm = swtpm.attester(Path::new(NOWHERE));
        assert_eq!(tpm.ek_certificate(), present.then_some(&der[..]), "{what}");
        let ek = Public::parse(&tpm.ek_public()).unwrap();
        assert_eq!(std::mem::discriminant(&ek.key), std::mem::discriminant(&template.key), "{what}");
        assert_eq!(ek.auth_policy, template.auth_policy);
        if installed("tpm2_makecredential") {
            let (id_object, encrypted_secret) = make_credential(&tpm.ek_public(), &name(&tpm.ak_public()), [3; 32]);
            assert_eq!(tpm.activate(&id_object, &encrypted_secret).unwrap(), [3; 32], "{what}");
        }
    }
}

#[test]
fn ek_certificate_that_is_none() {
    for content in [&[0xFF; 300][..], &[0x30, 0x82, 0x04, 0xB0, 0], &[0x30]] {
        let swtpm = swtpm!();
        nv_define_and_write(&mut swtpm.connect(), 0x01C0_000A, Some(content));
        let result = Tpm::new(Box::new(swtpm.connect()), Path::new(NOWHERE));
        assert!(matches!(result, Err(TpmFailure::NoCertificate { size }) if size == content.len()));
    }
}

#[test]
fn event_log_is_carried_and_capped() {
    let swtpm = swtpm!();
    let path = swtpm.dir().join("log");
    let mut tpm = Tpm::new(Box::new(swtpm.connect()), &path).unwrap();
    assert_eq!(tpm.attest(&STATEMENT).unwrap().event_log, None);
    fs::write(&path, vec![3; 128 * 1024]).unwrap();
    assert_eq!(tpm.attest(&STATEMENT).unwrap().event_log.unwrap().0, vec![3; 128 * 1024]);
    fs::write(&path, vec![3; 128 * 1024 + 1]).unwrap();
    let error = tpm.attest(&STATEMENT).unwrap_err();
    assert!(matches!(error, TpmFailure::TooLong { what: "event log", .. }), "{error}");
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert!(matches!(tpm.attest(&STATEMENT), Err(TpmFailure::EventLog { .. })));
}

#[test]
fn busy_tpm_is_asked_again_but_not_for_ever() {
    let swtpm = swtpm!();
    for (rc, name) in [(0x922_u32, "TPM_RC_RETRY"), (0x908, "TPM_RC_YIELDED"), (0x90A, "TPM_RC_TESTING")] {
        assert!(Rc(rc).to_string().contains(name));
        let mut left = 3;
        let transport = Hooked {
            inner: swtpm.connect(),
            after: Box::new(move |_, command, response| {
                if code(command) == TPM2_QUOTE && left > 0 {
                    left -= 1;
                    return refusal(rc);
                }
                response
            }),
        };
        let mut tpm = Tpm::new(Box::new(transport), Path::new(NOWHERE)).unwrap();
        assert!(verifies(&tpm.attest(&STATEMENT).unwrap()));
    }
    let transport = Hooked { inner: swtpm.connect(), after: Box::new(|_, _, _| refusal(0x922)) };
    let error = Tpm::new(Box::new(transport), Path::new(NOWHERE)).err().unwrap();
    assert!(matches!(error, TpmFailure::Busy { command: "TPM2_NV_ReadPublic", attempts: 40 }), "{error}");
}

#[test]
fn refusals_are_named() {
    for (command, rc, text) in [
        (TPM2_CREATE_PRIMARY, 0x9A2_u32, "TPM2_CreatePrimary: wanted success, got TPM_RC_BAD_AUTH (session 1, 0x9a2)"),
        (TPM2_CREATE_PRIMARY, 0x902, "TPM2_CreatePrimary: wanted success, got TPM_RC_OBJECT_MEMORY (0x902)"),
        (TPM2_QUOTE, 0x921, "TPM2_Quote: wanted success, got TPM_RC_LOCKOUT (0x921)"),
        (TPM2_PCR_READ, 0x101, "TPM2_PCR_Read: wanted success, got TPM_RC_FAILURE (0x101)"),
        (TPM2_PCR_READ, 0xB_0143, "TPM2_PCR_Read: wanted success, got response code (0xb0143)"),
    ] {
        let swtpm = swtpm!();
        let transport = Hooked {
            inner: swtpm.connect(),
            after: Box::new(move |_, got, response| if code(got) == command { refusal(rc) } else { response }),
        };
        let result = Tpm::new(Box::new(transport), Path::new(NOWHERE));
        let error = match result {
            Ok(mut tpm) => tpm.attest(&STATEMENT).unwrap_err(),
            Err(error) => error,
        };
        assert_eq!(error.to_string(), text);
    }
}

#[test]
fn hostile_responses_are_errors() {
    let swtpm = swtpm!();
    if !installed("tpm2_makecredential") {
        return skip("tpm2_makecredential is not installed");
    }
    nv_define_and_write(
        &mut swtpm.connect(),
        0x01C0_000A,
        Some(&[&[0x30, 0x82, 0x02, 0x58][..], &[0xAB; 600]].concat()),
    );
    // A genuine run through all commands, taken down.
    let tape = Arc::new(Mutex::new(Vec::new()));
    let recorder = {
        let tape = Arc::clone(&tape);
        Hooked {
            inner: swtpm.connect(),
            after: Box::new(move |_, command, response| {
                // swtpm does ask for a repetition when a key is first used; here that would only cost time.
                if response[6..] != 0x922_u32.to_be_bytes() {
                    tape.lock().unwrap().push((code(command), response.clone()));
                }
                response
            }),
        }
    };
    let mut tpm = Tpm::new(Box::new(recorder), Path::new(NOWHERE)).unwrap();
    let credential = make_credential(&tpm.ek_public(), &name(&tpm.ak_public()), [4; 32]);
    assert_eq!(tpm.activate(&credential.0, &credential.1).unwrap(), [4; 32]);
    let genuine = tpm.attest(&STATEMENT).unwrap();
    let tape = tape.lock().unwrap().clone();
    for wanted in [0x169, 0x14E, TPM2_CREATE_PRIMARY, 0x176, 0x151, 0x147, TPM2_QUOTE, TPM2_PCR_READ] {
        assert!(tape.iter().any(|(code, _)| *code == wanted), "0x{wanted:x} was not exercised");
    }

    let run = |tape: &[(u32, Vec<u8>)]| -> Result<TpmEvidence, TpmFailure> {
        let mut tpm = Tpm::new(Box::new(Replay::new(tape)), Path::new(NOWHERE))?;
        tpm.activate(&credential.0, &credential.1)?;
        tpm.attest(&STATEMENT)
    };
    assert_eq!(run(&tape).unwrap(), genuine, "the tape itself must play");

    let mut errors = 0;
    for i in 0..tape.len() {
        let response = &tape[i].1;
        let mut refused = |what: &str, bytes: Vec<u8>| {
            let mut tape = tape.clone();
            tape[i].1 = bytes;
            let result = run(&tape);
            assert!(result.is_err(), "0x{:x} {what} was believed: {:02x?}", tape[i].0, tape[i].1);
            errors += 1;
        };
        for length in 0..response.len() {
            refused(&format!("cut to {length} bytes"), response[..length].to_vec());
            // The same cut, with a size that says so: only the inner bounds are left to notice.
            let mut honest = response[..length].to_vec();
            if length >= 10 {
                honest[2..6].copy_from_slice(&u32::try_from(length).unwrap().to_be_bytes());
                refused(&format!("cut to {length} declared bytes"), honest);
            }
        }
        refused("with a byte more", [&response[..], &[0]].concat());
        let mut longer = [&response[..], &[0]].concat();
        longer[2..6].copy_from_slice(&u32::try_from(response.len() + 1).unwrap().to_be_bytes());
        refused("with a declared byte more", longer);
        refused("of 64 KiB", [&response[..], &vec![0; 65536]].concat());
        for tag in [0x8001_u16, 0x8002, 0x00C4, 0xFFFF] {
            if response[..2] != tag.to_be_bytes() {
                refused("with another tag", [&tag.to_be_bytes()[..], &response[2..]].concat());
            }
        }
        // Not every flipped bit can be seen here (a signature's, say), but none may panic or hang.
        for at in 0..response.len() {
            for flip in [0x01, 0x80, 0xFF] {
                let mut tape = tape.clone();
                tape[i].1[at] ^= flip;
                let _ = run(&tape);
            }
        }
    }
    assert!(errors > 2000, "only {errors} hostile responses were tried");
}

const TPM2_CREATE_PRIMARY: u32 = 0x131;
const TPM2_QUOTE: u32 = 0x158;
const TPM2_PCR_READ: u32 = 0x17E;

/// Sees every command and its response, and may send others in between or answer in the TPM's place.
struct Hooked {
    inner: Socket,
    after: Box<Hook>,
}

/// Takes the TPM, a command and its response; gives the response that the attester sees.
type Hook = dyn FnMut(&mut Socket, &[u8], Vec<u8>) -> Vec<u8> + Send;

/// Answers each command with the next response of its kind, whatever it asks.
struct Replay(RefCell<VecDeque<(u32, Vec<u8>)>>);

impl Transport for Hooked {
    fn transmit(&mut self, command: &[u8]) -> io::Result<Vec<u8>> {
        let response = self.inner.transmit(command)?;
        Ok((self.after)(&mut self.inner, command, response))
    }
}

impl Replay {
    fn new(tape: &[(u32, Vec<u8>)]) -> Self {
        Self(RefCell::new(tape.iter().cloned().collect()))
    }
}

impl Transport for Replay {
    fn transmit(&mut self, command: &[u8]) -> io::Result<Vec<u8>> {
        let tape = self.0.get_mut();
        match tape.iter().position(|(kind, _)| *kind == code(command)) {
            Some(next) => Ok(tape.remove(next).unwrap().1),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

fn code(command: &[u8]) -> u32 {
    u32::from_be_bytes(command[6..10].try_into().unwrap())
}

fn refusal(rc: u32) -> Vec<u8> {
    [&[0x80, 0x01, 0, 0, 0, 10][..], &rc.to_be_bytes()].concat()
}

/// TPM2_NV_DefineSpace and TPM2_NV_Write by the owner, as a maker provisions a certificate.
fn nv_define_and_write(tpm: &mut Socket, index: u32, content: Option<&[u8]>) {
    let owner = 0x4000_0001_u32.to_be_bytes();
    let attributes: u32 = (1 << 1) | (1 << 17) | (1 << 18) | (1 << 25); // OWNERWRITE, OWNERREAD, AUTHREAD, NO_DA
    let size = u16::try_from(content.map_or(64, <[u8]>::len)).unwrap();
    let mut public = index.to_be_bytes().to_vec();
    public.extend([0, 0x0B]);
    public.extend(attributes.to_be_bytes());
    public.extend([0, 0]);
    public.extend(size.to_be_bytes());
    let length = u16::try_from(public.len()).unwrap().to_be_bytes();
    raw(tpm, 0x12A, &[&owner[..], &PASSWORD, &[0, 0], &length, &public].concat());
    let mut offset = 0_u16;
    for chunk in content.unwrap_or_default().chunks(512) {
        let length = u16::try_from(chunk.len()).unwrap();
        let parameters = [&length.to_be_bytes()[..], chunk, &offset.to_be_bytes()].concat();
        raw(tpm, 0x137, &[&owner[..], &index.to_be_bytes(), &PASSWORD, &parameters].concat());
        offset += length;
    }
}

/// `tpm2_makecredential`, which knows nothing of our code: id object and encrypted secret for a TPMT_PUBLIC.
///
/// It leaves the leading zeros of a coordinate away, once in 128 times; blf's own ICL never does, and the agent insists.
fn make_credential(ek: &[u8], ak_name: &[u8], secret: [u8; 32]) -> (Vec<u8>, Vec<u8>) {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::write(at("ek"), [&u16::try_from(ek.len()).unwrap().to_be_bytes()[..], ek].concat()).unwrap();
    fs::write(at("secret"), secret).unwrap();
    loop {
        let output = Command::new("tpm2_makecredential")
            .current_dir(dir.path())
            .args(["-T", "none", "-u", "ek", "-s", "secret", "-o", "out"])
            .args(["-n", &ak_name.iter().map(|b| format!("{b:02x}")).collect::<String>()])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let out = fs::read(at("out")).unwrap();
        assert_eq!(out[..8], [0xBA, 0xDC, 0xC0, 0xDE, 0, 0, 0, 1]); // tpm2-tools' own header
        let split = 10 + usize::from(u16::from_be_bytes([out[8], out[9]]));
        if matches!(out.len() - split, 70 | 258) {
            return (out[8..split].to_vec(), out[split..].to_vec());
        }
    }
}

/// The PCR file of tpm2-tools: its own C structures TPML_PCR_SELECTION and TPML_DIGEST, little-endian.
fn tpm2_tools_pcrs(evidence: &TpmEvidence) -> Vec<u8> {
    let mut out = vec![1, 0, 0, 0, 0x0B, 0, 3, 0xFF, 0xFF, 0xFF, 0, 0];
    out.resize(4 + 16 * 8, 0);
    out.extend([3, 0, 0, 0]);
    for eight in evidence.pcrs.chunks(8) {
        out.extend([8, 0, 0, 0]);
        for pcr in eight {
            out.extend([32, 0]);
            out.extend(pcr.0);
            out.extend([0; 32]);
        }
    }
    out
}

fn name(public: &[u8]) -> Vec<u8> {
    [&[0, 0x0B][..], &Sha256::digest(public)].concat()
}

fn installed(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok()
}

fn digest_of_pcrs(evidence: &TpmEvidence) -> Vec<u8> {
    let mut digest = Sha256::new();
    for pcr in &evidence.pcrs {
        digest.update(pcr.0);
    }
    digest.finalize().to_vec()
}

/// The AK signed the quote, says aws-lc-rs.
fn verifies(evidence: &TpmEvidence) -> bool {
    let point = Public::parse(&evidence.ak_public.0).unwrap().point_or_modulus().unwrap();
    let Signature::Ecdsa { r, s, .. } = Signature::parse(&evidence.signature.0).unwrap() else { return false };
    let signature = [left_pad::<32>(&r).unwrap(), left_pad::<32>(&s).unwrap()].concat();
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(&evidence.quote.0, &signature).is_ok()
}
