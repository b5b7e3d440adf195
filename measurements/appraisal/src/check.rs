//! Every check by name, and what is handed out when one fails.

use std::fmt::{self, Display};

use blf_evidence::json::excerpt;
use serde::{Serialize, Serializer};

/// The checks, in the order in which they are made. The first that fails ends the appraisal.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CheckId {
    /// The binding is RFC 8785 canonical JSON with exactly the known members.
    Binding,
    /// The evidence is one whole `blf.evidence/v1` document.
    Document,
    /// The stapled endorsements are one whole `blf.endorsements/v1` document.
    Endorsements,
    /// Azure's HCL report is one: header, hardware report, runtime data.
    Hcl,
    /// The hardware report covers exactly these runtime data: its REPORT_DATA is their SHA-256 and zeros.
    HclRuntimeData,
    /// The TD quote was made of the HCL report's TDREPORT.
    TdReport,
    /// The ATTESTATION_REPORT is of a known version, with nothing in its reserved fields and one encoding of its
    /// signature.
    Report,
    /// The report comes from a family of chips whose ARK is believed.
    ReportFamily,
    /// The report says that a VCEK or a VLEK signed it.
    ReportSigner,
    /// A certificate for the key that signed the report is there.
    VekPresent,
    /// It is an X.509 certificate of a VCEK or VLEK.
    Vek,
    /// A pinned ARK signed the ASK or ASVK, and that the VCEK or VLEK: the right one of the two.
    VekChain,
    /// The revocation list is a CRL that the ARK signed.
    Crl,
    /// The ARK, and its ASK or ASVK, are not on it.
    CrlRevoked,
    /// The certificates of the chain are valid now.
    VekValidity,
    /// The revocation list is the current one.
    CrlValidity,
    /// The certificate's kind, product, TCB and chip id are the report's.
    VekIdentity,
    /// The certified key signed the report.
    ReportSignature,
    /// Azure's paravisor asked for the report, at VMPL 0, and no guest above it.
    HclVmpl,
    /// The TD quote is of version 4 or 5, for a TD, signed with ECDSA P-256, certified by a PCK chain.
    TdQuote,
    /// Intel's collateral for the quote is there.
    Collateral,
    /// The quote's chain is a PCK certificate, issued by a PCK CA, issued by Intel's root.
    PckChain,
    /// The PCK signed the quoting enclave's report, that names the attestation key, and that key signed the quote.
    TdQuoteSignature,
    /// Each part of the collateral is signed by its issuer, below Intel's root.
    CollateralSignature,
    /// The collateral is TCB info of TDX and the identity of its quoting enclave, of known versions.
    CollateralForm,
    /// Collateral and certificates are valid now.
    CollateralValidity,
    /// No certificate of the chains is revoked.
    PckRevoked,
    /// The collateral is for the platform that the PCK certificate names: its FMSPC and its PCE.
    CollateralPlatform,
    /// The quoting enclave is the one that Intel's identity describes.
    QeIdentity,
    /// The TDX module is of a version that Intel knows, with its signer and attributes.
    TdModuleIdentity,
    /// The platform, its TDX module and its quoting enclave each match a level, and no level is revoked.
    TdTcbLevel,
    /// REPORT_DATA is the statement.
    ReportData,
    /// The AK is a key of known form.
    AkPublic,
    /// The AK is restricted to sign what the TPM made, cannot leave it, and cannot decrypt.
    AkAttributes,
    /// The quote's AK is the runtime data's `HCLAkPub`.
    HclAk,
    /// The quote is a quote.
    Quote,
    /// The quote's `extraData` is SHA-256(statement).
    Statement,
    /// The AK signed the quote.
    QuoteSignature,
    /// The quote's `qualifiedSigner` is that AK, with its attributes, as a primary key of the endorsement hierarchy.
    HclAkName,
    /// The quote covers all 24 PCRs of the SHA-256 bank.
    PcrSelection,
    /// The listed PCRs are those quoted.
    PcrDigest,
    /// Firmware measured a boot at all: PCR 0 to 7, or RTMR 0 and 1, are not zero.
    MeasuredBoot,
    /// The event log is a TCG event log.
    EventLog,
    /// The event log's replay gives the quoted PCRs, or the RTMRs.
    EventLogReplay,
    /// The event log shows a whole boot: separators, and the hand-over to the system.
    EventLogSequence,
    /// The AK certificate is an X.509 certificate.
    AkCertificate,
    /// A given root issued the AK certificate, by name.
    AkCertificateIssuer,
    /// That root signed the AK certificate.
    AkCertificateSignature,
    /// The AK certificate and its root are valid now.
    AkCertificateValidity,
    /// The root may issue, the AK certificate may not, and neither demands what we do not know.
    AkCertificateUsage,
    /// The AK certificate is for this AK.
    AkCertificateKey,
    /// The binding names every key that a user will seal to.
    Keys,
    /// The public configuration has the digest that the binding commits to.
    Config,
    /// The nonce is the one we chose.
    Nonce,
    /// The evidence was made for us.
    Audience,
    /// The evidence was made for this purpose.
    Purpose,
    /// The binding has not expired.
    NotAfter,
    /// The binding does not claim to last longer than the policy allows.
    Validity,
    /// The binding names a block that dates it, where the policy wants one.
    Anchor,
    /// The block that dates the binding is as recent as the policy wants.
    AnchorAge,
    /// The platform is one that the policy accepts.
    Platform,
    /// The image is one of the Reference Values: by launch digest, by MRTD with RTMR 1 and 2, or by PCR 11.
    Measurement,
    /// The Reference Value is not retired.
    ReferenceRetired,
    /// The Reference Value is valid now.
    ReferenceValidity,
    /// The image was built from exactly the locked inputs, where the policy wants that.
    ReleaseLocked,
    /// The image's profile is one that the policy accepts.
    ReleaseProfile,
    /// The binding names the profile of the image.
    Profile,
    /// What the hardware measured on Azure is a paravisor that the policy lists.
    Paravisor,
    /// The family of the chip will do for the lowest tier that the policy accepts.
    ChipFamily,
    /// The chip or the cloud is one that the policy lists.
    Chip,
    /// The report is of a version that says all that the policy wants to know.
    SnpVersion,
    /// Each bit of the guest policy is as the policy wants it: no debug, no migration, …
    SnpPolicy,
    /// No migration agent is bound, unless the policy allows it.
    SnpMigrationAgent,
    /// The keys that signed the guest's ID block are those that the policy lists.
    SnpIdKey,
    /// HOST_DATA is one that the policy lists.
    SnpHostData,
    /// The report was asked for from a VMPL that the policy lists.
    SnpVmpl,
    /// Each bit of the platform's configuration is as the policy wants it: alias check complete, …
    SnpPlatformInfo,
    /// Each component of the reported and the launch TCB is at least the floor of its kind of chip, and there is one.
    SnpTcb,
    /// Component by component, reported is at most committed, and committed at most current.
    SnpTcbOrder,
    /// The mitigation vectors have every bit that the floor demands.
    SnpMitigations,
    /// The revocation list is there and as recent as the policy wants.
    CrlAge,
    /// The platform is configured as the policy wants it: no keys cached by Intel, …
    TdPlatform,
    /// Each of the TD's attributes is as the policy wants it: no debug, no migration, …
    TdAttributes,
    /// The TD may use only processor features that the policy allows, and has those that it requires.
    TdXfam,
    /// The TDX module and its attributes are those that the policy lists.
    TdModule,
    /// MRCONFIGID, MROWNER and MROWNERCONFIG are those that the policy lists.
    TdConfig,
    /// No service TD is bound, unless the policy lists it.
    TdServiceTd,
    /// The TCB status is one that the policy accepts, with no advisory that it does not.
    TdTcbStatus,
    /// The collateral's TCB evaluation data number is at least what the policy wants.
    TcbEvaluation,
    /// The collateral is as recent as the policy wants.
    CollateralAge,
    /// PCR 4: firmware started this image.
    Pcr4,
    /// PCR 2 and 3: firmware started no driver but its own.
    Drivers,
    /// PCR 9: the kernel got this command line and this initrd.
    Pcr9,
    /// PCR 12 is zero: nobody overrode the command line or handed in credentials.
    Pcr12,
    /// PCR 13 is zero: nobody handed in system extensions.
    Pcr13,
    /// RTMR 0 is one that the Reference Value lists, and RTMR 3 is zero.
    Rtmrs,
    /// Somebody whom we believe vouches for the AK, where the policy wants that.
    Ak,
    /// There is an event log, where the policy wants one and the platform has one.
    EventLogPresent,
    /// The models are among those the policy accepts.
    Models,
    /// The numeric profile is among those the policy accepts.
    NumericProfile,
    /// No GPU is claimed: this release cannot check one.
    Gpu,
    /// The tier is at least what the policy wants.
    Tier,
}

