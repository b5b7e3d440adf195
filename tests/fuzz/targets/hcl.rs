#![no_main]
use blf_evidence::azure::{HclReport, RuntimeData, TdReport};

// What a hostile host puts into the vTPM; each format has one spelling.
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Ok(report) = HclReport::parse(data) {
        assert_eq!(report.to_bytes(), data);
        let _ = RuntimeData::parse(&report.runtime_data);
    }
    if let Ok(report) = TdReport::parse(data) {
        assert_eq!(report.to_bytes(), data);
    }
    let _ = RuntimeData::parse(data);
});
