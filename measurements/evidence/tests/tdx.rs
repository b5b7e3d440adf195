//! The TD quote's one form: what is parsed is written as the same bytes, and no other bytes are parsed.

use blf_evidence::Hex;
use blf_evidence::tdx::{
    Authentication, ENCLAVE_REPORT_LEN, EnclaveReport, HEADER_LEN, QUOTE_CAP, Quote, TD10_LEN, TD15_LEN,
};
use proptest::prelude::*;

/// A quote of each kind, its fields filled from `seed`.
fn quotes(seed: u8, chain: Vec<u8>) -> [Quote; 3] {
    let td10 = Quote {
        version: 4,
        user_data: Hex([seed; 20]),
        tee_tcb_svn: Hex([seed ^ 1; 16]),
        mr_seam: Hex([seed ^ 2; 48]),
        mrsigner_seam: Hex([seed ^ 3; 48]),
        seam_attributes: u64::from(seed) << 3,
        td_attributes: u64::from(seed) << 20,
        xfam: u64::from(seed) << 40,
        mr_td: Hex([seed ^ 4; 48]),
        mr_config_id: Hex([seed ^ 5; 48]),
        mr_owner: Hex([seed ^ 6; 48]),
        mr_owner_config: Hex([seed ^ 7; 48]),
        rtmrs: [8, 9, 10, 11].map(|index| Hex([seed ^ index; 48])),
        report_data: Hex([seed ^ 12; 64]),
        tee_tcb_svn_2: None,
        mr_service_td: None,
        authentication: Box::new(Authentication {
            signature: Hex([seed ^ 13; 64]),
            attestation_key: Hex([seed ^ 14; 64]),
            qe_report: EnclaveReport(Hex([seed ^ 15; ENCLAVE_REPORT_LEN])),
            qe_report_signature: Hex([seed ^ 16; 64]),
            qe_authentication_data: Hex([seed ^ 17; 32]),
            pck_chain: chain,
        }),
    };
    let of_version_5 = Quote { version: 5, ..td10.clone() };
    let td15 = Quote {
        tee_tcb_svn_2: Some(Hex([seed ^ 18; 16])),
        mr_service_td: Some(Hex([seed ^ 19; 48])),
        ..of_version_5.clone()
    };
    [td10, of_version_5, td15]
}

proptest! {
    #[test]
    fn written_and_parsed(seed: u8, chain in proptest::collection::vec(any::<u8>(), 0..5000), padding in 0_usize..3000) {
        for (quote, signed) in quotes(seed, chain).into_iter().zip([TD10_LEN, 6 + TD10_LEN, 6 + TD15_LEN]) {
            let mut bytes = quote.to_bytes();
            prop_assert_eq!(quote.signed(&bytes), &bytes[..HEADER_LEN + signed]);
            bytes.resize(bytes.len() + padding, 0);
            prop_assert_eq!(Quote::parse(&bytes).unwrap(), quote);
        }
    }

    /// Whatever is parsed after damage is written as the damaged bytes.
    #[test]
    fn no_second_form(
        seed: u8,
        which in 0_usize..3,
        at: prop::sample::Index,
        byte: u8,
        cut in 0_usize..4,
        grow in proptest::collection::vec(any::<u8>(), 0..4),
    ) {
        let mut bytes = quotes(seed, vec![seed; 100])[which].to_bytes();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let cut = (at + cut).min(bytes.len());
        bytes.splice(at..cut, grow);
        if let Ok(quote) = Quote::parse(&bytes) {
            let written = quote.to_bytes();
            prop_assert_eq!(&bytes[..written.len()], &written[..]);
            prop_assert!(bytes[written.len()..].iter().all(|byte| *byte == 0));
        }
    }

    #[test]
    fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        prop_assert!(Quote::parse(&bytes).is_err());
    }
}

#[test]
fn every_truncation() {
    for quote in quotes(1, vec![1; 50]) {
        let bytes = quote.to_bytes();
        for len in 0..bytes.len() {
            Quote::parse(&bytes[..len]).unwrap_err();
        }
    }
}

/// Each field that must have one value, with the words of its refusal.
#[test]
fn fields_of_one_value() {
    let quote = &quotes(1, vec![1; 50])[2];
    let bytes = quote.to_bytes();
    let auth = HEADER_LEN + 6 + TD15_LEN;
    let qe = auth + 4 + 64 + 64 + 6;
    for (offset, patch, wanted) in [
        (0, &[3, 0][..], "version: wanted 4 or 5, got 3"),
        (0, &[0xD2, 0x84], "version: wanted 4 or 5, got 34002, or CBOR (a CWT or DICE token)"),
        (2, &[3], "attestation key type: wanted 2 (ECDSA P-256), got 3"),
        (4, &[0], "TEE type: wanted 0x81 (TDX), got 0x0"),
        (8, &[1], "reserved: wanted 00000000, got 01000000"),
        (11, &[1], "reserved: wanted 00000000, got 00000001"),
        (12, &[0], "QE vendor id: wanted 939a7233f79c4ca9940a0db3957f0607 (Intel), got 009a7233"),
        (48, &[1], "body type: wanted 2 (TD 1.0) or 3 (TD 1.5), got 1"),
        (48, &[4], "body type: wanted 2 (TD 1.0) or 3 (TD 1.5), got 4"),
        (48, &[2], "body size: wanted 584, got 648"),
        (50, &[0, 0, 0, 0x80], "body size: wanted 648, got 2147483648"),
        (auth, &[0xFF, 0xFF, 0xFF, 0x7F], "quote signature data: wanted 2147483647 bytes, got 672, then the end"),
        (auth, &[0], "certification data: wanted 378 bytes, which are left, got 538"),
        (qe - 6, &[5], "certification data: wanted type 6, got type 5"),
        (qe - 4, &[0], "certification data: wanted 538 bytes, which are left, got 512"),
        (qe + 448, &[31], "QE authentication data length: wanted 32, got 31"),
        (qe + 482, &[4], "QE certification data: wanted type 5, got type 4"),
        (qe + 484, &[49], "QE certification data: wanted 50 bytes, which are left, got 49"),
    ] {
        let mut bad = bytes.clone();
        bad[offset..offset + patch.len()].copy_from_slice(patch);
        assert_ne!(bad, bytes, "{wanted}: no effect");
        let error = Quote::parse(&bad).unwrap_err().to_string();
        assert!(error.contains(wanted), "wanted {wanted}\n   got {error}");
    }
}

#[test]
fn padding_is_zero_and_short() {
    let mut bytes = quotes(1, vec![1; 50])[0].to_bytes();
    bytes.resize(8000, 0);
    Quote::parse(&bytes).unwrap();
    bytes[7000] = 2;
    assert!(
        Quote::parse(&bytes)
            .unwrap_err()
            .to_string()
            .contains("padding: wanted zeros behind the quote, got 0x02 in byte 7000")
    );
    bytes.resize(QUOTE_CAP + 1, 0);
    assert!(Quote::parse(&bytes).unwrap_err().to_string().contains("length: wanted at most 16384, got 16385"));
}
