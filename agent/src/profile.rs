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
#[cfg(feature = "production")]
compile_error!("this profile is not built yet: its network is not decided");

/// The name that the profile must have.
pub const NAME: &str = if cfg!(feature = "insecure") { "insecure" } else { "devnet" };
/// Whether the guest refuses to come up without hardware isolation.
pub const NEEDS_TEE: bool = cfg!(feature = "production");
/// Whether the boot list is shown on the console.
pub const CONSOLE: bool = cfg!(feature = "devnet");

#[cfg(not(feature = "insecure"))]
const TEXT: &str = include_str!("../profiles/devnet.json");
#[cfg(feature = "insecure")]
const TEXT: &str = include_str!("../profiles/insecure.json");

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
    use blf_evidence::profile::{NetworkProfile, Protocol};
    use blf_evidence::statement::LIST_CAP;

    use crate::tls::{self, Clock};

    #[test]
    fn every_profile_is_good() {
        assert!(super::network().is_ok());
        for (text, protocol) in [
            (include_str!("../profiles/devnet.json"), Protocol::Strict),
            (include_str!("../profiles/insecure.json"), Protocol::Legacy),
        ] {
            let profile = NetworkProfile::parse(text.as_bytes()).unwrap();
            assert_eq!(profile.protocol, protocol);
            assert!(profile.egress().len() <= LIST_CAP);
            assert!(tls::connector(&profile.tls_roots, Clock::new(blf_evidence::UnixTime(0))).is_ok());
        }
    }
}