impl CheckId {
    /// Every check, in order.
    pub const ALL: [Self; 102] = [
        Self::Binding,
        Self::Document,
        Self::Endorsements,
        Self::Hcl,
        Self::HclRuntimeData,
        Self::TdReport,
        Self::Report,
        Self::ReportFamily,
        Self::ReportSigner,
        Self::VekPresent,
        Self::Vek,
        Self::VekChain,
        Self::Crl,
        Self::CrlRevoked,
        Self::VekValidity,
        Self::CrlValidity,
        Self::VekIdentity,
        Self::ReportSignature,
        Self::HclVmpl,
        Self::TdQuote,
        Self::Collateral,
        Self::PckChain,
        Self::TdQuoteSignature,
        Self::CollateralSignature,
        Self::CollateralForm,
        Self::CollateralValidity,
        Self::PckRevoked,
        Self::CollateralPlatform,
        Self::QeIdentity,
        Self::TdModuleIdentity,
        Self::TdTcbLevel,
        Self::ReportData,
        Self::AkPublic,
        Self::AkAttributes,
        Self::HclAk,
        Self::Quote,
        Self::Statement,
        Self::QuoteSignature,
        Self::HclAkName,
        Self::PcrSelection,
        Self::PcrDigest,
        Self::MeasuredBoot,
        Self::EventLog,
        Self::EventLogReplay,
        Self::EventLogSequence,
        Self::AkCertificate,
        Self::AkCertificateIssuer,
        Self::AkCertificateSignature,
        Self::AkCertificateValidity,
        Self::AkCertificateUsage,
        Self::AkCertificateKey,
        Self::Keys,
        Self::Config,
        Self::Nonce,
        Self::Audience,
        Self::Purpose,
        Self::NotAfter,
        Self::Validity,
        Self::Anchor,
        Self::AnchorAge,
        Self::Platform,
        Self::Measurement,
        Self::ReferenceRetired,
        Self::ReferenceValidity,
        Self::ReleaseLocked,
        Self::ReleaseProfile,
        Self::Profile,
        Self::Paravisor,
        Self::ChipFamily,
        Self::Chip,
        Self::SnpVersion,
        Self::SnpPolicy,
        Self::SnpMigrationAgent,
        Self::SnpIdKey,
        Self::SnpHostData,
        Self::SnpVmpl,
        Self::SnpPlatformInfo,
        Self::SnpTcb,
        Self::SnpTcbOrder,
        Self::SnpMitigations,
        Self::CrlAge,
        Self::TdPlatform,
        Self::TdAttributes,
        Self::TdXfam,
        Self::TdModule,
        Self::TdConfig,
        Self::TdServiceTd,
        Self::TdTcbStatus,
        Self::TcbEvaluation,
        Self::CollateralAge,
        Self::Pcr4,
        Self::Drivers,
        Self::Pcr9,
        Self::Pcr12,
        Self::Pcr13,
        Self::Rtmrs,
        Self::Ak,
        Self::EventLogPresent,
        Self::Models,
        Self::NumericProfile,
        Self::Gpu,
        Self::Tier,
    ];

