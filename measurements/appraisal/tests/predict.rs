//! Predicted PCRs: against systemd-measure, by hand, and what is refused.

#[path = "common/pe.rs"]
mod pe_images;

use std::io::{self, Write as _};

use blf_appraisal::pe::Image;
use blf_appraisal::predict::{self, PredictError};
use pe_images::{image, uki, uki_sections};
use proptest::prelude::*;
use sha2::{Digest as _, Sha256};

fn sha(data: &[u8]) -> [u8; 32] {
    Sha256::digest(data).into()
}

fn replay(events: &[[u8; 32]]) -> [u8; 32] {
    events.iter().fold([0; 32], |pcr, event| sha(&[pcr, *event].concat()))
}

#[test]
fn pcr_11_as_systemd_measure_has_it() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/measure/pcr11-expected.json");
    let vector: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let sections = vector["sections"]
        .as_array()
        .unwrap()
        .iter()
        .map(|section| (section[0].as_str().unwrap(), section[1].as_str().unwrap().as_bytes()));
    assert_eq!(hex::encode(predict::pcr11(sections)), vector["sha256"]["base"].as_str().unwrap());
}

/// The installed systemd-measure, where there is one, agrees on every section we predict that it knows.
#[test]
fn pcr_11_as_installed_systemd_measure_has_it() {
    let tool = "/usr/lib/systemd/systemd-measure";
    let folder = tempfile::tempdir().unwrap();
    let mut command = std::process::Command::new(tool);
    command.args(["calculate", "--phase=:", "--bank=sha256", "--json=short"]);
    let sections: Vec<_> = uki_sections().into_iter().filter(|(name, _)| *name != ".text").collect();
    let order = [".linux", ".osrel", ".cmdline", ".initrd", ".uname", ".sbat"];
    let measured = order.iter().filter_map(|name| sections.iter().find(|(other, _)| other == name));
    let mut ours = Vec::new();
    let help = std::process::Command::new(tool).arg("--help").output();
    let Ok(help) = help.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()) else {
        // Past libtest's capture, so that tests/check can count it.
        let _ = io::stderr().write_all(format!("skipped: predict: no {tool}\n").as_bytes());
        return;
    };
    for (name, data) in measured {
        let option = format!("--{}=", &name[1..]);
        if !help.contains(&option) {
            continue; // systemd 252 does not know .uname and .sbat
        }
        let file = folder.path().join(&name[1..]);
        std::fs::write(&file, data).unwrap();
        command.arg(format!("{option}{}", file.display()));
        ours.push((*name, &data[..]));
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let wanted = hex::encode(predict::pcr11(ours));
    let got = String::from_utf8(output.stdout).unwrap();
    assert!(got.contains(&wanted), "wanted {wanted} in {got}");
}

#[test]
fn every_register_by_hand() {
    let sections = uki_sections();
    let file = uki(&sections);
    let got = predict::from_uki(&file).unwrap();
    let (uki_digest, linux) =
        (Image::parse(&file).unwrap().authenticode(), Image::parse(&sections[4].1).unwrap().authenticode());
    let action = sha(b"Calling EFI Application from Boot Option");
    let separator = sha(&[0; 4]);
    assert_eq!(got.pcr4[0].0, replay(&[action, separator, uki_digest, linux]));
    assert_eq!(got.pcr4[1].0, replay(&[uki_digest, action, separator, linux]));
    let options: Vec<u8> = "console=none quiet\0".encode_utf16().flat_map(u16::to_le_bytes).collect();
    // Written out once, so that the archive is not checked against the code that makes it.
    let zero = "00000000";
    let mut initrd = b"INITRD\0\0".to_vec();
    initrd.extend(
        format!(
            "07070100000001{:08x}{zero}{zero}00000001{zero}{zero}{zero}{zero}{zero}{zero}00000007{zero}.extra\0\0\0\0",
            0o040_555
        )
        .bytes(),
    );
    initrd.truncate(8 + 110 + 7 + 3);
    initrd.extend(format!("07070100000002{:08x}{zero}{zero}00000001{zero}00000007{zero}{zero}{zero}{zero}00000012{zero}.extra/os-release\0ID=blf\n\0", 0o100_444).bytes());
    initrd.extend(
        format!(
            "070701{zero}{zero}{zero}{zero}00000001{zero}{zero}{zero}{zero}{zero}{zero}0000000B{zero}TRAILER!!!\0\0\0\0"
        )
        .bytes(),
    );
    assert_eq!(initrd.len() % 4, 0);
    assert_eq!(got.pcr9.0, replay(&[sha(&options), sha(&initrd)]));
    let mut eleven = Vec::new();
    for name in [".linux", ".osrel", ".cmdline", ".initrd", ".uname"] {
        let data = &sections.iter().find(|(other, _)| *other == name).unwrap().1;
        eleven.extend([sha(format!("{name}\0").as_bytes()), sha(data)]);
    }
    assert_eq!(got.pcr11.0, replay(&eleven));
    assert_eq!(got.uki_sha256.0, sha(&file));
    assert_eq!(got.sections.iter().map(|(name, ..)| &name[..]).collect::<Vec<_>>(), {
        [".linux", ".osrel", ".cmdline", ".initrd", ".uname"]
    });
}

