//! Intel TDX: the quote, in the names of the DCAP Quoting Library API.

use blf_evidence::bundle::TdxEvidence;
use blf_evidence::tdx::{Authentication, EnclaveReport, Quote, QuoteError, attributes};

use super::fields::{Fields, bits, part};
use super::{eventlog, x509};

const TD_ATTRIBUTES: [(u64, &str); 6] = [
    (attributes::DEBUG, "DEBUG"),
    (attributes::SEPT_VE_DISABLE, "SEPT_VE_DISABLE"),
    (attributes::MIGRATABLE, "MIGRATABLE"),
    (attributes::PKS, "PKS"),
    (attributes::KL, "KL"),
    (attributes::PERFMON, "PERFMON"),
];

/// A TD quote.
pub(super) fn quote(bytes: &[u8]) -> Result<Fields, QuoteError> {
    let quote = Quote::parse(bytes)?;
    let fields = Fields::default()
        .with("version", quote.version)
        .with("att_key_type", "2 (ECDSA P-256)")
        .with("tee_type", "0x00000081 (TDX)")
        .with("user_data", quote.user_data)
        .with("tee_tcb_svn", quote.tee_tcb_svn)
        .with("mr_seam", quote.mr_seam)
        .with("mrsigner_seam", quote.mrsigner_seam)
        .with("seam_attributes", format!("0x{:016x}", quote.seam_attributes))
        .with("td_attributes", td_attributes(quote.td_attributes))
        .with("xfam", format!("0x{:016x}", quote.xfam))
        .with("mr_td", quote.mr_td)
        .with("mr_config_id", quote.mr_config_id)
        .with("mr_owner", quote.mr_owner)
        .with("mr_owner_config", quote.mr_owner_config);
    let registers = quote.rtmrs.iter().enumerate();
    Ok(registers
        .fold(fields, |fields, (index, register)| fields.with(format!("rt_mr{index}"), *register))
        .with("report_data", quote.report_data)
        .with("tee_tcb_svn_2", quote.tee_tcb_svn_2)
        .with("mr_service_td", quote.mr_service_td)
        .with("quote signature data", authentication(&quote.authentication)))
}

/// The attributes of a TD, by name.
pub(super) fn td_attributes(value: u64) -> Fields {
    Fields::default().with("value", format!("0x{value:016x}")).and(bits(value, &TD_ATTRIBUTES))
}

/// Every part of a TD's evidence.
pub(super) fn evidence(tdx: &TdxEvidence) -> Fields {
    Fields::default()
        .with("TD quote", part(quote(&tdx.quote.0)))
        .with("event log", tdx.event_log.as_ref().map(|log| part(eventlog::log(&log.0))))
}

fn authentication(authentication: &Authentication) -> Fields {
    Fields::default()
        .with("signature", authentication.signature)
        .with("ECDSA attestation key", authentication.attestation_key)
        .with("QE report", enclave_report(&authentication.qe_report))
        .with("QE report signature", authentication.qe_report_signature)
        .with("QE authentication data", authentication.qe_authentication_data)
        .with("PCK certificate chain", part(x509::chain(&authentication.pck_chain)))
}

fn enclave_report(report: &EnclaveReport) -> Fields {
    Fields::default()
        .with("CPUSVN", report.cpu_svn())
        .with("MISCSELECT", report.misc_select())
        .with("ATTRIBUTES", report.attributes())
        .with("MRENCLAVE", report.mr_enclave())
        .with("MRSIGNER", report.mr_signer())
        .with("ISVPRODID", report.isv_prod_id())
        .with("ISVSVN", report.isv_svn())
        .with("REPORTDATA", report.report_data())
}