    /// The check's name in results and the code of its failure. Both are stable.
    #[must_use]
    pub const fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Binding => ("binding", "BINDING_MALFORMED"),
            Self::Document => ("document", "EVIDENCE_MALFORMED"),
            Self::Endorsements => ("endorsements", "ENDORSEMENTS_MALFORMED"),
            Self::Keys => ("keys", "KEY_MISSING"),
            Self::Config => ("config", "CONFIG_MISMATCH"),
            Self::Hcl => ("azure.hcl", "HCL_MALFORMED"),
            Self::HclRuntimeData => ("azure.runtime_data", "HCL_MISMATCH"),
            Self::TdReport => ("azure.td_report", "TD_REPORT_MISMATCH"),
            Self::Report => ("snp.report", "SNP_REPORT_MALFORMED"),
            Self::ReportFamily => ("snp.family", "CHIP_FAMILY_UNKNOWN"),
            Self::ReportSigner => ("snp.signing_key", "SNP_SIGNING_KEY"),
            Self::VekPresent => ("snp.vek.present", "VEK_MISSING"),
            Self::Vek => ("snp.vek", "VEK_MALFORMED"),
            Self::VekChain => ("snp.vek.chain", "VEK_CHAIN"),
            Self::VekValidity => ("snp.vek.validity", "VEK_EXPIRED"),
            Self::VekIdentity => ("snp.vek.identity", "VEK_MISMATCH"),
            Self::Crl => ("snp.crl", "CRL_MALFORMED"),
            Self::CrlRevoked => ("snp.crl.revoked", "VEK_REVOKED"),
            Self::CrlValidity => ("snp.crl.validity", "CRL_EXPIRED"),
            Self::HclVmpl => ("azure.vmpl", "HCL_VMPL"),
            Self::ReportSignature => ("snp.signature", "SNP_SIGNATURE"),
            Self::TdQuote => ("tdx.quote", "TDX_QUOTE_MALFORMED"),
            Self::Collateral => ("tdx.collateral", "COLLATERAL_MISSING"),
            Self::PckChain => ("tdx.pck.chain", "PCK_CHAIN"),
            Self::TdQuoteSignature => ("tdx.signature", "TDX_SIGNATURE"),
            Self::CollateralSignature => ("tdx.collateral.signature", "COLLATERAL_SIGNATURE"),
            Self::CollateralForm => ("tdx.collateral.form", "COLLATERAL_MALFORMED"),
            Self::CollateralValidity => ("tdx.collateral.validity", "STALE_COLLATERAL"),
            Self::PckRevoked => ("tdx.pck.revoked", "PCK_REVOKED"),
            Self::CollateralPlatform => ("tdx.collateral.platform", "COLLATERAL_MISMATCH"),
            Self::QeIdentity => ("tdx.qe", "QE_MISMATCH"),
            Self::TdModuleIdentity => ("tdx.module.identity", "TDX_MODULE_UNKNOWN"),
            Self::TdTcbLevel => ("tdx.tcb_level", "TCB_LEVEL_UNKNOWN"),
            Self::ReportData => ("report_data", "STATEMENT_MISMATCH"),
            Self::AkPublic => ("ak", "AK_MALFORMED"),
            Self::AkAttributes => ("ak.attributes", "AK_ATTRIBUTES"),
            Self::HclAk => ("azure.ak", "AK_NOT_IN_RUNTIME_DATA"),
            Self::Quote => ("quote", "QUOTE_MALFORMED"),
            Self::Statement => ("quote.statement", "STATEMENT_MISMATCH"),
            Self::QuoteSignature => ("quote.signature", "QUOTE_SIGNATURE"),
            Self::HclAkName => ("azure.ak.name", "AK_NAME_MISMATCH"),
            Self::PcrSelection => ("quote.pcr_select", "PCR_SELECTION"),
            Self::PcrDigest => ("quote.pcr_digest", "PCR_DIGEST_MISMATCH"),
            Self::MeasuredBoot => ("pcr.measured", "NOTHING_MEASURED"),
            Self::EventLog => ("event_log", "EVENT_LOG_MALFORMED"),
            Self::EventLogReplay => ("event_log.replay", "EVENT_LOG_MISMATCH"),
            Self::EventLogSequence => ("event_log.sequence", "EVENT_LOG_INCOMPLETE"),
            Self::AkCertificate => ("ak.certificate", "AK_CERTIFICATE_MALFORMED"),
            Self::AkCertificateIssuer => ("ak.certificate.issuer", "AK_CERTIFICATE_ROOT"),
            Self::AkCertificateSignature => ("ak.certificate.signature", "AK_CERTIFICATE_SIGNATURE"),
            Self::AkCertificateValidity => ("ak.certificate.validity", "AK_CERTIFICATE_EXPIRED"),
            Self::AkCertificateUsage => ("ak.certificate.usage", "AK_CERTIFICATE_USAGE"),
            Self::AkCertificateKey => ("ak.certificate.key", "AK_CERTIFICATE_KEY"),
            Self::Nonce => ("nonce", "NONCE_MISMATCH"),
            Self::Audience => ("audience", "AUDIENCE_MISMATCH"),
            Self::Purpose => ("purpose", "PURPOSE_MISMATCH"),
            Self::NotAfter => ("not_after", "EXPIRED"),
            Self::Validity => ("validity", "VALIDITY_TOO_LONG"),
            Self::Anchor => ("anchor", "ANCHOR_MISSING"),
            Self::AnchorAge => ("anchor.age", "ANCHOR_TOO_OLD"),
            Self::Platform => ("platform", "PLATFORM_REFUSED"),
            Self::Measurement => ("measurement", "MEASUREMENT_UNKNOWN"),
            Self::ReferenceRetired => ("reference.retired", "REFERENCE_RETIRED"),
            Self::ReferenceValidity => ("reference.validity", "REFERENCE_EXPIRED"),
            Self::ReleaseLocked => ("release.locked", "RELEASE_NOT_LOCKED"),
            Self::ReleaseProfile => ("release.profile", "PROFILE_REFUSED"),
            Self::Profile => ("profile", "PROFILE_MISMATCH"),
            Self::Paravisor => ("azure.paravisor", "PARAVISOR_REFUSED"),
            Self::ChipFamily => ("chip.family", "CHIP_FAMILY_REFUSED"),
            Self::Chip => ("chip.id", "CHIP_REFUSED"),
            Self::SnpVersion => ("snp.version", "SNP_VERSION"),
            Self::SnpPolicy => ("snp.policy", "SNP_POLICY"),
            Self::SnpMigrationAgent => ("snp.migration_agent", "MIGRATION_AGENT"),
            Self::SnpIdKey => ("snp.id_key", "ID_KEY_REFUSED"),
            Self::SnpHostData => ("snp.host_data", "HOST_DATA_REFUSED"),
            Self::SnpVmpl => ("snp.vmpl", "SNP_VMPL"),
            Self::SnpPlatformInfo => ("snp.platform_info", "SNP_PLATFORM_INFO"),
            Self::SnpTcb => ("snp.tcb", "TCB_TOO_OLD"),
            Self::SnpTcbOrder => ("snp.tcb.order", "TCB_INCONSISTENT"),
            Self::SnpMitigations => ("snp.mitigations", "MITIGATION_MISSING"),
            Self::CrlAge => ("snp.crl.age", "CRL_TOO_OLD"),
            Self::TdPlatform => ("tdx.platform", "TDX_PLATFORM_REFUSED"),
            Self::TdAttributes => ("tdx.attributes", "TD_ATTRIBUTES"),
            Self::TdXfam => ("tdx.xfam", "TD_XFAM"),
            Self::TdModule => ("tdx.module", "TDX_MODULE_REFUSED"),
            Self::TdConfig => ("tdx.config", "TD_CONFIG_REFUSED"),
            Self::TdServiceTd => ("tdx.service_td", "SERVICE_TD"),
            Self::TdTcbStatus => ("tdx.tcb_status", "TCB_TOO_OLD"),
            Self::TcbEvaluation => ("tdx.tcb_evaluation", "COLLATERAL_TOO_OLD"),
            Self::CollateralAge => ("tdx.collateral.age", "COLLATERAL_TOO_OLD"),
            Self::Pcr4 => ("pcr.4", "PCR4_MISMATCH"),
            Self::Drivers => ("pcr.2_3", "DRIVERS_MEASURED"),
            Self::Pcr9 => ("pcr.9", "PCR9_MISMATCH"),
            Self::Pcr12 => ("pcr.12", "PCR12_MISMATCH"),
            Self::Pcr13 => ("pcr.13", "PCR13_MISMATCH"),
            Self::Rtmrs => ("tdx.rtmr", "RTMR_MISMATCH"),
            Self::Ak => ("ak.endorsed", "AK_NOT_ENDORSED"),
            Self::EventLogPresent => ("event_log.present", "EVENT_LOG_MISSING"),
            Self::Models => ("models", "MODEL_REFUSED"),
            Self::NumericProfile => ("numeric_profile", "NUMERIC_PROFILE_REFUSED"),
            Self::Gpu => ("gpu", "GPU_UNSUPPORTED"),
            Self::Tier => ("tier", "TIER_TOO_LOW"),
        }
    }

    /// Which question the check belongs to.
    #[must_use]
    pub fn stage(self) -> Stage {
        if (self as u8) < Self::Nonce as u8 { Stage::Genuine } else { Stage::Wanted }
    }
}