/// Which register catches which change.
#[test]
fn what_a_change_changes() {
    let sections = uki_sections();
    let before = predict::from_uki(&uki(&sections)).unwrap();
    for (name, data, nine, eleven) in [
        (".text", &b"stuB"[..], false, false),
        (".cmdline", b"console=none quiet init=/bin/sh", true, true),
        (".cmdline", b"console=none quiet", false, true), // the blank at the end is measured as a section only
        (".initrd", b"INITRE", true, true),
        (".osrel", b"ID=blg\n", true, true),
        (".uname", b"6.12.1", false, true),
        (".linux", &image(&[(".text", b"kerneL")]), false, true),
    ] {
        let mut changed = sections.clone();
        changed.iter_mut().find(|(other, _)| *other == name).unwrap().1 = data.to_vec();
        let after = predict::from_uki(&uki(&changed)).unwrap();
        assert_ne!(after.pcr4, before.pcr4, "{name}: PCR 4 covers every byte of the image");
        assert_eq!(after.pcr9 != before.pcr9, nine, "{name}: PCR 9");
        assert_eq!(after.pcr11 != before.pcr11, eleven, "{name}: PCR 11");
    }
}

#[test]
fn refuses_what_it_cannot_predict() {
    let good = uki_sections();
    let with = |name: &'static str, data: &[u8]| {
        let mut sections = good.clone();
        sections.retain(|(other, _)| *other != name);
        sections.push((name, data.to_vec()));
        predict::from_uki(&uki(&sections))
    };
    assert_eq!(with(".pcrpkey", b"key"), Err(PredictError::Unpredicted(".pcrpkey".into())));
    assert_eq!(with(".profile", b"ID=x"), Err(PredictError::Unpredicted(".profile".into())));
    assert_eq!(with(".cmdline", b"quiet\0init=/bin/sh"), Err(PredictError::CommandLine(0)));
    assert_eq!(with(".cmdline", "quiet ü".as_bytes()), Err(PredictError::CommandLine(0xC3)));
    assert!(matches!(with(".linux", b"KERNEL-BYTES"), Err(PredictError::Image { what: "section .linux", .. })));
    assert!(matches!(predict::from_uki(b"MZ"), Err(PredictError::Image { what: "image", .. })));
    for name in [".linux", ".osrel", ".cmdline", ".initrd"] {
        let mut sections = good.clone();
        sections.retain(|(other, _)| *other != name);
        assert_eq!(predict::from_uki(&uki(&sections)), Err(PredictError::Missing(name)));
    }
    let mut twice = good.clone();
    twice.push((".initrd", b"another".to_vec()));
    assert_eq!(predict::from_uki(&uki(&twice)), Err(PredictError::Duplicate(".initrd".into())));
}

#[test]
fn hostile_images() {
    let good = image(&[(".a", b"aaaa"), (".b", b"bbbb")]);
    Image::parse(&good).unwrap();
    let table = 0x58 + 112 + 40;
    for (name, at, patch) in [
        ("no MZ", 0, &b"ZM"[..]),
        ("PE header far away", 0x3C, &[0xFF, 0xFF, 0xFF, 0x7F]),
        ("other machine", 0x44, &[0x4C, 0x01]),
        ("no section", 0x46, &[0, 0]),
        ("60000 sections", 0x46, &[0x60, 0xEA]),
        ("PE32", 0x58, &[0x0B, 0x01]),
        ("headers end inside the section table", 0x58 + 60, &[0x10, 0, 0, 0]),
        ("headers longer than the file", 0x58 + 60, &[0, 0, 0, 0x7F]),
        ("17 directories", 0x58 + 108, &[17]),
        ("certificates not at the end", 0x58 + 112 + 32, &[0x10, 0, 0, 0, 0x10]),
        ("section with an upper-bit name", table, &[0x80]),
        ("section name after its end", table + 4, b"x"),
        ("section outside the file", table + 20, &[0, 0, 0, 0x7F]),
        ("section in the headers", table + 20, &[0, 1, 0, 0]),
        ("overlapping sections", table + 60, &[0, 4, 0, 0]),
        ("section of 2 GiB", table + 16, &[0, 0, 0, 0x80]),
    ] {
        let mut bad = good.clone();
        bad[at..at + patch.len()].copy_from_slice(patch);
        assert_ne!(bad, good, "{name}: no effect");
        assert!(Image::parse(&bad).is_err(), "{name}");
    }
    for len in 0..good.len() {
        assert!(Image::parse(&good[..len]).is_err(), "cut to {len}");
    }
    // A section longer in memory than in the file parses, but has no content to measure.
    let mut long = good.clone();
    long[table + 8..table + 12].copy_from_slice(&[0, 4, 0, 0]);
    assert!(Image::parse(&long).unwrap().sections()[0].data.is_none());
}

/// A signature changes neither digest; every other byte does.
#[test]
fn authenticode_leaves_out_what_signing_changes() {
    let good = image(&[(".a", b"aaaa")]);
    let digest = Image::parse(&good).unwrap().authenticode();
    let mut signed = good.clone();
    signed[0x58 + 64] ^= 1; // CheckSum
    let end = u32::try_from(good.len()).unwrap().to_le_bytes();
    signed[0x58 + 144..0x58 + 148].copy_from_slice(&end);
    signed[0x58 + 148] = 8;
    signed.extend([7; 8]);
    assert_eq!(Image::parse(&signed).unwrap().authenticode(), digest);
    let mut appended = good.clone();
    appended.extend([7; 8]);
    assert_ne!(Image::parse(&appended).unwrap().authenticode(), digest);
}

proptest! {
    #[test]
    fn no_bytes_panic(at in 0_usize..4096, value: u8, cut in 0_usize..4096) {
        let mut file = uki(&uki_sections());
        let len = file.len();
        file[at % len] = value;
        let _ = predict::from_uki(&file);
        file.truncate(cut % len);
        let _ = predict::from_uki(&file);
    }
}
