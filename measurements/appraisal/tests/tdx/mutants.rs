//! Genuine quotes and collateral with every bit flipped, every byte deleted or doubled, cut, grown and swapped.
//!
//! What may differ and still be accepted, because nobody signed it, is the list in `tests/vectors/tdx/README.md`; of single
//! bits it is empty.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use blf_appraisal::tdx::Root;
use blf_evidence::endorsements::TdxEndorsements;
use blf_evidence::tdx::{QUOTE_CAP, Quote, pem};
use blf_evidence::{Base64, Hex, UnixTime};

use crate::vectors::{Genuine, intels_root};
use crate::{intel, oracle, verdict};

/// Refusals by code.
#[derive(Default)]
struct Refused(BTreeMap<&'static str, usize>);

impl Refused {
    /// Counts the refusal of a mutant, which must be one.
    fn count(&mut self, name: &str, mutant: &[u8], genuine: &Genuine, root: &Root) {
        assert_ne!(mutant, genuine.quote, "{name}: no effect");
        self.verdict(name, mutant, &genuine.collateral, genuine.now, root);
    }

    fn count_collateral(&mut self, name: &str, mutant: &TdxEndorsements, genuine: &Genuine, root: &Root) {
        assert_ne!(*mutant, genuine.collateral, "{name}: no effect");
        self.verdict(name, &genuine.quote, mutant, genuine.now, root);
    }

    fn verdict(&mut self, name: &str, quote: &[u8], collateral: &TdxEndorsements, now: UnixTime, root: &Root) {
        match verdict(quote, collateral, root, now) {
            Ok(_) => panic!("{name}: accepted"),
            Err(rejected) => *self.0.entry(rejected.code).or_default() += 1,
        }
    }

    /// How many, and that they are of these codes only.
    #[track_caller]
    fn all(self, count: usize, codes: &[&str]) {
        let known = self.0.keys().copied().collect::<BTreeSet<_>>() == codes.iter().copied().collect();
        assert!(known && self.0.values().sum::<usize>() == count, "wanted {count} of {codes:?}, got {:?}", self.0);
    }
}

fn flipped(bytes: &[u8], bit: usize) -> Vec<u8> {
    let mut out = bytes.to_vec();
    out[bit / 8] ^= 1 << (bit % 8);
    out
}

fn without_padding(quote: &[u8]) -> Vec<u8> {
    Quote::parse(quote).unwrap().to_bytes()
}

/// The quote with another chain.
fn with_chain(quote: &[u8], chain: &str) -> Vec<u8> {
    let mut quote = Quote::parse(quote).unwrap();
    quote.authentication.pck_chain = chain.as_bytes().to_vec();
    quote.to_bytes()
}

/// The parts of a quote of version 4 with a chain to the end, by their offsets.
fn parts(quote: &[u8]) -> [(&'static str, Range<usize>); 14] {
    let certificates: Vec<_> = (0..quote.len()).filter(|at| quote[*at..].starts_with(b"-----BEGIN")).collect();
    let [chain, ca, root] = certificates.try_into().unwrap();
    assert_eq!(chain, 1258);
    let end = without_padding(quote).len();
    [
        ("header", 0..48),
        ("body", 48..632),
        ("length", 632..636),
        ("signature", 636..700),
        ("attestation key", 700..764),
        ("certification data type", 764..766),
        ("certification data length", 766..770),
        ("QE report and its signature", 770..1218),
        ("QE authentication data", 1218..1252),
        ("QE certification data type and length", 1252..1258),
        ("PCK certificate", chain..ca),
        ("PCK CA certificate", ca..root),
        ("root certificate", root..end),
        ("padding", end..quote.len()),
    ]
}

#[test]
fn every_bit_of_a_quote() {
    let (genuine, root) = (Genuine::v4(), Root::pinned());
    let mut refused = Refused::default();
    for bit in 0..genuine.quote.len() * 8 {
        refused.count(&format!("bit {bit}"), &flipped(&genuine.quote, bit), &genuine, &root);
    }
    refused.all(40_048, &["TDX_QUOTE_MALFORMED", "PCK_CHAIN", "TDX_SIGNATURE"]);
}

#[test]
fn a_bit_of_each_byte_of_a_td15_quote() {
    let (genuine, root) = (Genuine::v5(), Root::pinned());
    let mut refused = Refused::default();
    for byte in 0..genuine.quote.len() {
        refused.count(&format!("byte {byte}"), &flipped(&genuine.quote, byte * 8 + byte % 8), &genuine, &root);
    }
    refused.all(5006, &["TDX_QUOTE_MALFORMED", "PCK_CHAIN", "TDX_SIGNATURE"]);
}

#[test]
fn every_bit_of_each_certificate_of_the_chain() {
    let (genuine, root) = (Genuine::v4(), Root::pinned());
    let chain: [_; 3] = pem::chain(&Quote::parse(&genuine.quote).unwrap().authentication.pck_chain).unwrap();
    let (mut refused, mut bits) = (Refused::default(), 0);
    for index in 0..3 {
        for bit in 0..chain[index].len() * 8 {
            let mut bad = chain.clone();
            bad[index] = flipped(&bad[index], bit);
            let quote = with_chain(&genuine.quote, &intel::pem(&bad.each_ref().map(|der| &der[..])));
            refused.count(&format!("certificate {index}, bit {bit}"), &quote, &genuine, &root);
            bits += 1;
        }
    }
    assert_eq!(bits, 8 * (1269 + 666 + 659));
    refused.all(bits, &["PCK_CHAIN"]);
}

/// With a step that visits every bit position; all of them in the test below.
#[test]
fn bits_of_the_collateral() {
    flip_collateral(37);
}

#[test]
#[ignore = "takes long without optimisation; tests/vectors/tdx/README.md has its command"]
fn every_bit_of_the_collateral() {
    flip_collateral(1);
}

fn flip_collateral(step: usize) {
    let (genuine, root) = (Genuine::v4(), Root::pinned());
    let of = &genuine.collateral;
    let mut bad = Vec::new();
    let mut flip = |bytes: &[u8], put: &dyn Fn(Vec<u8>) -> Option<TdxEndorsements>| {
        // `None` is no text: such bytes do not even reach the verifier.
        bad.extend((0..bytes.len() * 8).step_by(step).filter_map(|bit| put(flipped(bytes, bit))));
    };
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).ok();
    let array = |bytes: Vec<u8>| bytes.try_into().ok().map(Hex);
    flip(&of.root_ca_crl.0, &|der| Some(TdxEndorsements { root_ca_crl: Base64(der), ..of.clone() }));
    flip(&of.pck_crl.0, &|der| Some(TdxEndorsements { pck_crl: Base64(der), ..of.clone() }));
    flip(of.tcb_info.as_bytes(), &|bytes| Some(TdxEndorsements { tcb_info: text(bytes)?, ..of.clone() }));
    flip(of.qe_identity.as_bytes(), &|bytes| Some(TdxEndorsements { qe_identity: text(bytes)?, ..of.clone() }));
    flip(of.tcb_info_issuer_chain.as_bytes(), &|bytes| {
        Some(TdxEndorsements { tcb_info_issuer_chain: text(bytes)?, ..of.clone() })
    });
    flip(of.qe_identity_issuer_chain.as_bytes(), &|bytes| {
        Some(TdxEndorsements { qe_identity_issuer_chain: text(bytes)?, ..of.clone() })
    });
    flip(&of.tcb_info_signature.0, &|bytes| Some(TdxEndorsements { tcb_info_signature: array(bytes)?, ..of.clone() }));
    flip(&of.qe_identity_signature.0, &|bytes| {
        Some(TdxEndorsements { qe_identity_signature: array(bytes)?, ..of.clone() })
    });
    let [signing, top]: [_; 2] = pem::chain(of.tcb_info_issuer_chain.as_bytes()).unwrap();
    flip(&signing, &|der| {
        let chain = intel::pem(&[&der, &top]);
        Some(TdxEndorsements { tcb_info_issuer_chain: chain.clone(), qe_identity_issuer_chain: chain, ..of.clone() })
    });
    let mut refused = Refused::default();
    for (index, bad) in bad.iter().enumerate() {
        refused.count_collateral(&format!("mutant {index}"), bad, &genuine, &root);
    }
    assert!(bad.len() > 80_000 / step, "{}", bad.len());
    refused.all(bad.len(), &["COLLATERAL_SIGNATURE"]);
}

#[test]
fn every_byte_deleted_or_doubled() {
    /// What a quote says but for the LF and NUL behind its chain, which nobody signed.
    fn said(bytes: &[u8]) -> Option<Quote> {
        let mut quote = Quote::parse(bytes).ok()?;
        let chain = &mut quote.authentication.pck_chain;
        while chain.pop_if(|byte| matches!(byte, b'\n' | 0)).is_some() {}
        Some(quote)
    }
    let (mut genuine, root) = (Genuine::v5(), Root::pinned());
    genuine.quote = without_padding(&genuine.quote);
    let says = said(&genuine.quote);
    let mut refused = Refused::default();
    let mut the_same = Vec::new();
    for at in 0..genuine.quote.len() {
        let mut deleted = genuine.quote.clone();
        deleted.remove(at);
        refused.count(&format!("without byte {at}"), &deleted, &genuine, &root);
        let mut doubled = genuine.quote.clone();
        doubled.insert(at, doubled[at]);
        if said(&doubled) == says {
            the_same.push(at);
        } else {
            refused.count(&format!("byte {at} doubled"), &doubled, &genuine, &root);
        }
    }
    // LF and NUL at the end: the NUL that is pushed out is padding.
    assert_eq!(the_same, [5004, 5005]);
    refused.all(2 * 5006 - 2, &["TDX_QUOTE_MALFORMED", "PCK_CHAIN"]);
}

#[test]
fn every_truncation_and_extension() {
    let (mut genuine, root) = (Genuine::v4(), Root::pinned());
    let padded = genuine.quote.clone();
    genuine.quote = without_padding(&padded);
    assert_eq!((padded.len(), genuine.quote.len()), (5006, 4936));
    let mut refused = Refused::default();
    for len in 0..genuine.quote.len() {
        refused.count(&format!("{len} bytes"), &genuine.quote[..len], &genuine, &root);
    }
    for byte in 1..=255 {
        refused.count(&format!("{byte} behind"), &[&genuine.quote[..], &[byte]].concat(), &genuine, &root);
        refused.count(&format!("0, {byte} behind"), &[&genuine.quote[..], &[0, byte]].concat(), &genuine, &root);
    }
    let mut long = genuine.quote.clone();
    long.resize(QUOTE_CAP, 0);
    verdict(&long, &genuine.collateral, &root, genuine.now).unwrap();
    long.push(0);
    refused.count("longer than the cap", &long, &genuine, &root);
    refused.all(4936 + 2 * 255 + 1, &["TDX_QUOTE_MALFORMED"]);
}

#[test]
fn neighbours_swapped() {
    let (genuine, root) = (Genuine::v5(), Root::pinned());
    let mut refused = Refused::default();
    let mut swapped = 0;
    for at in (0..genuine.quote.len() - 1).filter(|at| genuine.quote[*at] != genuine.quote[at + 1]) {
        let mut bad = genuine.quote.clone();
        bad.swap(at, at + 1);
        refused.count(&format!("bytes {at} and {}", at + 1), &bad, &genuine, &root);
        swapped += 1;
    }
    assert!(swapped > 4000, "{swapped}");
    refused.all(swapped, &["TDX_QUOTE_MALFORMED", "PCK_CHAIN", "TDX_SIGNATURE"]);
}

#[test]
fn registers_swapped() {
    let (genuine, root) = (Genuine::v4(), Root::pinned());
    let quote = Quote::parse(&genuine.quote).unwrap();
    let mut refused = Refused::default();
    let swaps: [fn(&mut Quote); 6] = [
        |quote| quote.rtmrs.swap(0, 1),
        |quote| quote.rtmrs.swap(2, 3),
        |quote| std::mem::swap(&mut quote.mr_td, &mut quote.rtmrs[0]),
        |quote| std::mem::swap(&mut quote.mr_seam, &mut quote.mr_td),
        |quote| std::mem::swap(&mut quote.authentication.signature, &mut quote.authentication.qe_report_signature),
        |quote| std::mem::swap(&mut quote.authentication.signature, &mut quote.authentication.attestation_key),
    ];
    for (index, swap) in swaps.iter().enumerate() {
        let mut bad = quote.clone();
        swap(&mut bad);
        assert_ne!(bad, quote, "swap {index}: no effect");
        refused.count(&format!("swap {index}"), &bad.to_bytes(), &genuine, &root);
    }
    refused.all(swaps.len(), &["TDX_SIGNATURE"]);
}

#[test]
fn parts_of_another_genuine_quote() {
    let (genuine, other, root) = (Genuine::v4(), Genuine::v5(), Root::pinned());
    let quote = Quote::parse(&genuine.quote).unwrap();
    let theirs = *Quote::parse(&other.quote).unwrap().authentication;
    let mut refused = Refused::default();
    let moves: [fn(&mut Quote, &blf_evidence::tdx::Authentication); 6] = [
        |quote, theirs| quote.authentication.pck_chain.clone_from(&theirs.pck_chain),
        |quote, theirs| quote.authentication.qe_report = theirs.qe_report,
        |quote, theirs| quote.authentication.qe_report_signature = theirs.qe_report_signature,
        |quote, theirs| quote.authentication.attestation_key = theirs.attestation_key,
        |quote, theirs| quote.authentication.signature = theirs.signature,
        |quote, theirs| *quote.authentication = theirs.clone(),
    ];
    for (index, replace) in moves.iter().enumerate() {
        let mut bad = quote.clone();
        replace(&mut bad, &theirs);
        refused.count(&format!("part {index}"), &bad.to_bytes(), &genuine, &root);
    }
    refused.all(moves.len(), &["TDX_SIGNATURE"]);
}

#[test]
fn chains_of_other_certificates() {
    let (genuine, root) = (Genuine::v4(), Root::pinned());
    let of = |genuine: &Genuine| Quote::parse(&genuine.quote).unwrap().authentication.pck_chain;
    let [pck, ca, top]: [_; 3] = pem::chain(&of(&genuine)).unwrap();
    let [signing, _]: [_; 2] = pem::chain(genuine.collateral.tcb_info_issuer_chain.as_bytes()).unwrap();
    let text = intel::pem(&[&pck, &ca, &top]);
    verdict(&with_chain(&genuine.quote, &text), &genuine.collateral, &root, genuine.now).unwrap();
    assert_eq!(&text[92..93], "\n");
    let mut refused = Refused::default();
    for (name, chain) in [
        ("reversed", intel::pem(&[&top, &ca, &pck])),
        ("CA and root swapped", intel::pem(&[&pck, &top, &ca])),
        ("leaf and CA swapped", intel::pem(&[&ca, &pck, &top])),
        ("no root", intel::pem(&[&pck, &ca])),
        ("no CA", intel::pem(&[&pck, &top])),
        ("only the leaf", intel::pem(&[&pck])),
        ("none", String::new()),
        ("the leaf twice", intel::pem(&[&pck, &pck, &ca, &top])),
        ("the root twice", intel::pem(&[&pck, &ca, &top, &top])),
        ("the root for the CA", intel::pem(&[&pck, &top, &top])),
        ("the CA for the root", intel::pem(&[&pck, &ca, &ca])),
        ("TCB signing for the leaf", intel::pem(&[&signing, &ca, &top])),
        ("TCB signing for leaf and CA", intel::pem(&[&signing, &top])),
        ("a byte behind the DER", intel::pem(&[&[&pck[..], &[0]].concat(), &ca, &top])),
        ("CR LF", text.replace('\n', "\r\n")),
        ("a comment", format!("# {text}")),
        ("a header", text.replacen("-----\n", "-----\nComment: none\n\n", 1)),
        ("lines of another width", [&text[..92], &text[93..]].concat()),
    ] {
        refused.count(name, &with_chain(&genuine.quote, &chain), &genuine, &root);
    }
    refused.all(18, &["PCK_CHAIN"]);
}

/// The order of P-256.
const ORDER: [u8; 32] = [
    0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xBC, 0xE6, 0xFA, 0xAD, 0xA7,
    0x17, 0x9E, 0x84, 0xF3, 0xB9, 0xCA, 0xC2, 0xFC, 0x63, 0x25, 0x51,
];

/// An ECDSA signature has two forms, and Intel writes either. So nothing may be keyed by the bytes of a signature.
#[test]
fn other_form_of_a_signature_says_the_same() {
    fn other_form(signature: &Hex<64>) -> Hex<64> {
        let mut out = *signature;
        let mut borrow = 0;
        for index in (0..32).rev() {
            let difference = i16::from(ORDER[index]) - i16::from(signature.0[32 + index]) - borrow;
            borrow = i16::from(difference < 0);
            out.0[32 + index] = u8::try_from(difference.rem_euclid(256)).unwrap();
        }
        out
    }
    let (genuine, root) = (Genuine::v4(), Root::pinned());
    let mut quote = Quote::parse(&genuine.quote).unwrap();
    let auth = &mut quote.authentication;
    auth.signature = other_form(&auth.signature);
    auth.qe_report_signature = other_form(&auth.qe_report_signature);
    let bytes = quote.to_bytes();
    assert_ne!(bytes, without_padding(&genuine.quote));
    assert_eq!(quote.signed(&bytes), quote.signed(&genuine.quote));
    verdict(&bytes, &genuine.collateral, &root, genuine.now).unwrap();
    // No third: r and s are below the order, and not zero.
    let mut refused = Refused::default();
    for bad in [[0; 32], ORDER, [0xFF; 32]] {
        for half in [0..32, 32..64] {
            let mut quote = Quote::parse(&genuine.quote).unwrap();
            quote.authentication.signature.0[half].copy_from_slice(&bad);
            refused.count("r or s out of range", &quote.to_bytes(), &genuine, &root);
        }
    }
    refused.all(6, &["TDX_SIGNATURE"]);
}

/// dcap-qvl on the same mutants: where it accepts what we refuse, by the part of the quote.
fn disagreements(step: usize) -> BTreeSet<&'static str> {
    let (genuine, root) = (Genuine::v4(), Root::pinned());
    let parts = parts(&genuine.quote);
    let mut found = BTreeSet::new();
    for bit in (0..genuine.quote.len() * 8).step_by(step) {
        let mutant = flipped(&genuine.quote, bit);
        let ours = verdict(&mutant, &genuine.collateral, &root, genuine.now).is_ok();
        let theirs = oracle::verify(&mutant, &genuine.collateral, &intels_root(), genuine.now.0).is_ok();
        assert!(theirs || !ours, "bit {bit}: accepted by us alone");
        if theirs != ours {
            let (name, _) = parts.iter().find(|(_, range)| range.contains(&(bit / 8))).unwrap();
            found.insert(*name);
        }
    }
    found
}

/// The table of `tests/vectors/tdx/README.md`.
const DISAGREEMENTS: [&str; 7] = [
    "PCK CA certificate",
    "PCK certificate",
    "QE certification data type and length",
    "certification data type",
    "length",
    "padding",
    "root certificate",
];

/// With a step that visits every bit position, and every part.
#[test]
fn oracle_on_flipped_bits() {
    explained(&disagreements(61));
}

/// All 40,048.
#[test]
#[ignore = "takes long without optimisation; tests/vectors/tdx/README.md has its command"]
fn oracle_on_every_flipped_bit() {
    explained(&disagreements(1));
}

fn explained(found: &BTreeSet<&str>) {
    assert!(found.iter().all(|part| DISAGREEMENTS.contains(part)), "{found:?}");
    assert!(found.contains("root certificate") && found.contains("padding"), "{found:?}");
}
