//! Intel, as far as TDX quotes go: a root, the CA of PCKs, the signer of TCB info, a platform, its quoting enclave.
//!
//! A peer with its own keys behind the real formats. Everything it says and signs can be changed before it does.

use std::sync::LazyLock;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use blf_appraisal::RootKind;
use blf_appraisal::tdx::Root;
use blf_evidence::endorsements::TdxEndorsements;
use blf_evidence::tdx::{Authentication, EnclaveReport, Quote};
use blf_evidence::{Base64, Hex, UnixTime};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CustomExtension, DnType, IsCa, Issuer,
    KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber, date_time_ymd,
};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// When its collateral is valid: 2026-05-28T20:26:40Z.
pub(crate) const NOW: UnixTime = UnixTime(1_780_000_000);

/// A key that somebody holds.
pub(crate) struct Key {
    pair: KeyPair,
    raw: EcdsaKeyPair,
}

/// Who holds keys. A stranger's are as good as any.
pub(crate) struct Keys {
    pub(crate) root: Key,
    pub(crate) ca: Key,
    pub(crate) pck: Key,
    pub(crate) tcb: Key,
    pub(crate) attestation: Key,
    pub(crate) stranger: Key,
}

pub(crate) static KEYS: LazyLock<Keys> = LazyLock::new(|| Keys {
    root: Key::new(),
    ca: Key::new(),
    pck: Key::new(),
    tcb: Key::new(),
    attestation: Key::new(),
    stranger: Key::new(),
});

/// Who signs what.
pub(crate) struct Signers {
    pub(crate) ca: &'static Key,
    pub(crate) pck: &'static Key,
    pub(crate) tcb: &'static Key,
    pub(crate) root_crl: &'static Key,
    pub(crate) pck_crl: &'static Key,
    pub(crate) tcb_info: &'static Key,
    pub(crate) qe_identity: &'static Key,
    pub(crate) qe_report: &'static Key,
    pub(crate) quote: &'static Key,
}

/// What is about to be said and signed.
pub(crate) struct Intel {
    pub(crate) root: CertificateParams,
    pub(crate) ca: CertificateParams,
    pub(crate) pck: CertificateParams,
    pub(crate) tcb: CertificateParams,
    pub(crate) root_crl: CertificateRevocationListParams,
    pub(crate) pck_crl: CertificateRevocationListParams,
    pub(crate) tcb_info: Value,
    pub(crate) qe_identity: Value,
    pub(crate) quote: Quote,
    /// Applied to the quoting enclave's report before the PCK signs it.
    pub(crate) edit_qe_report: fn(&mut [u8; 384]),
    /// Applied to header and body before the attestation key signs them.
    pub(crate) edit_signed: fn(&mut [u8]),
    pub(crate) signers: Signers,
}

/// What was said and signed.
#[derive(Clone)]
pub(crate) struct Made {
    pub(crate) quote: Vec<u8>,
    pub(crate) collateral: TdxEndorsements,
    pub(crate) root: Vec<u8>,
}

/// What a PCK certificate says of its platform.
pub(crate) struct Sgx {
    pub(crate) ppid: Vec<u8>,
    pub(crate) components: [u8; 16],
    pub(crate) cpu_svn: Vec<u8>,
    pub(crate) pce_svn: u16,
    pub(crate) pce_id: Vec<u8>,
    pub(crate) fmspc: Vec<u8>,
}

impl Key {
    fn new() -> Self {
        let pair = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let raw = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pair.serialized_der()).unwrap();
        Self { pair, raw }
    }

    fn sign(&self, message: &[u8]) -> Hex<64> {
        Hex(self.raw.sign(&SystemRandom::new(), message).unwrap().as_ref().try_into().unwrap())
    }

    /// x ‖ y.
    pub(crate) fn point(&self) -> Hex<64> {
        Hex(self.raw.public_key().as_ref()[1..].try_into().unwrap())
    }
}

