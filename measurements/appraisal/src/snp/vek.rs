//! The certificate of a VCEK or VLEK, and what it says in AMD's own extensions (Versioned Chip Endorsement Key Certificate
//! and KDS Interface Specification, 57230, section 3).

use blf_evidence::Hex;
use blf_evidence::snp::{Family, Report, SIGNING_KEY_VLEK, Tcb};
use x509_cert::der::Decode as _;
use x509_cert::der::asn1::Ia5StringRef;

use super::Signer;
use crate::x509::Certificate;

/// The arc of AMD's extensions, 1.3.6.1.4.1.3704.1, as it is encoded.
const AMD: &[u8] = b"\x2B\x06\x01\x04\x01\x9C\x78\x01";

/// The certificate of a key that signs reports. Nobody's signature over it is checked here.
#[derive(Clone, Debug)]
pub(super) struct Vek {
    pub(super) certificate: Certificate,
    /// SEC 1, P-384.
    pub(super) point: Vec<u8>,
    pub(super) family: Family,
    pub(super) signer: Signer,
    /// The reported TCB for which the key was derived.
    tcb: Tcb,
    /// CHIP_ID of the chip, for a VCEK.
    chip_id: Option<Hex<64>>,
}

/// AMD's extensions, each at most once.
#[derive(Default)]
struct Extensions<'a> {
    struct_version: Option<u8>,
    product_name: Option<&'a str>,
    /// `blSPL`, `teeSPL`, `snpSPL`, `spl4` to `spl7`, `ucodeSPL`, `fmcSPL`: 3.1 to 3.9.
    spl: [Option<u8>; 9],
    hw_id: Option<&'a [u8]>,
    csp_id: Option<&'a str>,
}

impl Vek {
    /// Parses a certificate. Says what is wrong.
    pub(super) fn parse(der: &[u8]) -> Result<Self, String> {
        let certificate = Certificate::parse_canonical(der).map_err(|error| error.to_string())?;
        let point = certificate.p384_point().ok_or("a key that is not on P-384")?.to_vec();
        if certificate.may_issue() != Some(false) {
            return Err("a certificate that may issue, or demands what we do not know".into());
        }
        let extensions = Extensions::read(&certificate)?;
        let family = extensions.family()?;
        let tcb = extensions.tcb(family)?;
        let (signer, chip_id) = match (extensions.hw_id, extensions.csp_id) {
            (Some(hw_id), None) => (Signer::Vcek, Some(chip_id(hw_id, family)?)),
            (None, Some(csp_id)) => (Signer::Vlek { csp_id: csp_id.into() }, None),
            _ => return Err("not exactly one of hwID and cspID".into()),
        };
        let name = if chip_id.is_some() { "SEV-VCEK" } else { "SEV-VLEK" };
        if certificate.common_name() != name {
            return Err(format!("{} instead of {name}", certificate.common_name()));
        }
        Ok(Self { point, family, signer, tcb, chip_id, certificate })
    }

    /// The first thing that the report says otherwise: what it says, and what the certificate says.
    pub(super) fn differs(&self, report: &Report) -> Option<(String, String)> {
        let by_cloud = report.signing_key == SIGNING_KEY_VLEK;
        if by_cloud != self.chip_id.is_none() {
            let name = |by_cloud| if by_cloud { "a VLEK" } else { "a VCEK" };
            return Some((name(by_cloud).into(), name(!by_cloud).into()));
        }
        // Version 2 does not say of which family it is, and Turin never spoke it.
        match report.cpuid.map(Family::of_cpuid) {
            None if self.family == Family::Turin => return Some(("Milan or Genoa".into(), self.family.to_string())),
            Some(family) if family != Some(self.family) => {
                return Some((family.map_or_else(String::new, |family| family.to_string()), self.family.to_string()));
            }
            _ => {}
        }
        if self.tcb != report.reported_tcb {
            let name = |tcb: Tcb| format!("TCB {}", tcb.components(self.family));
            return Some((name(report.reported_tcb), name(self.tcb)));
        }
        // The chip of a VLEK is the cloud's business. One that hides its CHIP_ID cannot show that a VCEK is its own.
        let chip_id = self.chip_id.filter(|chip_id| *chip_id != report.chip_id)?;
        Some((format!("CHIP_ID {}", report.chip_id), format!("hwID {chip_id}")))
    }
}