impl Display for CheckId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.names().0)
    }
}

impl Serialize for CheckId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.names().0)
    }
}

/// The two questions, in their order (architecture decision 17).
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// Did a platform make this evidence, as it says?
    Genuine,
    /// Is it what this relying party asked for?
    Wanted,
}

impl Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Genuine => "genuine",
            Self::Wanted => "wanted",
        })
    }
}

/// One comparison, as text for people and for `--json`.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Check {
    /// What was compared.
    pub id: CheckId,
    /// What was wanted.
    pub expected: String,
    /// What was there.
    pub got: String,
    /// Whether it will do.
    pub ok: bool,
}

/// The verdict that evidence is refused.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, thiserror::Error)]
#[error("{code}: {}: wanted {}, got {}", failed.id, failed.expected, failed.got)]
pub struct Rejected {
    /// The question that was answered with no.
    pub stage: Stage,
    /// A stable word for the failure, e.g. `NONCE_MISMATCH`.
    pub code: &'static str,
    /// The check that failed.
    pub failed: Check,
    /// The checks passed before it.
    pub passed: Vec<Check>,
}

/// The checks passed so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Checks(Vec<Check>);

impl Checks {
    /// Records a check, or ends the appraisal with it.
    pub(crate) fn require(
        &mut self,
        id: CheckId,
        expected: impl Display,
        got: impl Display,
        ok: bool,
    ) -> Result<(), Box<Rejected>> {
        if !ok {
            return Err(self.reject(id, expected, got));
        }
        self.0.push(check(id, expected, got, ok));
        Ok(())
    }