impl Intel {
    /// An up-to-date platform with TDX module 1.5 and a TD 1.0 body.
    pub(crate) fn new() -> Self {
        let keys = &*KEYS;
        let mut ca = certificate("Intel SGX PCK Platform CA", 2);
        ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let mut root = certificate("Intel SGX Root CA", 1);
        root.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
        root.key_usages = ca.key_usages.clone();
        let mut pck = certificate("Intel SGX PCK Certificate", 3);
        pck.custom_extensions = vec![Sgx::default().extension()];
        Self {
            root,
            ca,
            pck,
            tcb: certificate("Intel SGX TCB Signing", 4),
            root_crl: crl(),
            pck_crl: crl(),
            tcb_info: tcb_info(),
            qe_identity: qe_identity(),
            quote: quote(),
            edit_qe_report: |_| (),
            edit_signed: |_| (),
            signers: Signers {
                ca: &keys.root,
                pck: &keys.ca,
                tcb: &keys.root,
                root_crl: &keys.root,
                pck_crl: &keys.ca,
                tcb_info: &keys.tcb,
                qe_identity: &keys.tcb,
                qe_report: &keys.pck,
                quote: &keys.attestation,
            },
        }
    }

    /// With a TD 1.5 body in a quote of version 5.
    pub(crate) fn td15(svn: [u8; 3]) -> Self {
        let mut intel = Self::new();
        intel.quote.version = 5;
        intel.quote.tee_tcb_svn_2 = Some(tee_tcb_svn(svn));
        intel.quote.mr_service_td = Some(Hex([0; 48]));
        intel
    }

    pub(crate) fn make(self) -> Made {
        let (keys, signers) = (&*KEYS, &self.signers);
        let root = self.root.self_signed(&keys.root.pair).unwrap().der().to_vec();
        let issue = |of: &CertificateParams, key: &Key, issuer: &CertificateParams, by: &Key| {
            of.signed_by(&key.pair, &Issuer::from_params(issuer, &by.pair)).unwrap().der().to_vec()
        };
        let ca = issue(&self.ca, &keys.ca, &self.root, signers.ca);
        let pck = issue(&self.pck, &keys.pck, &self.ca, signers.pck);
        let tcb = issue(&self.tcb, &keys.tcb, &self.root, signers.tcb);
        let revoke = |list: CertificateRevocationListParams, issuer: &CertificateParams, by: &Key| {
            Base64(list.signed_by(&Issuer::from_params(issuer, &by.pair)).unwrap().der().to_vec())
        };
        let (tcb_info, qe_identity) = (self.tcb_info.to_string(), self.qe_identity.to_string());
        let collateral = TdxEndorsements {
            pck_crl_issuer_chain: pem(&[&ca, &root]),
            root_ca_crl: revoke(self.root_crl, &self.root, signers.root_crl),
            pck_crl: revoke(self.pck_crl, &self.ca, signers.pck_crl),
            tcb_info_issuer_chain: pem(&[&tcb, &root]),
            tcb_info_signature: signers.tcb_info.sign(tcb_info.as_bytes()),
            tcb_info,
            qe_identity_issuer_chain: pem(&[&tcb, &root]),
            qe_identity_signature: signers.qe_identity.sign(qe_identity.as_bytes()),
            qe_identity,
        };

        let mut quote = self.quote;
        let auth = &mut quote.authentication;
        auth.pck_chain = pem(&[&pck, &ca, &root]).into_bytes();
        let named = Sha256::digest([&auth.attestation_key.0[..], &auth.qe_authentication_data.0].concat());
        auth.qe_report.0.0[320..352].copy_from_slice(&named);
        (self.edit_qe_report)(&mut auth.qe_report.0.0);
        auth.qe_report_signature = signers.qe_report.sign(&auth.qe_report.0.0);
        let mut bytes = quote.to_bytes();
        let signed = quote.signed(&bytes).len();
        (self.edit_signed)(&mut bytes[..signed]);
        let signature = signers.quote.sign(&bytes[..signed]);
        bytes[signed + 4..signed + 68].copy_from_slice(&signature.0);
        Made { quote: bytes, collateral, root }
    }
}

impl Made {
    /// Its root, as somebody who develops would believe it.
    pub(crate) fn root(&self) -> Root {
        Root::from_der(RootKind::Development, &self.root).unwrap()
    }
}

impl Default for Sgx {
    fn default() -> Self {
        let components = [3, 3, 2, 2, 4, 1, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0];
        Self {
            ppid: vec![0xAA; 16],
            components,
            cpu_svn: components.to_vec(),
            pce_svn: 13,
            pce_id: vec![0, 0],
            fmspc: vec![0x90, 0xC0, 0x6F, 0, 0, 0],
        }
    }
}

