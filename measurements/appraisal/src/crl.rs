//! Certificate revocation lists (RFC 5280, section 5): which certificates their issuer believes no longer.

use blf_evidence::UnixTime;
use x509_cert::crl::CertificateList;
use x509_cert::der::Decode as _;
use x509_cert::ext::Extension;
use x509_cert::serial_number::SerialNumber;
use x509_cert::time::Time;
use x509_cert::{TbsCertificate, Version};

use crate::crypto::CryptoProvider;
use crate::x509::Certificate;

/// A list that its issuer signed.
#[derive(Clone, Debug)]
pub(crate) struct Crl {
    pub(crate) this_update: UnixTime,
    pub(crate) next_update: UnixTime,
    revoked: Vec<SerialNumber>,
}

impl Crl {
    /// Parses a list and checks that it is by `issuer`. Says what is wrong.
    pub(crate) fn parse(der: &[u8], issuer: &Certificate, crypto: &dyn CryptoProvider) -> Result<Self, String> {
        let CertificateList { tbs_cert_list: list, signature_algorithm, signature } =
            CertificateList::from_der(der).map_err(|error| error.to_string())?;
        if list.version != Version::V2 {
            return Err("another version than 2".into());
        }
        let entries = list.revoked_certificates.unwrap_or_default();
        let of_entries = entries.iter().flat_map(|entry| &entry.crl_entry_extensions);
        let extensions = list.crl_extensions.iter().chain(of_entries).flatten();
        if let Some(Extension { extn_id, .. }) = extensions.into_iter().find(|extension| extension.critical) {
            // It may say that the list is not whole, or is for another issuer's certificates.
            return Err(format!("the critical extension {extn_id}"));
        }
        let next_update = list.next_update.ok_or("no nextUpdate")?;
        if list.issuer != *issuer.tbs().subject() || !issuer.may_revoke() {
            return Err("another issuer, or one that may not revoke".into());
        }
        let signed =
            signature_algorithm == list.signature && issuer.signed_bytes(der, &signature_algorithm, &signature, crypto);
        if !signed {
            return Err(format!("a signature by another key than {}", issuer.common_name()));
        }
        let revoked = entries.into_iter().map(|entry| entry.serial_number).collect();
        Ok(Self { this_update: seconds(list.this_update), next_update: seconds(next_update), revoked })
    }

    /// The serial number of the first of these certificates that is on the list. All of them are of its issuer.
    pub(crate) fn revoked<'a>(&self, certificates: &[&'a Certificate]) -> Option<&'a SerialNumber> {
        let mut serials = certificates.iter().map(|certificate| certificate.tbs()).map(TbsCertificate::serial_number);
        serials.find(|serial| self.revoked.contains(serial))
    }
}

fn seconds(time: Time) -> UnixTime {
    UnixTime(time.to_unix_duration().as_secs())
}
