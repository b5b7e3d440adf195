//! Azure: the hardware's report vouches for the paravisor's runtime data, these for the vTPM's AK, and the AK's quote for
//! the guest.
//!
//! ```text
//! AMD or Intel ─► hardware report ─ REPORT_DATA ─► runtime data ─ HCLAkPub ─► AK ─► quote ─ PCRs ─► image
//!                                                                                   └─ extraData ─► statement
//! ```
//!
//! The hardware's report is one on the paravisor: its launch digest or MRTD is Microsoft's firmware, its VMPL is 0, and its
//! RTMRs are zero. The guest is what the PCRs say.
//!
//! Every byte has one value or is signed, and nothing may be keyed with what is not:
//!
//! - the HCL header's version, 1 or 2, and how many zeros pad the report to its NV index;
//! - of a TDREPORT, REPORTTYPE.VERSION, CPUSVN, VALID and MAC, which only its processor could check and no TD quote has,
//!   and TEE_TCB_SVN2 where the TD quote has a TD 1.0 body;
//! - of the vTPM, what [`crate::tpm`] names.

use blf_evidence::azure::{HardwareReport, HclError, HclReport, RuntimeData, TdReport, VmConfiguration};
use blf_evidence::bundle::AzureEvidence;
use blf_evidence::endorsements::Endorsements;
use blf_evidence::tdx::Quote;
use blf_evidence::tpm::{Public, PublicKey};
use blf_evidence::{Hex, UnixTime};

use crate::authenticate::{Authentic, Context, Endorsers, sha256};
use crate::check::{CheckId, Checks, Rejected};
use crate::crypto::CryptoProvider;
use crate::tpm::AkEndorsement;
use crate::{snp, tdx, tpm};

/// TPM_RH_ENDORSEMENT (TPM 2.0 Part 2, 7.4): in this hierarchy the paravisor makes the AK.
const RH_ENDORSEMENT: u32 = 0x4000_000B;

/// What a guest of Azure says.
#[derive(Clone, Debug)]
pub struct Claims {
    /// What the hardware says of the paravisor.
    pub hardware: Hardware,
    /// What the paravisor says of the virtual machine.
    pub vm_configuration: VmConfiguration,
    /// What the paravisor's vTPM says of the guest.
    pub tpm: tpm::Claims,
}

/// The hardware below the paravisor.
#[derive(Clone, Debug)]
pub enum Hardware {
    /// SEV-SNP.
    Snp(snp::Claims),
    /// TDX.
    Tdx(tdx::Claims),
}

/// Checks evidence of a guest of Azure alone, with no words of a node: that its vTPM quoted these PCRs together with
/// `extra_data`, and everything below the vTPM.
///
/// # Errors
/// [`Rejected`] with the first check that fails.
pub fn authenticate(
    evidence: &AzureEvidence,
    extra_data: &[u8],
    endorsements: &Endorsements,
    endorsers: &Endorsers,
    now: UnixTime,
    crypto: &dyn CryptoProvider,
) -> Result<Authentic<Claims>, Box<Rejected>> {
    let context = Context { endorsers, endorsements: endorsements.clone(), now, crypto };
    let mut checks = Checks::default();
    let claims = check(evidence, extra_data, &context, &mut checks)?;
    Ok(Authentic { claims, now, checks })
}

/// Checks the chain from the hardware to the vTPM's quote of `extra_data`.
pub(crate) fn check(
    evidence: &AzureEvidence,
    extra_data: &[u8],
    context: &Context<'_>,
    checks: &mut Checks,
) -> Result<Claims, Box<Rejected>> {
    let (hcl, runtime_data) = checks.parsed(CheckId::Hcl, "an HCL report on SEV-SNP or TDX", parse(evidence))?;
    let mut covered = [0; 64];
    covered[..32].copy_from_slice(&sha256(&hcl.runtime_data).0);
    checks.equal(CheckId::HclRuntimeData, hex::encode(covered), hex::encode(hcl.hardware.report_data()))?;
    let hardware = check_hardware(evidence, &hcl, context, checks)?;

    let ak = tpm::check_ak(&evidence.tpm, checks)?;
    check_hcl_ak(&ak, &runtime_data, checks)?;
    let quote = tpm::check_quote(&evidence.tpm, &ak, extra_data, context.crypto, checks)?;
    let name = ak.qualified_name(&RH_ENDORSEMENT.to_be_bytes());
    checks.equal(CheckId::HclAkName, hex::encode(name), hex::encode(&quote.qualified_signer))?;
    let pcrs = tpm::check_pcrs(&evidence.tpm, &quote, checks)?;
    tpm::check_event_log(&evidence.tpm, &pcrs, checks)?;
    // A certificate that is there must be good, but it is the paravisor that vouches for this AK.
    tpm::check_endorsement(&evidence.tpm, &ak, context, checks)?;
    let event_log = evidence.tpm.event_log.is_some();
    let tpm = tpm::Claims { pcrs, ak: AkEndorsement::Paravisor, ak_name: ak.name(), event_log };
    Ok(Claims { hardware, vm_configuration: runtime_data.vm_configuration, tpm })
}

