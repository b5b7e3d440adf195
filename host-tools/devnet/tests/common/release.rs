//! What nodes of the tests run.

use blf_appraisal::Release;
use blf_appraisal::release::{Pcrs, SCHEMA, Source, Toolchain, measurement_id};
use blf_devnet::development;
use blf_evidence::Hex;
use blf_evidence::statement::Profile;

/// A release of the devnet's profile with these registers.
pub(crate) fn release([pcr4, pcr9, pcr11]: [Hex<32>; 3]) -> Release {
    let zero = Hex([0; 32]);
    Release {
        schema: SCHEMA.into(),
        measurement_id: measurement_id(pcr11),
        pcrs: Pcrs { pcr4: [pcr4, pcr4], pcr9, pcr11, pcr12: zero, pcr13: zero },
        profile: profile(),
        image_id: "blf".into(),
        version: "0.1.0".into(),
        kernel: "6.12".into(),
        locked: false,
        date: "2026-11-20".into(),
        source: Source { commit: "0".repeat(40), agent_sha256: zero, cargo_lock_sha256: zero },
        rust: Toolchain { version: "1.95.0".into(), commit: "0".repeat(40), sha256: zero },
        inputs: Vec::new(),
        outputs: Vec::new(),
    }
}

/// The devnet's profile.
pub(crate) fn profile() -> Profile {
    Profile { id: development::profile().unwrap().id().unwrap(), name: "devnet".into() }
}
