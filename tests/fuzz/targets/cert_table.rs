#![no_main]
use blf_evidence::snp::CertificateTable;

// No certificate lies outside the table or over another.
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Ok(table) = CertificateTable::parse(data) {
        let all = [table.vcek, table.vlek, table.ask, table.ark];
        let total: usize = all.iter().flatten().map(|certificate| certificate.len()).sum();
        assert!(total <= data.len());
    }
});
