//! Genuine claims of every platform, made here because only this crate can make them, and what policies say of them.

mod monotone;
mod refusals;
mod vectors;

use blf_evidence::azure::VmConfiguration;
use blf_evidence::snp::{Family, Report, Tcb};
use blf_evidence::statement::{Anchor, Binding, Profile, Purpose};
use blf_evidence::tdx::{Authentication, EnclaveReport, Quote};
use blf_evidence::{Hex, UnixTime};
use sha2::{Digest as _, Sha256};

use super::{Accept, Expectations, Head, PlatformName, Policy};
use crate::authenticate::{Authentic, Claims, Node};
use crate::azure::{self, Hardware};
use crate::check::{Checks, Rejected, Stage};
use crate::references::{Reference, References, SnpReference, TdxReference, TpmReference};
use crate::result::AttestationResult;
use crate::snp::{self, Signer};
use crate::tdx::{self, Configuration, TcbStatus};
use crate::tpm::{self, AkEndorsement};
use crate::x509::RootKind;

/// 2026-11-20T09:00:00Z.
const NOW: u64 = 1_795_165_200;
const DAY: u64 = 86_400;
const LAUNCH_DIGEST: Hex<48> = Hex([0x11; 48]);
const MRTD: Hex<48> = Hex([0x22; 48]);
const PARAVISOR: Hex<48> = Hex([0x33; 48]);
const RTMRS: [Hex<48>; 4] = [Hex([0x40; 48]), Hex([0x41; 48]), Hex([0x42; 48]), Hex([0; 48])];

/// Evidence that is genuine, and a relying party that wants it.
#[derive(Clone)]
struct Case {
    binding: Binding,
    platform: Claims,
    now: u64,
    policy: Policy,
    references: References,
    expected: Expectations,
}

/// What a test may change about an SEV-SNP report.
fn report(case: &mut Case) -> &mut Report {
    &mut snp(case).report
}

fn snp(case: &mut Case) -> &mut snp::Claims {
    match &mut case.platform {
        Claims::Snp(claims) => claims,
        Claims::Azure(azure) => match &mut azure.hardware {
            Hardware::Snp(claims) => claims,
            Hardware::Tdx(_) => panic!("TDX"),
        },
        _ => panic!("not SEV-SNP"),
    }
}

fn tdx(case: &mut Case) -> &mut tdx::Claims {
    match &mut case.platform {
        Claims::Tdx(claims) => claims,
        Claims::Azure(azure) => match &mut azure.hardware {
            Hardware::Tdx(claims) => claims,
            Hardware::Snp(_) => panic!("SEV-SNP"),
        },
        _ => panic!("not TDX"),
    }
}

fn tpm(case: &mut Case) -> &mut tpm::Claims {
    match &mut case.platform {
        Claims::Tpm(claims) => claims,
        Claims::Azure(azure) => &mut azure.tpm,
        _ => panic!("no TPM"),
    }
}

fn reference(case: &mut Case) -> &mut Reference {
    &mut case.references.references[0]
}

impl Case {
    /// Under the policy for prompts that must stay secret.
    fn confidential(platform: Claims) -> Self {
        let profile = Profile { name: "production".into(), id: Hex([10; 32]) };
        let binding = Binding {
            anchor: Some(Anchor { block_hash: Hex([1; 32]), block_number: 1000, chain_id: 421_614 }),
            not_after: UnixTime(NOW + 3600),
            profile: profile.clone(),
            ..Binding::parse(include_bytes!("../../../evidence/tests/vectors/binding.json")).unwrap()
        };
        let launch = |byte, vcpus| SnpReference {
            measurement: Hex([byte; 48]),
            model: "EPYC-v4".into(),
            sev_features: 1,
            vcpus,
        };
        let reference = Reference {
            locked: true,
            name: "blf".into(),
            profile,
            retired: None,
            snp: vec![launch(0x11, 1), launch(0x12, 2)],
            tdx: Some(TdxReference {
                mrtd: vec![Hex([0x21; 48]), MRTD],
                rtmr0: Accept::Only(vec![RTMRS[0]]),
                rtmr1: RTMRS[1],
                rtmr2: RTMRS[2],
            }),
            tpm: Some(TpmReference {
                pcr11: Hex([11; 32]),
                pcr4: vec![Hex([4; 32]), Hex([5; 32])],
                pcr9: Hex([9; 32]),
            }),
            valid_from: UnixTime(NOW - DAY),
            valid_until: Some(UnixTime(NOW + 30 * DAY)),
            version: "1.0.0".into(),
        };
        let schema = crate::references::SCHEMA.into();
        Self {
            expected: Expectations {
                audience: binding.audience.clone(),
                head: Some(Head { block_number: 1100, chain_id: 421_614 }),
                nonce: binding.nonce,
                purpose: Purpose::Admission,
            },
            binding,
            platform,
            now: NOW,
            policy: Policy::parse(Policy::CONFIDENTIAL.as_bytes()).unwrap(),
            references: References { references: vec![reference], schema },
        }
    }

    fn snp() -> Self {
        Self::confidential(Claims::Snp(snp_claims().into()))
    }

    fn tdx() -> Self {
        Self::confidential(Claims::Tdx(tdx_claims().into()))
    }

