//! Credential activation against a software TPM's own arithmetic, and against swtpm where it is installed.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use aws_lc_rs::agreement::{ECDH_P256, PrivateKey, UnparsedPublicKey, agree};
use aws_lc_rs::{cipher, digest, hmac, iv};
use blf_appraisal::credential::{Credential, CredentialError, make_credential};
use blf_evidence::tpm::{
    EncryptedSecret, ObjectAttributes, Public, PublicKey, ak_p256_template, ek_p256_template, ek_rsa2048_template,
};

/// An EK, and the side of the exchange that a TPM has.
struct Ek(PrivateKey, Public);

impl Ek {
    fn new() -> Self {
        let key = PrivateKey::generate(&ECDH_P256).unwrap();
        let mut public = ek_p256_template();
        set_point(&mut public, key.compute_public_key().unwrap().as_ref());
        Self(key, public)
    }

    /// `TPM2_ActivateCredential` (Part 3, 12.5): `None` when the integrity check fails.
    fn activate(&self, credential: &Credential, ak_name: &[u8]) -> Option<Vec<u8>> {
        let EncryptedSecret::EccP256 { x, y } = &credential.encrypted_secret else { panic!("not for P-256") };
        let point = [&[4][..], x, y].concat();
        let own_x = &self.1.point_or_modulus().unwrap()[1..33];
        let seed = agree(&self.0, UnparsedPublicKey::new(&ECDH_P256, &point), (), |z| {
            Ok(digest::digest(&digest::SHA256, &[&[0, 0, 0, 1], z, b"IDENTITY\0", x, own_x].concat()).as_ref().to_vec())
        });
        let seed = hmac::Key::new(hmac::HMAC_SHA256, &seed.unwrap());
        let integrity = hmac::sign(&seed, &[&[0, 0, 0, 1][..], b"INTEGRITY\0", &256_u32.to_be_bytes()].concat());
        let integrity = hmac::Key::new(hmac::HMAC_SHA256, integrity.as_ref());
        let id = &credential.id_object;
        hmac::verify(&integrity, &[&id.enc_identity, ak_name].concat(), &id.integrity_hmac).ok()?;
        let storage = hmac::sign(&seed, &[&[0, 0, 0, 1][..], b"STORAGE\0", ak_name, &128_u32.to_be_bytes()].concat());
        let key = cipher::UnboundCipherKey::new(&cipher::AES_128, &storage.as_ref()[..16]).unwrap();
        let mut identity = id.enc_identity.clone();
        let context = cipher::DecryptionContext::Iv128(iv::FixedLength::from([0; 16]));
        cipher::DecryptingKey::cfb128(key).unwrap().decrypt(&mut identity, context).unwrap();
        assert_eq!(identity[..2], [0, 32]);
        Some(identity[2..].to_vec())
    }
}

fn set_point(public: &mut Public, point: &[u8]) {
    let PublicKey::EccP256 { x, y, .. } = &mut public.key else { panic!("not P-256") };
    (*x, *y) = (point[1..33].to_vec(), point[33..].to_vec());
}

fn ak() -> Public {
    let mut public = ak_p256_template();
    set_point(&mut public, PrivateKey::generate(&ECDH_P256).unwrap().compute_public_key().unwrap().as_ref());
    public
}

#[test]
fn only_the_right_pair_of_keys_opens_it() {
    let (ek, ak) = (Ek::new(), ak());
    let credential = make_credential(&ek.1, &ak, &[7; 32]).unwrap();
    assert_eq!(ek.activate(&credential, &ak.name()), Some(vec![7; 32]));
    assert_eq!(Ek::new().activate(&credential, &ak.name()), None, "another TPM");
    assert_eq!(ek.activate(&credential, &self::ak().name()), None, "another AK");
    let again = make_credential(&ek.1, &ak, &[7; 32]).unwrap();
    assert_ne!(again.id_object, credential.id_object, "a fresh seed each time");
}

