//! AMD SEV-SNP: the report and the certificate table, in the names of the ABI (56860) and of the GHCB (56421).

use blf_evidence::bundle::SnpEvidence;
use blf_evidence::snp::{
    CertificateTable, CertificateTableError, Family, Report, ReportError, SIGNING_KEY_VCEK, SIGNING_KEY_VLEK, Tcb,
    platform_info, policy,
};

use super::fields::{Fields, bits, part};
use super::x509;

const POLICY: [(u64, &str); 10] = [
    (policy::SMT, "SMT"),
    (policy::RESERVED_ONE, "reserved, one"),
    (policy::MIGRATE_MA, "MIGRATE_MA"),
    (policy::DEBUG, "DEBUG"),
    (policy::SINGLE_SOCKET, "SINGLE_SOCKET"),
    (policy::CXL_ALLOW, "CXL_ALLOW"),
    (policy::MEM_AES_256_XTS, "MEM_AES_256_XTS"),
    (policy::RAPL_DIS, "RAPL_DIS"),
    (policy::CIPHERTEXT_HIDING_DRAM, "CIPHERTEXT_HIDING_DRAM"),
    (policy::PAGE_SWAP_DISABLE, "PAGE_SWAP_DISABLE"),
];

const PLATFORM_INFO: [(u64, &str); 7] = [
    (platform_info::SMT_EN, "SMT_EN"),
    (platform_info::TSME_EN, "TSME_EN"),
    (platform_info::ECC_EN, "ECC_EN"),
    (platform_info::RAPL_DIS, "RAPL_DIS"),
    (platform_info::CIPHERTEXT_HIDING_DRAM_EN, "CIPHERTEXT_HIDING_DRAM_EN"),
    (platform_info::ALIAS_CHECK_COMPLETE, "ALIAS_CHECK_COMPLETE"),
    (platform_info::TIO_EN, "TIO_EN"),
];

/// An ATTESTATION_REPORT.
pub(super) fn report(bytes: &[u8]) -> Result<Fields, ReportError> {
    let report = Report::parse(bytes)?;
    // Without CPUID the chip is older than the other order of TCB_VERSION.
    let family = report.cpuid.map_or(Some(Family::Milan), Family::of_cpuid);
    let abi = report.policy & 0xFFFF;
    let policy = Fields::default()
        .with("value", format!("0x{:016x}", report.policy))
        .with("ABI_MINOR", abi & 0xFF)
        .with("ABI_MAJOR", abi >> 8)
        .and(bits(report.policy & !0xFFFF, &POLICY));
    let platform = Fields::default()
        .with("value", format!("0x{:016x}", report.platform_info))
        .and(bits(report.platform_info, &PLATFORM_INFO));
    let signer = match report.signing_key {
        SIGNING_KEY_VCEK => "VCEK",
        SIGNING_KEY_VLEK => "VLEK",
        _ => "none",
    };
    let cpuid = |name: &str| match (report.cpuid, name) {
        (Some([family, _, _]), "family") => Some(format!("{family:02x}h")),
        (Some([_, model, _]), "model") => Some(format!("{model:02x}h")),
        (Some([_, _, step]), _) => Some(format!("{step:02x}h")),
        (None, _) => None,
    };
    let version = |[major, minor, build]: [u8; 3]| format!("{major}.{minor}.{build}");
    Ok(Fields::default()
        .with("VERSION", report.version)
        .with("GUEST_SVN", report.guest_svn)
        .with("POLICY", policy)
        .with("FAMILY_ID", report.family_id)
        .with("IMAGE_ID", report.image_id)
        .with("VMPL", report.vmpl)
        .with("SIGNATURE_ALGO", "1 (ECDSA P-384 with SHA-384)")
        .with("CURRENT_TCB", tcb(report.current_tcb, family))
        .with("PLATFORM_INFO", platform)
        .with("AUTHOR_KEY_EN", report.author_key_enabled)
        .with("MASK_CHIP_KEY", report.mask_chip_key)
        .with("SIGNING_KEY", format!("{} ({signer})", report.signing_key))
        .with("REPORT_DATA", report.report_data)
        .with("MEASUREMENT", report.measurement)
        .with("HOST_DATA", report.host_data)
        .with("ID_KEY_DIGEST", report.id_key_digest)
        .with("AUTHOR_KEY_DIGEST", report.author_key_digest)
        .with("REPORT_ID", report.report_id)
        .with("REPORT_ID_MA", report.report_id_ma)
        .with("REPORTED_TCB", tcb(report.reported_tcb, family))
        .with("CPUID_FAM_ID", cpuid("family"))
        .with("CPUID_MOD_ID", cpuid("model"))
        .with("CPUID_STEP", cpuid("step"))
        .with("product", family.map(Family::product))
        .with("CHIP_ID", report.chip_id)
        .with("COMMITTED_TCB", tcb(report.committed_tcb, family))
        .with("CURRENT version", version(report.current_firmware))
        .with("COMMITTED version", version(report.committed_firmware))
        .with("LAUNCH_TCB", tcb(report.launch_tcb, family))
        .with("LAUNCH_MIT_VECTOR", report.launch_mitigations.map(|vector| format!("0x{vector:016x}")))
        .with("CURRENT_MIT_VECTOR", report.current_mitigations.map(|vector| format!("0x{vector:016x}")))
        .with("SIGNATURE", report.signature))
}

/// A certificate table, each certificate decoded.
pub(super) fn certificates(bytes: &[u8]) -> Result<Fields, CertificateTableError> {
    let table = CertificateTable::parse(bytes)?;
    let certificate = |der: Option<&[u8]>| der.map(|der| part(x509::certificate(der)));
    Ok(Fields::default()
        .with("VCEK", certificate(table.vcek))
        .with("VLEK", certificate(table.vlek))
        .with("ASK", certificate(table.ask))
        .with("ARK", certificate(table.ark)))
}

/// Every part of a guest's evidence.
pub(super) fn evidence(snp: &SnpEvidence) -> Fields {
    Fields::default()
        .with("ATTESTATION_REPORT", part(report(&snp.report.0)))
        .with("certificate table", snp.certificates.as_ref().map(|table| part(certificates(&table.0))))
}

/// Whether the first entry is one of the GUIDs that we know.
pub(super) fn begins_a_table(bytes: &[u8]) -> bool {
    const FIRST: [u32; 4] = [0x63DA_758D, 0xA807_4BC2, 0x4AB7_B379, 0xC0B4_06A4];
    bytes.first_chunk().is_some_and(|start| FIRST.contains(&u32::from_le_bytes(*start)))
}

/// TCB_VERSION by its components; of a chip that nobody knows, the bytes.
fn tcb(tcb: Tcb, family: Option<Family>) -> Fields {
    let value = Fields::default().with("value", hex::encode(tcb.0));
    let Some(family) = family else { return value };
    let components = tcb.components(family);
    value
        .with_some("FMC", components.fmc)
        .with("BOOT_LOADER", components.bootloader)
        .with("TEE", components.tee)
        .with("SNP", components.snp)
        .with("MICROCODE", components.microcode)
}
