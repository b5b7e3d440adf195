//! TPM 2.0 structures (Trusted Platform Module Library, Part 2).

use blf_evidence::bundle::TpmEvidence;
use blf_evidence::tpm::{
    GENERATED_VALUE, HashAlg, PcrSelection, Public, PublicKey, Quote, ST_ATTEST_QUOTE, Scheme, Signature, Symmetric,
    TpmError,
};
use blf_evidence::{Base64, Hex};

use super::fields::{Fields, blob, part};
use super::{eventlog, x509};

/// `TPMS_ATTEST` of type quote.
pub(super) fn quote(bytes: &[u8]) -> Result<Fields, TpmError> {
    let quote = Quote::parse(bytes)?;
    let clock = Fields::default()
        .with("clock", format!("{} ms", quote.clock_info.clock))
        .with("resetCount", quote.clock_info.reset_count)
        .with("restartCount", quote.clock_info.restart_count)
        .with("safe", quote.clock_info.safe);
    let attested = Fields::default()
        .with("pcrSelect.hash", algorithm(quote.pcr_select.hash))
        .with("pcrSelect.pcrSelect", selected(quote.pcr_select))
        .with("pcrDigest", blob(&quote.pcr_digest));
    Ok(Fields::default()
        .with("magic", format!("0x{GENERATED_VALUE:08x} (TPM_GENERATED_VALUE)"))
        .with("type", format!("0x{ST_ATTEST_QUOTE:04x} (TPM_ST_ATTEST_QUOTE)"))
        .with("qualifiedSigner", blob(&quote.qualified_signer))
        .with("extraData", blob(&quote.extra_data))
        .with("clockInfo", clock)
        .with("firmwareVersion", format!("0x{:016x}", quote.firmware_version))
        .with("attested.quote", attested))
}

/// `TPMT_SIGNATURE`.
pub(super) fn signature(bytes: &[u8]) -> Result<Fields, TpmError> {
    Ok(match Signature::parse(bytes)? {
        Signature::Rsassa { hash, signature } => Fields::default()
            .with("sigAlg", "TPM_ALG_RSASSA")
            .with("rsassa.hash", algorithm(hash))
            .with("rsassa.sig", hex::encode(signature)),
        Signature::Ecdsa { hash, r, s } => Fields::default()
            .with("sigAlg", "TPM_ALG_ECDSA")
            .with("ecdsa.hash", algorithm(hash))
            .with("ecdsa.signatureR", blob(&r))
            .with("ecdsa.signatureS", blob(&s)),
    })
}

/// `TPMT_PUBLIC`, or the `TPM2B_PUBLIC` that tools write.
pub(super) fn public(bytes: &[u8]) -> Result<Fields, TpmError> {
    let public = if is_sized(bytes) { Public::parse_sized(bytes)? } else { Public::parse(bytes)? };
    let (PublicKey::Rsa2048 { scheme, symmetric, .. } | PublicKey::EccP256 { scheme, symmetric, .. }) = &public.key;
    let kind = match public.key {
        PublicKey::Rsa2048 { .. } => "TPM_ALG_RSA",
        PublicKey::EccP256 { .. } => "TPM_ALG_ECC",
    };
    let mut fields = Fields::default()
        .with("type", kind)
        .with("nameAlg", algorithm(public.name_alg))
        .with("objectAttributes", format!("0x{:08x} ({})", public.attributes.bits(), public.attributes))
        .with("authPolicy", blob(&public.auth_policy))
        .with(
            "parameters.symmetric",
            match symmetric {
                Symmetric::Null => "TPM_ALG_NULL",
                Symmetric::Aes128Cfb => "TPM_ALG_AES 128 CFB",
            },
        )
        .with(
            "parameters.scheme",
            match (scheme, &public.key) {
                (Scheme::Null, _) => "TPM_ALG_NULL".into(),
                (Scheme::Signing(hash), PublicKey::Rsa2048 { .. }) => format!("TPM_ALG_RSASSA {}", algorithm(*hash)),
                (Scheme::Signing(hash), PublicKey::EccP256 { .. }) => format!("TPM_ALG_ECDSA {}", algorithm(*hash)),
            },
        );
    fields = match &public.key {
        PublicKey::Rsa2048 { exponent, modulus, .. } => fields
            .with("parameters.keyBits", 2048_u16)
            .with("parameters.exponent", format!("{exponent}{}", if *exponent == 0 { " (65537)" } else { "" }))
            .with("unique.rsa", hex::encode(modulus)),
        PublicKey::EccP256 { x, y, .. } => fields
            .with("parameters.curveID", "TPM_ECC_NIST_P256")
            .with("unique.x", hex::encode(x))
            .with("unique.y", hex::encode(y)),
    };
    Ok(fields.with("Name", hex::encode(public.name())))
}

/// Every part of a TPM's evidence.
pub(super) fn evidence(tpm: &TpmEvidence) -> Fields {
    let certificate = |der: &Base64| part(x509::certificate(&der.0));
    let pcrs = tpm.pcrs.iter().enumerate();
    let pcrs = pcrs.fold(Fields::default(), |pcrs, (index, value)| pcrs.with(index.to_string(), *value));
    Fields::default()
        .with("TPMS_ATTEST", part(quote(&tpm.quote.0)))
        .with("TPMT_SIGNATURE", part(signature(&tpm.signature.0)))
        .with("TPMT_PUBLIC of the AK", part(public(&tpm.ak_public.0)))
        .with("AK certificate", tpm.ak_certificate.as_ref().map(certificate))
        .with("PCR, SHA-256", pcrs)
        .with("event log", tpm.event_log.as_ref().map(|log| part(eventlog::log(&log.0))))
}

/// Whether the bytes begin with the length of the rest.
pub(super) fn is_sized(bytes: &[u8]) -> bool {
    bytes.split_first_chunk().is_some_and(|(length, rest)| usize::from(u16::from_be_bytes(*length)) == rest.len())
}

fn algorithm(hash: HashAlg) -> &'static str {
    match hash {
        HashAlg::Sha256 => "TPM_ALG_SHA256",
        HashAlg::Sha384 => "TPM_ALG_SHA384",
    }
}

fn selected(selection: PcrSelection) -> String {
    let chosen = (0..24_usize).filter(|pcr| selection.select[pcr / 8] & 1 << (pcr % 8) != 0);
    let chosen: Vec<String> = chosen.map(|pcr| pcr.to_string()).collect();
    format!("{} (PCR {})", Hex(selection.select), chosen.join(" "))
}