#[test]
fn keys_that_are_refused() {
    let (ek, good) = (Ek::new().1, ak());
    make_credential(&ek, &good, &[7; 32]).unwrap();
    let refuse_ak = |bits: u32| {
        let mut bad = good.clone();
        bad.attributes = ObjectAttributes::from_bits(good.attributes.bits() ^ bits).unwrap();
        assert!(matches!(make_credential(&ek, &bad, &[7; 32]), Err(CredentialError::Ak { .. })), "{}", bad.attributes);
    };
    for toggled in [
        ObjectAttributes::RESTRICTED,
        ObjectAttributes::FIXED_TPM,
        ObjectAttributes::FIXED_PARENT,
        ObjectAttributes::SENSITIVE_DATA_ORIGIN,
        ObjectAttributes::SIGN,
        ObjectAttributes::DECRYPT,
    ] {
        refuse_ak(toggled.bits());
    }
    let refuse_ek = |bad: &Public, why: &str| {
        assert!(matches!(make_credential(bad, &good, &[7; 32]), Err(CredentialError::Ek)), "{why}");
    };
    refuse_ek(&good, "an AK in the EK's place");
    refuse_ek(&ek_rsa2048_template(), "a template without a key");
    let mut bad = ek.clone();
    bad.auth_policy.clear();
    refuse_ek(&bad, "no policy");
    let mut bad = ek.clone();
    let PublicKey::EccP256 { y, .. } = &mut bad.key else { unreachable!() };
    y[31] ^= 1;
    refuse_ek(&bad, "a point off the curve");
}

/// Ends with the test.
struct Swtpm(Child, tempfile::TempDir, String);

impl Swtpm {
    /// `None` where swtpm or tpm2-tools are not installed.
    fn start() -> Option<Self> {
        let found = |tool: &str| Command::new(tool).arg("--version").output().is_ok();
        if !["swtpm", "tpm2_createek", "tpm2_activatecredential"].into_iter().all(found) {
            eprintln!("skipped: needs swtpm and tpm2-tools");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        // tpm2-tools wants the control port right behind the command port.
        let port = loop {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            if port < u16::MAX && TcpListener::bind(("127.0.0.1", port + 1)).is_ok() {
                break port;
            }
        };
        let child = Command::new("swtpm")
            .args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear", "--tpmstate"])
            .arg(format!("dir={}", folder.path().display()))
            .args(["--server", &format!("type=tcp,port={port}"), "--ctrl", &format!("type=tcp,port={}", port + 1)])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let swtpm = Self(child, folder, format!("swtpm:host=127.0.0.1,port={port}"));
        for _ in 0..100 {
            std::thread::sleep(Duration::from_millis(50));
            if swtpm.command("tpm2_getcap", &["properties-fixed"]).output().unwrap().status.success() {
                return Some(swtpm);
            }
        }
        panic!("swtpm did not answer within 5 seconds");
    }

    fn command(&self, tool: &str, args: &[&str]) -> Command {
        let mut command = Command::new(tool);
        command.args(args).current_dir(self.1.path()).env("TPM2TOOLS_TCTI", &self.2);
        command
    }

    fn run(&self, tool: &str, args: &[&str]) -> bool {
        let output = self.command(tool, args).output().unwrap();
        if !output.status.success() {
            eprintln!("{tool}: {}", String::from_utf8_lossy(&output.stderr));
        }
        // Without a resource manager the transient objects fill up.
        self.command("tpm2_flushcontext", &["-t"]).output().unwrap();
        output.status.success()
    }

    fn read(&self, file: &str) -> Vec<u8> {
        std::fs::read(self.1.path().join(file)).unwrap()
    }
}

impl Drop for Swtpm {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

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
    let path: &Path = tpm.1.path();
    std::fs::write(path.join("blob"), blob).unwrap();
    let _ = std::fs::remove_file(path.join("secret"));
    assert!(tpm.run("tpm2_startauthsession", &["--policy-session", "-S", "session"]));
    assert!(tpm.run("tpm2_policysecret", &["-S", "session", "-c", "e"]));
    let args = ["-c", "ak.ctx", "-C", "ek.ctx", "-i", "blob", "-o", "secret", "-P", "session:session"];
    let done = tpm.run("tpm2_activatecredential", &args);
    tpm.run("tpm2_flushcontext", &["-s"]);
    tpm.run("tpm2_flushcontext", &["-l"]);
    done.then(|| tpm.read("secret"))
}
