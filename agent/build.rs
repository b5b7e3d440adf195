//! Compiles the build date into the agent: the floor of its clock (architecture decision 14).

/// 2026-01-01T00:00:00Z, for builds that do not say when they are: a floor too low is safe, only less strict.
const UNSET: &str = "1767225600";

fn main() {
    println!("cargo:rerun-if-env-changed=SOURCE_DATE_EPOCH");
    let date = std::env::var("SOURCE_DATE_EPOCH").ok().filter(|d| d.parse::<u64>().is_ok());
    println!("cargo:rustc-env=BLF_BUILD_DATE={}", date.as_deref().unwrap_or(UNSET));
}