fn parse(evidence: &AzureEvidence) -> Result<(HclReport, RuntimeData), HclError> {
    let hcl = HclReport::parse(&evidence.hcl_report.0)?;
    let runtime_data = RuntimeData::parse(&hcl.runtime_data)?;
    Ok((hcl, runtime_data))
}

/// The hardware's own chain; on TDX that of the quote made of the TDREPORT, which by itself proves nothing.
fn check_hardware(
    evidence: &AzureEvidence,
    hcl: &HclReport,
    context: &Context<'_>,
    checks: &mut Checks,
) -> Result<Hardware, Box<Rejected>> {
    let Context { endorsers, endorsements, now, crypto } = context;
    match (&hcl.hardware, &evidence.td_quote) {
        (HardwareReport::Snp(report), None) => {
            let endorsements = endorsements.snp.clone().unwrap_or_default();
            let claims = snp::check_report(&report[..], &endorsements, &endorsers.amd, *now, *crypto, checks)?;
            checks.equal(CheckId::HclVmpl, 0, claims.report.vmpl)?;
            Ok(Hardware::Snp(claims))
        }
        (HardwareReport::Tdx(report), Some(raw)) => {
            let quote = match Quote::parse(&raw.0) {
                Ok(quote) => quote,
                Err(error) => return Err(checks.reject(CheckId::TdQuote, "a TD quote", error)),
            };
            let (wanted, got, ok) = match first_difference(report, &quote) {
                Some((field, wanted, got)) => (format!("{field} {wanted}"), got, false),
                None => ("every field of the TDREPORT".into(), "every field of the TDREPORT".into(), true),
            };
            checks.require(CheckId::TdReport, wanted, got, ok)?;
            let collateral = endorsements.tdx.as_ref();
            Ok(Hardware::Tdx(tdx::verify(&raw.0, collateral, &endorsers.intel, *now, *crypto, checks)?))
        }
        (HardwareReport::Snp(_), Some(_)) => {
            Err(checks.reject(CheckId::TdReport, "no TD quote beside an SEV-SNP report", "one"))
        }
        (HardwareReport::Tdx(_), None) => Err(checks.reject(CheckId::TdReport, "a TD quote of the TDREPORT", "none")),
    }
}

/// The first field of a TD quote that is not its TDREPORT's: name, TDREPORT's value, quote's value.
fn first_difference(report: &TdReport, quote: &Quote) -> Option<(&'static str, String, String)> {
    // What a TD 1.0 body cannot say: no service TD may be bound behind its back.
    let service_td = quote.mr_service_td.unwrap_or(Hex([0; 48]));
    let svn_2 = quote.tee_tcb_svn_2.unwrap_or(report.tee_tcb_svn_2);
    let [rtmr0, rtmr1, rtmr2, rtmr3] = &report.rtmrs;
    let [quoted0, quoted1, quoted2, quoted3] = &quote.rtmrs;
    let fields: [(&str, &[u8], &[u8]); 17] = [
        ("REPORTDATA", &report.report_data.0, &quote.report_data.0),
        ("TEE_TCB_SVN", &report.tee_tcb_svn.0, &quote.tee_tcb_svn.0),
        ("MRSEAM", &report.mr_seam.0, &quote.mr_seam.0),
        ("MRSIGNERSEAM", &report.mrsigner_seam.0, &quote.mrsigner_seam.0),
        ("SEAM attributes", &report.seam_attributes.to_le_bytes(), &quote.seam_attributes.to_le_bytes()),
        ("TEE_TCB_SVN2", &report.tee_tcb_svn_2.0, &svn_2.0),
        ("ATTRIBUTES", &report.td_attributes.to_le_bytes(), &quote.td_attributes.to_le_bytes()),
        ("XFAM", &report.xfam.to_le_bytes(), &quote.xfam.to_le_bytes()),
        ("MRTD", &report.mr_td.0, &quote.mr_td.0),
        ("MRCONFIGID", &report.mr_config_id.0, &quote.mr_config_id.0),
        ("MROWNER", &report.mr_owner.0, &quote.mr_owner.0),
        ("MROWNERCONFIG", &report.mr_owner_config.0, &quote.mr_owner_config.0),
        ("RTMR0", &rtmr0.0, &quoted0.0),
        ("RTMR1", &rtmr1.0, &quoted1.0),
        ("RTMR2", &rtmr2.0, &quoted2.0),
        ("RTMR3", &rtmr3.0, &quoted3.0),
        ("SERVTD_HASH", &report.service_td_hash.0, &service_td.0),
    ];
    let (field, wanted, got) = fields.into_iter().find(|(_, wanted, got)| wanted != got)?;
    Some((field, hex::encode(wanted), hex::encode(got)))
}

/// The AK is the one that the paravisor put into its vTPM: any other key could have signed anything.
fn check_hcl_ak(ak: &Public, runtime_data: &RuntimeData, checks: &mut Checks) -> Result<(), Box<Rejected>> {
    let got = match &ak.key {
        PublicKey::Rsa2048 { modulus, .. } => hex::encode(modulus),
        PublicKey::EccP256 { .. } => "a key on P-256".into(),
    };
    checks.equal(CheckId::HclAk, hex::encode(&runtime_data.ak_modulus[..]), got)
}