    /// Below a paravisor that the relying party lists.
    fn azure(mut hardware: Hardware) -> Self {
        match &mut hardware {
            Hardware::Snp(claims) => claims.report.measurement = PARAVISOR,
            Hardware::Tdx(claims) => claims.quote.mr_td = PARAVISOR,
        }
        let tpm = tpm::Claims { ak: AkEndorsement::Paravisor, ..tpm_claims() };
        let vm_configuration =
            VmConfiguration { console_enabled: None, secure_boot: None, tpm_persisted: None, vm_unique_id: None };
        let claims = azure::Claims { hardware, vm_configuration, tpm };
        let mut case = Self::confidential(Claims::Azure(claims.into()));
        case.policy.platforms = Accept::Only(vec![PlatformName::Azure]);
        case.policy.azure.paravisors = Accept::Only(vec![PARAVISOR]);
        case
    }

    fn azure_snp() -> Self {
        Self::azure(Hardware::Snp(snp_claims()))
    }

    fn azure_tdx() -> Self {
        Self::azure(Hardware::Tdx(tdx_claims()))
    }

    /// Under the policy for released images.
    fn tpm() -> Self {
        let mut case = Self::confidential(Claims::Tpm(tpm_claims().into()));
        case.policy = Policy::parse(Policy::RELEASED.as_bytes()).unwrap();
        case
    }

    fn verdict(&self) -> Result<AttestationResult, Box<Rejected>> {
        let claims = Node { binding: self.binding.clone(), platform: self.platform.clone() };
        let authentic = Authentic { claims, now: UnixTime(self.now), checks: Checks::default() };
        self.policy.appraise(authentic, &self.references, &self.expected)
    }

    fn refusal(&self) -> Rejected {
        match self.verdict() {
            Err(refusal) => {
                assert_eq!(refusal.stage, Stage::Wanted, "{refusal}");
                *refusal
            }
            other => panic!("wanted a refusal, got {other:?}"),
        }
    }
}

/// A Genoa chip with the firmware that the shipped floors want, and no more.
fn snp_claims() -> snp::Claims {
    let tcb = Tcb([10, 0, 0, 0, 0, 0, 0x1c, 0x56]);
    let genuine = Report::parse(include_bytes!("../../tests/vectors/snp/turin-v5-azure/report.bin")).unwrap();
    let report = Report {
        version: 5,
        policy: 0x3_0000,
        vmpl: 0,
        current_tcb: tcb,
        platform_info: 0x25,
        measurement: LAUNCH_DIGEST,
        host_data: Hex([0; 32]),
        id_key_digest: Hex([0; 48]),
        author_key_digest: Hex([0; 48]),
        report_id_ma: Hex([0xff; 32]),
        reported_tcb: tcb,
        cpuid: Some([0x19, 0x11, 0x01]),
        committed_tcb: tcb,
        launch_tcb: tcb,
        launch_mitigations: Some(0b110),
        current_mitigations: Some(0b110),
        ..genuine
    };
    snp::Claims {
        report,
        family: Family::Genoa,
        signer: Signer::Vcek,
        crl_this_update: Some(UnixTime(NOW - DAY)),
        valid_until: UnixTime(NOW + 20 * DAY),
        roots: RootKind::Production,
    }
}

fn tdx_claims() -> tdx::Claims {
    let zero = Hex([0; 48]);
    let quote = Quote {
        version: 5,
        user_data: Hex([0; 20]),
        tee_tcb_svn: Hex([3; 16]),
        mr_seam: Hex([0x5e; 48]),
        mrsigner_seam: zero,
        seam_attributes: 0,
        td_attributes: 1 << 28,
        xfam: 0x6_02e7,
        mr_td: MRTD,
        mr_config_id: zero,
        mr_owner: zero,
        mr_owner_config: zero,
        rtmrs: RTMRS,
        report_data: Hex([0; 64]),
        tee_tcb_svn_2: Some(Hex([3; 16])),
        mr_service_td: Some(zero),
        authentication: Box::new(Authentication {
            signature: Hex([0; 64]),
            attestation_key: Hex([0; 64]),
            qe_report: EnclaveReport(Hex([0; 384])),
            qe_report_signature: Hex([0; 64]),
            qe_authentication_data: Hex([0; 32]),
            pck_chain: Vec::new(),
        }),
    };
    tdx::Claims {
        quote,
        fmspc: Hex([0x90, 0xc0, 0x6f, 0, 0, 0]),
        ppid: Hex([7; 16]),
        configuration: Some(Configuration { dynamic_platform: true, cached_keys: false, smt_enabled: true }),
        tcb_status: TcbStatus::UpToDate,
        advisory_ids: Vec::new(),
        tcb_evaluation_data_number: 20,
        collateral_issued: UnixTime(NOW - DAY),
        valid_until: UnixTime(NOW + 20 * DAY),
        event_log: true,
        roots: RootKind::Production,
    }
}

fn tpm_claims() -> tpm::Claims {
    let mut pcrs = [Hex([1; 32]); 24];
    (pcrs[4], pcrs[9], pcrs[11]) = (Hex([4; 32]), Hex([9; 32]), Hex([11; 32]));
    (pcrs[12], pcrs[13]) = (Hex([0; 32]), Hex([0; 32]));
    // What extending a register of zeros with SHA-256 of four zero bytes gives.
    let separator = Sha256::digest([[0; 32], Sha256::digest([0; 4]).into()].concat());
    (pcrs[2], pcrs[3]) = (Hex(separator.into()), Hex(separator.into()));
    tpm::Claims {
        pcrs,
        ak: AkEndorsement::Certified {
            root: "a TPM maker".into(),
            kind: RootKind::Production,
            valid_until: UnixTime(NOW + 20 * DAY),
        },
        ak_name: vec![0, 0x0b],
        event_log: true,
    }
}
