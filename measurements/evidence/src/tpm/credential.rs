//! What `TPM2_ActivateCredential` takes.

use super::{RSA_2048_BYTES, Reader, TpmError, write_sized};

/// `TPM2B_ID_OBJECT` as far as our 32-byte secrets need it: HMAC, then the encrypted `TPM2B_DIGEST`.
const MAX_ENC_IDENTITY_BYTES: usize = 2 + 64;

/// `TPM2B_ID_OBJECT` (Part 2, 12.4.3): the outer wrap of a credential, for an EK whose nameAlg is SHA-256.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct IdObject {
    /// `integrityHMAC` over the encrypted identity and the Name.
    pub integrity_hmac: [u8; 32],
    /// `encIdentity`: an encrypted `TPM2B_DIGEST`.
    pub enc_identity: Vec<u8>,
}

impl IdObject {
    /// Parses the bytes of a `TPM2B_ID_OBJECT`.
    ///
    /// # Errors
    /// [`TpmError`] naming the member.
    pub fn parse(bytes: &[u8]) -> Result<Self, TpmError> {
        let mut outer = Reader(bytes);
        let inner = outer.sized("TPM2B_ID_OBJECT", 0, 2 + 32 + MAX_ENC_IDENTITY_BYTES)?;
        outer.end("TPM2B_ID_OBJECT")?;
        let mut r = Reader(&inner);
        let size = r.u16("integrityHMAC")?;
        if size != 32 {
            return Err(TpmError::Length { field: "integrityHMAC", least: 32, most: 32, got: size.into() });
        }
        let integrity_hmac = r.array("integrityHMAC")?;
        if r.0.len() < 3 {
            let (least, most) = (3, MAX_ENC_IDENTITY_BYTES);
            return Err(TpmError::Length { field: "encIdentity", least, most, got: r.0.len() });
        }
        Ok(Self { integrity_hmac, enc_identity: r.0.to_vec() })
    }

    /// The bytes of the `TPM2B_ID_OBJECT`, as `TPM2_ActivateCredential` takes it.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut inner = Vec::new();
        write_sized(&mut inner, &self.integrity_hmac);
        inner.extend(&self.enc_identity);
        let mut out = Vec::new();
        write_sized(&mut out, &inner);
        out
    }
}

/// `TPM2B_ENCRYPTED_SECRET` (Part 2, 11.4.33): the seed of a credential, for the EK.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum EncryptedSecret {
    /// RSAES-OAEP ciphertext of 256 bytes.
    Rsa2048(Vec<u8>),
    /// The ephemeral public point, both coordinates at full size.
    EccP256 {
        /// Big-endian.
        x: [u8; 32],
        /// Big-endian.
        y: [u8; 32],
    },
}

impl EncryptedSecret {
    /// Parses the bytes of a `TPM2B_ENCRYPTED_SECRET`; its length says which kind of EK it is for.
    ///
    /// # Errors
    /// [`TpmError`] naming the member.
    pub fn parse(bytes: &[u8]) -> Result<Self, TpmError> {
        let mut outer = Reader(bytes);
        let inner = outer.sized("TPM2B_ENCRYPTED_SECRET", 0, RSA_2048_BYTES)?;
        outer.end("TPM2B_ENCRYPTED_SECRET")?;
        match inner.len() {
            RSA_2048_BYTES => Ok(Self::Rsa2048(inner)),
            68 => {
                let mut r = Reader(&inner);
                let (mut x, mut y) = ([0; 32], [0; 32]);
                for (field, value) in [("secret.x", &mut x), ("secret.y", &mut y)] {
                    let size = r.u16(field)?;
                    if size != 32 {
                        return Err(TpmError::Length { field, least: 32, most: 32, got: size.into() });
                    }
                    *value = r.array(field)?;
                }
                Ok(Self::EccP256 { x, y })
            }
            got => Err(TpmError::Length { field: "TPM2B_ENCRYPTED_SECRET", least: 68, most: RSA_2048_BYTES, got }),
        }
    }

    /// The bytes of the `TPM2B_ENCRYPTED_SECRET`, as `TPM2_ActivateCredential` takes it.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::Rsa2048(ciphertext) => write_sized(&mut out, ciphertext),
            Self::EccP256 { x, y } => {
                let mut point = Vec::new();
                write_sized(&mut point, x);
                write_sized(&mut point, y);
                write_sized(&mut out, &point);
            }
        }
        out
    }
}