impl Sgx {
    pub(crate) fn extension(&self) -> CustomExtension {
        let octets = |bytes: &[u8]| tlv(0x04, bytes);
        let mut tcb: Vec<_> =
            (1..).zip(self.components).map(|(arc, svn)| entry(&[2, arc], &integer(svn.into()))).collect();
        tcb.push(entry(&[2, 17], &integer(self.pce_svn)));
        tcb.push(entry(&[2, 18], &octets(&self.cpu_svn)));
        let entries = [
            entry(&[1], &octets(&self.ppid)),
            entry(&[2], &tlv(0x30, &tcb.concat())),
            entry(&[3], &octets(&self.pce_id)),
            entry(&[4], &octets(&self.fmspc)),
            entry(&[5], &[0x0A, 1, 1]),
        ];
        CustomExtension::from_oid_content(&[1, 2, 840, 113_741, 1, 13, 1], tlv(0x30, &entries.concat()))
    }
}

/// A certificate's serial number, by which lists revoke it.
pub(crate) fn revoked(serial: u64) -> RevokedCertParams {
    RevokedCertParams {
        serial_number: SerialNumber::from(serial),
        revocation_time: date_time_ymd(2026, 5, 1),
        reason_code: None,
        invalidity_date: None,
    }
}

/// A chain as Intel's services write it.
pub(crate) fn pem(chain: &[&[u8]]) -> String {
    let one = |der: &&[u8]| {
        let base64 = base64::engine::general_purpose::STANDARD.encode(der);
        let lines: Vec<_> = base64.as_bytes().chunks(64).map(|line| str::from_utf8(line).unwrap()).collect();
        format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
    };
    chain.iter().map(one).collect()
}

pub(crate) fn tee_tcb_svn(svn: [u8; 3]) -> Hex<16> {
    let mut out = [0; 16];
    out[..3].copy_from_slice(&svn);
    Hex(out)
}

fn certificate(name: &str, serial: u64) -> CertificateParams {
    let mut params = CertificateParams::new([]).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.distinguished_name.push(DnType::OrganizationName, "a test");
    params.serial_number = Some(SerialNumber::from(serial));
    params.not_before = date_time_ymd(2025, 1, 1);
    params.not_after = date_time_ymd(2032, 1, 1);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    params
}

fn crl() -> CertificateRevocationListParams {
    CertificateRevocationListParams {
        this_update: date_time_ymd(2026, 5, 10),
        next_update: date_time_ymd(2026, 6, 10),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: vec![revoked(99)],
        key_identifier_method: KeyIdMethod::Sha256,
    }
}

/// Levels: up to date, out of date, to be configured, revoked; and below that none.
fn tcb_info() -> Value {
    let level = |sgx: [u8; 8], pce_svn: u16, tdx: [u8; 3], status: &str, advisories: &[&str]| {
        let components = |svns: &[u8]| (0..16).map(|i| json!({"svn": svns.get(i).unwrap_or(&0)})).collect::<Vec<_>>();
        json!({
            "tcb": {"sgxtcbcomponents": components(&sgx), "pcesvn": pce_svn, "tdxtcbcomponents": components(&tdx)},
            "tcbDate": "2026-01-01T00:00:00Z",
            "tcbStatus": status,
            "advisoryIDs": advisories,
        })
    };
    let module = |id: Option<&str>| {
        let mut module = json!({
            "mrsigner": "00".repeat(48), "attributes": "00".repeat(8), "attributesMask": "FF".repeat(8),
        });
        if let Some(id) = id {
            module["id"] = id.into();
            module["tcbLevels"] = json!([
                {"tcb": {"isvsvn": 5}, "tcbDate": "2026-01-01T00:00:00Z", "tcbStatus": "UpToDate"},
                {"tcb": {"isvsvn": 3}, "tcbDate": "2025-01-01T00:00:00Z", "tcbStatus": "OutOfDate",
                 "advisoryIDs": ["INTEL-SA-00003"]},
                {"tcb": {"isvsvn": 2}, "tcbDate": "2024-01-01T00:00:00Z", "tcbStatus": "Revoked"},
            ]);
        }
        module
    };
    json!({
        "id": "TDX", "version": 3,
        "issueDate": "2026-05-15T00:00:00Z", "nextUpdate": "2026-06-14T00:00:00Z",
        "fmspc": "90C06F000000", "pceId": "0000", "tcbType": 0, "tcbEvaluationDataNumber": 20,
        "tdxModule": module(None),
        "tdxModuleIdentities": [module(Some("TDX_03")), module(Some("TDX_01"))],
        "tcbLevels": [
            level([3, 3, 2, 2, 4, 1, 0, 5], 13, [5, 0, 3], "UpToDate", &[]),
            level([3, 3, 2, 2, 4, 1, 0, 4], 13, [5, 0, 3], "SWHardeningNeeded", &["INTEL-SA-00001"]),
            level([3, 3, 2, 2, 4, 1, 0, 3], 13, [5, 0, 3], "ConfigurationNeeded", &["INTEL-SA-00001"]),
            level([3, 3, 2, 2, 3, 1, 0, 3], 12, [4, 0, 2], "OutOfDate", &["INTEL-SA-00001", "INTEL-SA-00002"]),
            level([2, 2, 2, 2, 2, 1, 0, 1], 5, [1, 0, 1], "Revoked", &[]),
        ],
    })
}