    /// Ends the appraisal with a check that failed.
    pub(crate) fn reject(&mut self, id: CheckId, expected: impl Display, got: impl Display) -> Box<Rejected> {
        let failed = check(id, expected, got, false);
        let passed = std::mem::take(&mut self.0);
        Box::new(Rejected { stage: id.stage(), code: id.names().1, failed, passed })
    }

    /// Records that both are equal, or ends the appraisal.
    pub(crate) fn equal<T: Display + PartialEq>(
        &mut self,
        id: CheckId,
        expected: T,
        got: T,
    ) -> Result<(), Box<Rejected>> {
        let ok = expected == got;
        self.require(id, expected, got, ok)
    }

    /// Takes the value of a parser, recording that it parsed, or ends the appraisal with its complaint.
    pub(crate) fn parsed<T, E: Display>(
        &mut self,
        id: CheckId,
        expected: &str,
        result: Result<T, E>,
    ) -> Result<T, Box<Rejected>> {
        match result {
            Ok(value) => {
                self.require(id, expected, expected, true)?;
                Ok(value)
            }
            Err(error) => Err(self.reject(id, expected, error)),
        }
    }

    /// Records checks that were made earlier.
    pub(crate) fn append(&mut self, earlier: &Self) {
        self.0.extend_from_slice(&earlier.0);
    }