impl<'a> Extensions<'a> {
    fn read(certificate: &'a Certificate) -> Result<Self, String> {
        let mut found = Self::default();
        for extension in certificate.tbs().extensions().into_iter().flatten() {
            let Some(arc) = extension.extn_id.as_bytes().strip_prefix(AMD) else { continue };
            let value = extension.extn_value.as_bytes();
            let first = match *arc {
                [1] => found.struct_version.replace(integer(value)?).is_none(),
                [2] => found.product_name.replace(text(value)?).is_none(),
                [3, spl @ 1..=9] => found.spl[usize::from(spl) - 1].replace(integer(value)?).is_none(),
                [4] => found.hw_id.replace(value).is_none(),
                [5] => found.csp_id.replace(text(value)?).is_none(),
                // It might be one more part of the TCB.
                _ => return Err(format!("the unknown extension {}", extension.extn_id)),
            };
            if !first {
                return Err(format!("the extension {} twice", extension.extn_id));
            }
        }
        Ok(found)
    }

    /// `productName` is the family's, alone or with a stepping, as in `Milan-B0`.
    fn family(&self) -> Result<Family, String> {
        let name = self.product_name.ok_or("no productName")?;
        let is = |family: &Family| match name.strip_prefix(family.product()).map(str::as_bytes) {
            Some([] | [b'-', b'A'..=b'Z', b'0'..=b'9']) => true,
            Some(_) | None => false,
        };
        Family::ALL.into_iter().find(is).ok_or_else(|| format!("productName {name}"))
    }

    /// The SPLs in the order of TCB_VERSION, which `structVersion` tells apart.
    fn tcb(&self, family: Family) -> Result<Tcb, String> {
        let [bl, tee, snp, spl4, spl5, spl6, spl7, ucode, fmc] = self.spl;
        let (version, order, absent) = match family {
            Family::Milan | Family::Genoa => (0, [bl, tee, spl4, spl5, spl6, spl7, snp, ucode], fmc),
            Family::Turin => (1, [fmc, bl, tee, snp, spl5, spl6, spl7, ucode], spl4),
        };
        if self.struct_version != Some(version) {
            return Err(format!("structVersion {:?} instead of {version} for {family}", self.struct_version));
        }
        let mut tcb = Tcb([0; 8]);
        for (byte, spl) in tcb.0.iter_mut().zip(order) {
            *byte = spl.ok_or_else(|| format!("not every SPL of {family}"))?;
        }
        if absent.is_some() {
            return Err(format!("an SPL that {family} does not have"));
        }
        Ok(tcb)
    }
}

/// CHIP_ID for a `hwID`: 64 bytes, of which Turin uses 8. AMD writes them without the OCTET STRING that its specification
/// names; both are taken, since one cannot be mistaken for the other.
fn chip_id(hw_id: &[u8], family: Family) -> Result<Hex<64>, String> {
    let size: u8 = if family == Family::Turin { 8 } else { 64 };
    let bytes = match hw_id {
        [0x04, len, bytes @ ..] if *len == size && bytes.len() == usize::from(size) => bytes,
        bytes if bytes.len() == usize::from(size) => bytes,
        bytes => return Err(format!("hwID of {} bytes instead of {size}", bytes.len())),
    };
    let mut chip_id = Hex([0; 64]);
    chip_id.0[..bytes.len()].copy_from_slice(bytes);
    Ok(chip_id)
}

fn integer(der: &[u8]) -> Result<u8, String> {
    u8::from_der(der).map_err(|error| format!("an extension that is no INTEGER of 0 to 255: {error}"))
}

fn text(der: &[u8]) -> Result<&str, String> {
    let text = Ia5StringRef::from_der(der).map_err(|error| format!("an extension that is no IA5String: {error}"))?;
    Ok(text.as_str())
}