fn qe_identity() -> Value {
    let level = |isvsvn: u16, status: &str, advisories: &[&str]| json!({"tcb": {"isvsvn": isvsvn}, "tcbDate": "2026-01-01T00:00:00Z", "tcbStatus": status, "advisoryIDs": advisories});
    json!({
        "id": "TD_QE", "version": 2,
        "issueDate": "2026-05-16T00:00:00Z", "nextUpdate": "2026-06-15T00:00:00Z",
        "tcbEvaluationDataNumber": 19,
        "miscselect": "00000000", "miscselectMask": "FFFFFFFF",
        "attributes": "11000000000000000000000000000000",
        "attributesMask": "FBFFFFFFFFFFFFFF0000000000000000",
        "mrsigner": "D5".repeat(32), "isvprodid": 2,
        "tcbLevels": [
            level(6, "UpToDate", &[]),
            level(4, "OutOfDate", &["INTEL-SA-00004"]),
            level(2, "Revoked", &[]),
        ],
    })
}

fn quote() -> Quote {
    let register = |byte: u8| Hex([byte; 48]);
    let mut report = [0; 384];
    report[..8].copy_from_slice(&[3, 3, 2, 2, 4, 1, 0, 5]);
    report[48] = 0x15; // ATTRIBUTES: INIT, MODE64BIT, PROVISION_KEY
    report[128..160].fill(0xD5);
    report[256] = 2;
    report[258] = 6;
    Quote {
        version: 4,
        user_data: Hex([7; 20]),
        tee_tcb_svn: tee_tcb_svn([5, 1, 3]),
        mr_seam: register(1),
        mrsigner_seam: register(0),
        seam_attributes: 0,
        td_attributes: blf_evidence::tdx::attributes::SEPT_VE_DISABLE,
        xfam: 0x602E7,
        mr_td: register(2),
        mr_config_id: register(0),
        mr_owner: register(0),
        mr_owner_config: register(0),
        rtmrs: [register(3), register(4), register(5), register(0)],
        report_data: Hex([9; 64]),
        tee_tcb_svn_2: None,
        mr_service_td: None,
        authentication: Box::new(Authentication {
            signature: Hex([0; 64]),
            attestation_key: KEYS.attestation.point(),
            qe_report: EnclaveReport(Hex(report)),
            qe_report_signature: Hex([0; 64]),
            qe_authentication_data: Hex([8; 32]),
            pck_chain: Vec::new(),
        }),
    }
}

/// An entry of the SGX Extensions: the arcs below their own identifier, and a value.
fn entry(arcs: &[u8], value: &[u8]) -> Vec<u8> {
    let name = [&[0x2A, 0x86, 0x48, 0x86, 0xF8, 0x4D, 0x01, 0x0D, 0x01], arcs].concat();
    tlv(0x30, &[&tlv(0x06, &name), value].concat())
}

fn integer(value: u16) -> Vec<u8> {
    let bytes: Vec<_> = value.to_be_bytes().into_iter().skip_while(|byte| *byte == 0).collect();
    let sign = bytes.first().is_none_or(|byte| byte & 0x80 != 0);
    tlv(0x02, &[&[0][..usize::from(sign)], &bytes].concat())
}

fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let len = u16::try_from(content.len()).unwrap().to_be_bytes();
    let header = match len {
        [0, short @ 0..0x80] => vec![tag, short],
        [0, long] => vec![tag, 0x81, long],
        [high, low] => vec![tag, 0x82, high, low],
    };
    [header, content.to_vec()].concat()
}