    pub(crate) fn into_inner(self) -> Vec<Check> {
        self.0
    }
}

/// A check as text that can be shown: what was there is foreign, what was expected may be as well.
fn check(id: CheckId, expected: impl Display, got: impl Display, ok: bool) -> Check {
    Check { id, expected: excerpt(&expected.to_string()), got: excerpt(&got.to_string()), ok }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The README lists every check, in order, with the words that results and refusals use.
    #[test]
    fn readme_names_every_check() {
        let readme = include_str!("../README.md");
        let listed = readme.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` | `"));
        let listed = listed.map(|(id, rest)| (id, rest.split('`').next().unwrap_or_default()));
        // Other tables have no codes.
        let listed: Vec<_> = listed.filter(|(_, code)| !code.contains(|c: char| c.is_ascii_lowercase())).collect();
        assert_eq!(listed, CheckId::ALL.map(CheckId::names));
        assert!(CheckId::ALL.windows(2).all(|pair| (pair[0] as u8) + 1 == pair[1] as u8), "ALL is in order");
        assert_eq!((CheckId::Config.stage(), CheckId::Nonce.stage()), (Stage::Genuine, Stage::Wanted));
    }

    /// `CODES.md` says of each code, once, to which question and checks it belongs.
    #[test]
    fn every_code_is_explained() {
        let text = include_str!("../CODES.md");
        for check in CheckId::ALL {
            let (id, code) = check.names();
            let rows: Vec<_> = text.lines().filter(|line| line.starts_with(&format!("| `{code}` |"))).collect();
            let [row] = rows[..] else { panic!("{code}: {} rows", rows.len()) };
            assert!(row.contains(&format!(" | {} | ", check.stage())) && row.contains(&format!("`{id}`")), "{row}");
        }
        let codes = text.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` |"));
        let known = |code: &str| CheckId::ALL.iter().any(|check| check.names().1 == code);
        assert!(codes.map(|(code, _)| code).all(known));
    }
}
