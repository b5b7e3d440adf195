#![no_main]
use std::sync::LazyLock;

use blf_appraisal::aws_lc::AwsLc;
use blf_appraisal::tdx::{Root, authenticate};
use blf_evidence::UnixTime;
use blf_evidence::endorsements::Endorsements;

/// When the seeds are genuine.
const NOW: [UnixTime; 2] = [UnixTime(1_752_000_000), UnixTime(1_774_000_000)];
const GENUINE: [&[u8]; 2] = [
    include_bytes!("../../../measurements/appraisal/tests/vectors/tdx/v4-phala-uptodate/quote.bin"),
    include_bytes!("../../../measurements/appraisal/tests/vectors/tdx/v5-google-uptodate/quote.bin"),
];

static ROOT: LazyLock<Root> = LazyLock::new(Root::pinned);

// The length of a quote (16 bits), the quote, and endorsements. What is signed is found by nobody.
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((length, rest)) = data.split_first_chunk::<2>() else { return };
    let Some((quote, endorsements)) = rest.split_at_checked(u16::from_le_bytes(*length).into()) else { return };
    let Ok(Endorsements { tdx: Some(collateral), .. }) = Endorsements::parse(endorsements) else { return };
    for now in NOW {
        if let Ok(authentic) = authenticate(quote, &collateral, &ROOT, now, &AwsLc) {
            let signed = authentic.quote.signed(quote);
            assert!(GENUINE.iter().any(|genuine| genuine.starts_with(signed)), "a quote that nobody made");
        }
    }
});
