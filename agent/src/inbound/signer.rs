//! The TLS server's configuration for one handshake: the private key is the vault's, and the vault is asked to sign.

use std::fmt;
use std::sync::{Arc, mpsc};
use std::thread::{self, ThreadId};

use blf_evidence::Hex;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::server::NoServerSessionStorage;
use rustls::sign::{CertifiedKey, Signer, SigningKey, SingleCertAndKey};
use rustls::{Error, ServerConfig, SignatureAlgorithm, SignatureScheme};
use tokio::runtime::Handle;

use super::QUICK;
use super::key::TranscriptHash;
use crate::courier::vault::Vault;
use crate::frames::{FromVault, ToVault};

/// A key that lies in the vault.
#[derive(Clone)]
struct VaultKey {
    vault: Vault,
    key: Hex<32>,
    runtime: Handle,
    /// The thread that carries frames to the vault, and so must not wait for one.
    courier: ThreadId,
}

/// TLS 1.3 and HTTP/1.1 with the key `key`, whose certificate is `der`. To be called, as opposed to used, on the
/// runtime's thread. `None` where the provider has no TLS 1.3.
pub(super) fn config(vault: Vault, der: Vec<u8>, key: Hex<32>) -> Option<Arc<ServerConfig>> {
    let key = VaultKey { vault, key, runtime: Handle::current(), courier: thread::current().id() };
    let certified = CertifiedKey::new(vec![CertificateDer::from(der)], Arc::new(key));
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .ok()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // A resumed session would be one that the vault did not sign.
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Some(Arc::new(config))
}

impl SigningKey for VaultKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        offered.contains(&self.scheme()).then(|| Box::new(self.clone()) as Box<dyn Signer>)
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ECDSA
    }
}

impl Signer for VaultKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        // After a HelloRetryRequest rustls signs here. Only clients without any of the usual groups need one.
        if thread::current().id() == self.courier {
            return Err(Error::General("signing would block the courier".into()));
        }
        let transcript = TranscriptHash::of_certificate_verify(message)
            .ok_or_else(|| Error::General("wanted a CertificateVerify to sign".into()))?;
        let (reply, answer) = mpsc::sync_channel(1);
        let (vault, key) = (self.vault.clone(), self.key);
        self.runtime.spawn(async move {
            // Nobody waits any more where the courier ends.
            drop(reply.send(vault.call(ToVault::SignTls { key, transcript }, QUICK).await));
        });
        match answer.recv() {
            Ok(Ok(FromVault::TlsSignature(signature))) => Ok(signature),
            _ => Err(Error::General("the vault did not sign".into())),
        }
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ECDSA_NISTP256_SHA256
    }
}

impl fmt::Debug for VaultKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VaultKey").field("key", &self.key).finish_non_exhaustive()
    }
}
