//! The measured profile that is compiled in (architecture decision 4).

use blf_evidence::json::JsonError;
use blf_evidence::profile::NetworkProfile;

#[cfg(not(any(feature = "devnet", feature = "insecure", feature = "production")))]
compile_error!("choose a profile: --features devnet, insecure or production");
#[cfg(any(
    all(feature = "devnet", feature = "insecure"),
    all(feature = "devnet", feature = "production"),
    all(feature = "insecure", feature = "production")
))]
compile_error!("choose one profile: with another than devnet, --no-default-features");
#[cfg(any(feature = "insecure", feature = "production"))]
compile_error!("this profile is not built yet: its network is not decided");

/// The name that the profile must have.
pub const NAME: &str = "devnet";
/// Whether the guest refuses to come up without hardware isolation.
pub const NEEDS_TEE: bool = cfg!(feature = "production");
/// Whether the boot list is shown on the console.
pub const CONSOLE: bool = cfg!(feature = "devnet");

const TEXT: &str = include_str!("../profiles/devnet.json");

/// The network profile of this build.
///
/// # Errors
/// [`JsonError`], for a build that should not have been made.
pub fn network() -> Result<NetworkProfile, JsonError> {
    let profile = NetworkProfile::parse(TEXT.as_bytes())?;
    if profile.name != NAME {
        let error = format!("name: wanted {NAME}, got {}", profile.name);
        return Err(JsonError::Malformed { what: "network profile", error });
    }
    Ok(profile)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_compiled_profile_is_good() {
        let profile = super::network().unwrap();
        assert!(profile.egress().len() <= blf_evidence::statement::LIST_CAP);
    }
}
