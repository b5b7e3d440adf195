//! Azure: the HCL report, and the TDREPORT inside it.

use blf_evidence::azure::{HardwareReport, HclError, HclReport, RuntimeData, TdReport};
use blf_evidence::bundle::AzureEvidence;
use sha2::{Digest as _, Sha256};

use super::fields::{Fields, part};
use super::{snp, tdx, tpm};

/// The content of NV index 0x01400001, with the members of `IgvmAttestRequestBase`.
pub(super) fn hcl_report(bytes: &[u8]) -> Result<Fields, HclError> {
    let report = HclReport::parse(bytes)?;
    let (report_type, name, hardware) = match &report.hardware {
        HardwareReport::Snp(report) => ("2 (SNP_VM_REPORT)", "ATTESTATION_REPORT", part(snp::report(&report[..]))),
        HardwareReport::Tdx(report) => ("4 (TDX_VM_REPORT)", "TDREPORT", td_report_fields(report)),
    };
    let digest = hex::encode(Sha256::digest(&report.runtime_data));
    Ok(Fields::default()
        .with("signature", "HCLA")
        .with("version", report.version)
        .with("request_type", "2 (AK_CERT_REQUEST)")
        .with("status", 0_u8)
        .with("report_type", report_type)
        .with("report_data_hash_type", "1 (SHA_256)")
        .with("variable_data_size", report.runtime_data.len() as u64)
        .with("padding", format!("{} bytes", report.padding))
        .with(name, hardware)
        .with("runtime data", part(runtime_data(&report.runtime_data)))
        .with("SHA-256 of the runtime data", digest))
}

/// A TDREPORT_STRUCT.
pub(super) fn td_report(bytes: &[u8]) -> Result<Fields, HclError> {
    Ok(td_report_fields(&TdReport::parse(bytes)?))
}

/// Every part of an Azure guest's evidence.
pub(super) fn evidence(azure: &AzureEvidence) -> Fields {
    Fields::default()
        .with("HCL report", part(hcl_report(&azure.hcl_report.0)))
        .with("TD quote", azure.td_quote.as_ref().map(|quote| part(tdx::quote(&quote.0))))
        .with("vTPM", tpm::evidence(&azure.tpm))
}

fn td_report_fields(report: &TdReport) -> Fields {
    let fields = Fields::default()
        .with("REPORTTYPE", format!("type 0x81 (TDX), subtype 0, version {}", report.version))
        .with("CPUSVN", report.cpu_svn)
        .with("REPORTDATA", report.report_data)
        .with("MAC", report.mac)
        .with("TEE_TCB_INFO.VALID", format!("0x{:016x}", report.valid))
        .with("TEE_TCB_SVN", report.tee_tcb_svn)
        .with("MRSEAM", report.mr_seam)
        .with("MRSIGNERSEAM", report.mrsigner_seam)
        .with("TEE_TCB_INFO.ATTRIBUTES", format!("0x{:016x}", report.seam_attributes))
        .with("TEE_TCB_SVN2", report.tee_tcb_svn_2)
        .with("TDINFO.ATTRIBUTES", tdx::td_attributes(report.td_attributes))
        .with("XFAM", format!("0x{:016x}", report.xfam))
        .with("MRTD", report.mr_td)
        .with("MRCONFIGID", report.mr_config_id)
        .with("MROWNER", report.mr_owner)
        .with("MROWNERCONFIG", report.mr_owner_config);
    let registers = report.rtmrs.iter().enumerate();
    registers
        .fold(fields, |fields, (index, register)| fields.with(format!("RTMR{index}"), *register))
        .with("SERVTD_HASH", report.service_td_hash)
}

/// The paravisor's JSON, as far as anybody relies on it.
fn runtime_data(bytes: &[u8]) -> Result<Fields, HclError> {
    let data = RuntimeData::parse(bytes)?;
    let vm = data.vm_configuration;
    let configuration = Fields::default()
        .with("console-enabled", vm.console_enabled)
        .with("secure-boot", vm.secure_boot)
        .with("tpm-persisted", vm.tpm_persisted)
        .with("vmUniqueId", vm.vm_unique_id);
    Ok(Fields::default()
        .with("HCLAkPub.n", hex::encode(data.ak_modulus.as_slice()))
        .with("vm-configuration", configuration))
}
