//! What is wanted of the registers that firmware measured into, a TPM's or a TD's.

use blf_evidence::Hex;

use super::{Accept, Demand, Policy};
use crate::check::{CheckId, Checks, Rejected};
use crate::references::Reference;
use crate::tdx;
use crate::tpm::{AkEndorsement, Claims};

/// A register into which nothing was measured but the separator: SHA-256 of 32 zero bytes and SHA-256 of 4.
const SEPARATOR: Hex<32> = Hex([
    0x3d, 0x45, 0x8c, 0xfe, 0x55, 0xcc, 0x03, 0xea, 0x1f, 0x44, 0x3f, 0x15, 0x62, 0xbe, 0xec, 0x8d, 0xf5, 0x1c, 0x75,
    0xe1, 0x4a, 0x9f, 0xcf, 0x9a, 0x72, 0x34, 0xa1, 0x3f, 0x19, 0x8e, 0x79, 0x69,
]);

impl Policy {
    pub(super) fn check_tpm(
        &self,
        claims: &Claims,
        reference: &Reference,
        checks: &mut Checks,
    ) -> Result<(), Box<Rejected>> {
        let Claims { pcrs, ak, event_log, .. } = claims;
        // There are some: the reference was found by its PCR 11.
        let Some(values) = &reference.tpm else {
            return Err(checks.reject(CheckId::Measurement, "values for a TPM", "none"));
        };
        let wanted = values.pcr4.iter().map(Hex::to_string).collect::<Vec<_>>().join(" or ");
        checks.require(CheckId::Pcr4, wanted, pcrs[4], values.pcr4.contains(&pcrs[4]))?;
        // Drivers of firmware, which could change what is started after it was measured, and their configuration.
        let drivers = [pcrs[2], pcrs[3]];
        let got = format!("PCR 2 {}; PCR 3 {}", drivers[0], drivers[1]);
        checks.require(CheckId::Drivers, "PCR 2 and 3 with a separator alone", got, drivers == [SEPARATOR; 2])?;
        checks.equal(CheckId::Pcr9, values.pcr9, pcrs[9])?;
        checks.equal(CheckId::Pcr12, Hex([0; 32]), pcrs[12])?;
        checks.equal(CheckId::Pcr13, Hex([0; 32]), pcrs[13])?;
        let got = match ak {
            AkEndorsement::Certified { root, .. } => format!("certified by {root}"),
            AkEndorsement::Activated => "activated by ourselves".into(),
            AkEndorsement::Paravisor => "vouched for by the paravisor".into(),
            AkEndorsement::Nobody => "endorsed by nobody".into(),
        };
        let ok = self.ak_endorsement.admits(*ak != AkEndorsement::Nobody);
        checks.require(CheckId::Ak, self.ak_endorsement.wording("certified or activated"), got, ok)?;
        check_event_log(self.event_log, *event_log, checks)
    }

    pub(super) fn check_rtmrs(
        &self,
        claims: &tdx::Claims,
        reference: &Reference,
        checks: &mut Checks,
    ) -> Result<(), Box<Rejected>> {
        // There are some: the reference was found by its MRTD, RTMR 1 and 2.
        let Some(values) = &reference.tdx else {
            return Err(checks.reject(CheckId::Measurement, "values for TDX", "none"));
        };
        let [rtmr0, _, _, rtmr3] = claims.quote.rtmrs;
        let wanted = self.tdx.rtmr0.wording("a listed RTMR 0");
        let wanted = format!("{wanted}; RTMR 0 {}; RTMR 3 zero", values.rtmr0.list());
        let listed = self.tdx.rtmr0.admits(values.rtmr0 != Accept::Any);
        let ok = listed && values.rtmr0.accepts(&rtmr0) && rtmr3 == Hex([0; 48]);
        checks.require(CheckId::Rtmrs, wanted, format!("RTMR 0 {rtmr0}; RTMR 3 {rtmr3}"), ok)?;
        check_event_log(self.tdx.event_log, claims.event_log, checks)
    }
}

fn check_event_log(demand: Demand, there: bool, checks: &mut Checks) -> Result<(), Box<Rejected>> {
    let got = if there { "a log" } else { "none" };
    checks.require(CheckId::EventLogPresent, demand.wording("a log"), got, demand.admits(there))
}
