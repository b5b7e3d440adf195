//! A TPM that is not ours: it activates our credentials, and its quote over a real boot is appraised.
//! Skipped where swtpm or tpm2-tools are not installed.

#[path = "common/node.rs"]
mod node;
#[path = "common/swtpm.rs"]
mod software;

use blf_appraisal::credential::{Credential, make_credential};
use blf_appraisal::result::PlatformClaims;
use blf_evidence::eventlog::EventLog;
use blf_evidence::statement::Statement;
use blf_evidence::tpm::{ObjectAttributes, Public};
use blf_evidence::{Base64, Hex};
use node::{Setting, boot_vector, tpm_of};
use software::Swtpm;

/// A TPM that is not ours, driven by tools that are not ours, returns our secret.
#[test]
fn swtpm_activates_our_credential() {
    let Some(tpm) = Swtpm::start() else { return };
    for (kind, signing) in [("ecc", "ecdsa"), ("rsa", "rsassa")] {
        assert!(tpm.run("tpm2_createek", &["-c", "ek.ctx", "-G", kind, "-u", "ek.pub", "-f", "tss"]), "{kind}");
        let ak =
            ["-C", "ek.ctx", "-c", "ak.ctx", "-G", kind, "-g", "sha256", "-s", signing, "-u", "ak.pub", "-f", "tss"];
        assert!(tpm.run("tpm2_createak", &ak), "{kind}");
        tpm.run("tpm2_flushcontext", &["-l"]);
        let ek = Public::parse_sized(&tpm.read("ek.pub")).unwrap();
        let ak = Public::parse_sized(&tpm.read("ak.pub")).unwrap();
        let credential = make_credential(&ek, &ak, &[7; 32]).unwrap();
        assert_eq!(activate(&tpm, &credential), Some(vec![7; 32]), "{kind}");
        let mut other = ak.clone();
        other.attributes = other.attributes.union(ObjectAttributes::NO_DA);
        let wrong = make_credential(&ek, &other, &[7; 32]).unwrap();
        assert_eq!(activate(&tpm, &wrong), None, "{kind}: the TPM's AK has another Name");
    }
}

fn activate(tpm: &Swtpm, credential: &Credential) -> Option<Vec<u8>> {
    // The file format of tpm2-tools: magic, version, TPM2B_ID_OBJECT, TPM2B_ENCRYPTED_SECRET.
    let head = [0xBADC_C0DE_u32, 1].map(u32::to_be_bytes).concat();
    let blob = [head, credential.id_object.to_bytes(), credential.encrypted_secret.to_bytes()].concat();
    tpm.write("blob", &blob);
    assert!(tpm.run("tpm2_startauthsession", &["--policy-session", "-S", "session"]));
    assert!(tpm.run("tpm2_policysecret", &["-S", "session", "-c", "e"]));
    let args = ["-c", "ak.ctx", "-C", "ek.ctx", "-i", "blob", "-o", "secret", "-P", "session:session"];
    let done = tpm.run("tpm2_activatecredential", &args);
    tpm.run("tpm2_flushcontext", &["-s"]);
    tpm.run("tpm2_flushcontext", &["-l"]);
    done.then(|| tpm.read("secret"))
}

/// What a boot measured is measured again by swtpm, which then quotes it.
#[test]
fn swtpm_s_quote_is_appraised() {
    let Some(tpm) = Swtpm::start() else { return };
    let raw = boot_vector("kernel.log");
    let events = EventLog::parse(&raw).unwrap().events;
    let extended = events.iter().filter(|event| event.kind != blf_evidence::eventlog::EV_NO_ACTION);
    for event in extended {
        let digest = format!("{}:sha256={}", event.pcr, Hex(event.sha256.unwrap()));
        assert!(tpm.run("tpm2_pcrextend", &[&digest]), "{digest}");
    }
    assert!(tpm.run("tpm2_createek", &["-c", "ek.ctx", "-G", "ecc", "-u", "ek.pub", "-f", "tss"]));
    let ak = ["-C", "ek.ctx", "-c", "ak.ctx", "-G", "ecc", "-g", "sha256", "-s", "ecdsa", "-u", "ak.pub", "-f", "tss"];
    assert!(tpm.run("tpm2_createak", &ak));
    tpm.run("tpm2_flushcontext", &["-l"]);

    let mut setting = Setting::new();
    // PCR 10 is the kernel's, which this TPM never met.
    setting.pcrs[10] = Hex([0; 32]);
    let mut evidence = setting.evidence();
    let statement = Statement::new(setting.binding.keys.node, evidence.binding.as_bytes());
    let qualifying_data = hex::encode(statement.qualifying_data());
    let quote =
        ["-c", "ak.ctx", "-l", "sha256:all", "-q", &qualifying_data, "-m", "quote", "-s", "sig", "-g", "sha256"];
    assert!(tpm.run("tpm2_quote", &quote));
    let ak = Public::parse_sized(&tpm.read("ak.pub")).unwrap();
    let part = tpm_of(&mut evidence);
    part.quote = Base64(tpm.read("quote"));
    part.signature = Base64(tpm.read("sig"));
    part.ak_public = Base64(ak.to_bytes());
    part.ak_certificate = Some(setting.ca.certify(&ak));
    let result = setting.verdict(&evidence).unwrap();
    assert_eq!(result.tier, 0);
    let PlatformClaims::Tpm(claims) = &result.claims else { panic!("{:?}", result.claims) };
    assert_eq!(claims.ak_name, hex::encode(ak.name()));
    tpm_of(&mut evidence).quote.0[87] ^= 1;
    assert_eq!(setting.refusal(&evidence).code, "QUOTE_SIGNATURE", "its reset counter altered");
}
