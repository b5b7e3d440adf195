//! What the builder writes of the small image.

use blf_appraisal::Inputs;
use blf_appraisal::release::{Input, Output, Source, Toolchain};
use blf_evidence::Hex;
use sha2::{Digest as _, Sha256};

use crate::pe_images::uki_sections;

pub(crate) fn sha(data: &[u8]) -> Hex<32> {
    Hex(Sha256::digest(data).into())
}

pub(crate) fn inputs(image: &[u8]) -> Inputs {
    let sections = uki_sections().into_iter().filter(|(name, _)| *name != ".text");
    Inputs {
        profile: "devnet".into(),
        version: "0.1.0".into(),
        kernel: "6.12.0".into(),
        locked: true,
        date: "2026-11-20".into(),
        source: Source { commit: "0".repeat(40), agent_sha256: Hex([1; 32]), cargo_lock_sha256: Hex([2; 32]) },
        rust: Toolchain { version: "1.95.0".into(), commit: "0".repeat(40), sha256: Hex([3; 32]) },
        inputs: vec![Input {
            kind: "image".into(),
            name: "systemd-boot-efi".into(),
            version: "257.13-1~deb13u1".into(),
            architecture: "amd64".into(),
            size: 135_912,
            sha256: Hex([4; 32]),
        }],
        outputs: vec![Output { name: "blf.efi".into(), size: image.len() as u64, sha256: sha(image) }],
        sections: sections.map(|(name, data)| (name.into(), sha(&data))).collect(),
    }
}
