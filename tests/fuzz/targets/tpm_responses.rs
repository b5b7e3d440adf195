#![no_main]
use std::io;
use std::path::Path;

use blf_agent::attester::Tpm;
use blf_agent::attester::tpm::Transport;
use blf_evidence::Hex;
use blf_evidence::statement::Statement;

/// A TPM that answers with the input: each response is a 16-bit length and so many bytes.
struct Hostile(Vec<u8>);

impl Transport for Hostile {
    fn transmit(&mut self, _: &[u8]) -> io::Result<Vec<u8>> {
        let end = || io::Error::from(io::ErrorKind::UnexpectedEof);
        let (length, rest) = self.0.split_first_chunk::<2>().ok_or_else(end)?;
        let (response, rest) = rest.split_at_checked(u16::from_be_bytes(*length).into()).ok_or_else(end)?;
        // A TPM that is busy is asked again after a pause: right, but slow.
        let busy = response
            .get(6..10)
            .is_some_and(|rc| [[0, 0, 9, 8], [0, 0, 9, 0x0A], [0, 0, 9, 0x22]].contains(&rc.try_into().unwrap()));
        let (response, rest) = (response.to_vec(), rest.to_vec());
        self.0 = rest;
        if busy { Err(end()) } else { Ok(response) }
    }
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(mut tpm) = Tpm::new(Box::new(Hostile(data.to_vec())), Path::new("/nonexistent")) else { return };
    let _ = tpm.attest(&Statement(Hex([7; 64])));
    let _ = tpm.measurement_id();
    let _ = tpm.activate(&[0; 68], &[0; 70]);
});
