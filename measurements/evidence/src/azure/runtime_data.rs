//! The runtime data of an HCL report: the paravisor's JSON, as far as we rely on it.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

use super::{HCL_REPORT_CAP, HclError};
use crate::json::{self, excerpt};

/// Size of the AK's modulus: RSA 2048.
const MODULUS_SIZE: usize = 256;
/// 65537 in base64url without padding (RFC 7518, section 6.3.1.2).
const EXPONENT: &str = "AQAB";

/// What the paravisor says of the guest and its vTPM. Members that are not named here may stand there and are not read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RuntimeData {
    /// Modulus of the vTPM's AK (`HCLAkPub`), big-endian; the exponent is 65537.
    pub ak_modulus: Box<[u8; MODULUS_SIZE]>,
    /// How the virtual machine is configured.
    pub vm_configuration: VmConfiguration,
}

/// `vm-configuration`, as far as it was written: the paravisor's word for it.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub struct VmConfiguration {
    /// There is a serial console.
    pub console_enabled: Option<bool>,
    /// Secure Boot is on.
    pub secure_boot: Option<bool>,
    /// The vTPM's state outlives the virtual machine.
    pub tpm_persisted: Option<bool>,
    /// Azure's id of the virtual machine.
    #[serde(rename = "vmUniqueId")]
    pub vm_unique_id: Option<String>,
}

#[derive(Deserialize)]
struct Claims {
    keys: Vec<Jwk>,
    #[serde(default, rename = "vm-configuration")]
    vm_configuration: VmConfiguration,
}

/// RFC 7517; members of keys of other types are not read.
#[derive(Deserialize)]
struct Jwk {
    kid: Option<String>,
    kty: String,
    e: Option<String>,
    n: Option<String>,
}

impl RuntimeData {
    /// Parses the JSON text.
    ///
    /// # Errors
    /// [`HclError`] naming the member: a name that stands twice in any object, no or several `HCLAkPub`, one that is not
    /// RSA, of another size than 2048 bits or with another exponent than 65537.
    pub fn parse(bytes: &[u8]) -> Result<Self, HclError> {
        let text = |error: String| HclError::new("runtime data", "the paravisor's JSON", error);
        let value =
            json::parse_unique("runtime data", bytes, HCL_REPORT_CAP).map_err(|error| text(error.to_string()))?;
        let claims: Claims = serde_json::from_value(value).map_err(|error| text(excerpt(&error.to_string())))?;
        let mut aks = claims.keys.iter().filter(|key| key.kid.as_deref() == Some("HCLAkPub"));
        let (Some(ak), None) = (aks.next(), aks.next()) else {
            let got = claims.keys.iter().filter(|key| key.kid.as_deref() == Some("HCLAkPub")).count();
            return Err(HclError::new("keys", "one HCLAkPub", got));
        };
        if ak.kty != "RSA" {
            return Err(HclError::new("HCLAkPub.kty", "RSA", excerpt(&ak.kty)));
        }
        if ak.e.as_deref() != Some(EXPONENT) {
            return Err(HclError::new("HCLAkPub.e", EXPONENT, excerpt(ak.e.as_deref().unwrap_or("none"))));
        }
        let modulus = URL_SAFE_NO_PAD.decode(ak.n.as_deref().unwrap_or_default()).unwrap_or_default();
        match <[u8; MODULUS_SIZE]>::try_from(modulus) {
            Ok(modulus) if modulus[0] & 0x80 != 0 => {
                Ok(Self { ak_modulus: Box::new(modulus), vm_configuration: claims.vm_configuration })
            }
            Ok(modulus) => {
                let got = format!("one that starts with 0x{:02x}", modulus[0]);
                Err(HclError::new("HCLAkPub.n", "a modulus of 2048 bits", got))
            }
            Err(other) => {
                let got = format!("{} bytes of base64url", other.len());
                Err(HclError::new("HCLAkPub.n", format!("{MODULUS_SIZE} bytes in base64url without padding"), got))
            }
        }
    }
}
