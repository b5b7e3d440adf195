#![no_main]
// The firmware's log of a TPM, and a CC event log of TDX (CCEL).
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Ok(log) = blf_evidence::eventlog::EventLog::parse(data) {
        let _ = (log.replay_sha256(), log.replay_sha384(), log.replay_rtmrs());
    }
});
