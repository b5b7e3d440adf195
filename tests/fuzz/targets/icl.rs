#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    use blf_evidence::{icl, json};
    // What a hostile ICL may answer a node, and a hostile node an ICL; the first byte chooses.
    let Some((kind, body)) = data.split_first() else { return };
    macro_rules! strict { ($($n:literal $t:ty),*) => { match kind { $($n => drop(json::parse::<$t>("message", body, icl::BODY_CAP)),)* _ => {} } } }
    strict!(0 icl::Time, 1 icl::Challenge, 2 icl::EnrollReply, 3 icl::ActivateReply, 4 icl::AttestReply, 5 icl::Certificate, 6 icl::Assignments, 7 icl::ClaimReply, 8 icl::JobStatus, 9 icl::Done, 10 icl::Refusal, 11 icl::Enroll, 12 icl::Attest, 13 icl::FreshEvidence, 14 icl::LeaderResult, 15 icl::VerifierResult, 16 icl::Submit, 17 icl::QuorumPreview, 18 icl::RequestStatus, 19 icl::EvidenceReply);
});
