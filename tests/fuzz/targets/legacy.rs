#![no_main]
use blf_agent::legacy::wire::{Assignments, Attested, Challenge, LeaderOutput, claimed, done};
use blf_evidence::icl::NAME_CAP;

// What a hostile coordinator of the existing network answers; the first byte says to what.
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((kind, body)) = data.split_first() else { return };
    match kind % 6 {
        0 => drop(Challenge::parse(body)),
        1 => drop(Attested::parse(body)),
        2 => {
            let Ok(assignments) = Assignments::parse(body) else { return };
            for assignment in assignments.good {
                let path = assignment.job.as_str();
                assert!((1..=NAME_CAP).contains(&path.len()) && !path.contains(['/', '?', '#', '%', ' ']), "{path}");
                assert!(assignment.key.is_none_or(|key| key.iter().all(|handle| !handle.is_zero())));
                assert!(assignment.user.is_none_or(|user| user.0 != [0; 20]));
            }
        }
        3 => assert!(!claimed(body).is_ok_and(|key| key.is_some_and(|key| key.iter().any(|handle| handle.is_zero())))),
        4 => drop(LeaderOutput::parse(body)),
        _ => drop(done(body)),
    }
});
