//! `cargo run -p blf-appraisal --example predict FILE`: the predicted PCRs of a UKI, one per line.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args_os().nth(1).ok_or("usage: predict FILE")?;
    let got = blf_appraisal::predict::from_uki(&std::fs::read(path)?)?;
    println!("PCR 4 (from an ESP) {}\nPCR 4 (-kernel)     {}", got.pcr4[0], got.pcr4[1]);
    println!("PCR 9               {}\nPCR 11              {}", got.pcr9, got.pcr11);
    Ok(())
}
