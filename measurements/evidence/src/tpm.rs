//! TPM 2.0 structures (Trusted Platform Module Library, Part 2), as far as a quote and credential activation need them.
//!
//! What is spoken: `TPMS_ATTEST` of type quote, `TPMT_SIGNATURE` (RSASSA, ECDSA), `TPMT_PUBLIC` (RSA 2048, NIST P-256),
//! Names, `TPM2B_ID_OBJECT` and `TPM2B_ENCRYPTED_SECRET`, and the two key templates the attester creates.
//! Integers are big-endian. Everything else is refused; writing what was parsed gives the same bytes.
//! Nothing here checks a signature or decides whether a key may be trusted.

use sha2::{Digest, Sha256, Sha384};

mod attest;
mod credential;
mod public;
mod template;

pub use attest::{ClockInfo, GENERATED_VALUE, PcrSelection, Quote, ST_ATTEST_QUOTE, Signature};
pub use credential::{EncryptedSecret, IdObject};
pub use public::{ObjectAttributes, Public, PublicKey, Scheme, Symmetric};
pub use template::{
    AK_REQUIRED, EK_ATTRIBUTES, EK_POLICY_A_SHA256, ak_p256_template, ek_p256_template, ek_rsa2048_template,
};

const ALG_RSASSA: u16 = 0x0014;
const ALG_ECDSA: u16 = 0x0018;
/// A modulus, or a ciphertext under it, of the only RSA size accepted.
const RSA_2048_BYTES: usize = 256;

/// Why bytes are not the TPM structure they were taken for.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum TpmError {
    /// A value that this implementation, or the standard, does not allow there.
    #[error("{field}: wanted {wanted}, got 0x{got:x}")]
    Value {
        /// The structure's member, as the standard spells it.
        field: &'static str,
        /// What is accepted.
        wanted: &'static str,
        /// What was there.
        got: u64,
    },
    /// A counted field is longer or shorter than it may be.
    #[error("{field}: wanted {least} to {most} bytes, got {got}")]
    Length {
        /// The structure's member.
        field: &'static str,
        /// The shortest accepted.
        least: usize,
        /// The longest accepted.
        most: usize,
        /// The length that was there.
        got: usize,
    },
    /// The bytes end inside a member.
    #[error("{field}: wanted {wanted} more bytes, got {got}")]
    Truncated {
        /// The member being read.
        field: &'static str,
        /// Bytes it needs.
        wanted: usize,
        /// Bytes left.
        got: usize,
    },
    /// Bytes follow the end of the structure.
    #[error("{field}: wanted no bytes after it, got {got}")]
    Trailing {
        /// The structure.
        field: &'static str,
        /// Bytes left over.
        got: usize,
    },
}

/// Hash algorithms in use (`TPM_ALG_ID`, Part 2, 6.3).
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum HashAlg {
    /// `TPM_ALG_SHA256`
    Sha256,
    /// `TPM_ALG_SHA384`
    Sha384,
}

impl HashAlg {
    /// The `TPM_ALG_ID`.
    #[must_use]
    pub const fn id(self) -> u16 {
        match self {
            Self::Sha256 => 0x000B,
            Self::Sha384 => 0x000C,
        }
    }

    /// Length of a digest in bytes.
    #[must_use]
    pub const fn size(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha384 => 48,
        }
    }

    /// The digest of `data`.
    #[must_use]
    pub fn digest(self, data: &[u8]) -> Vec<u8> {
        match self {
            Self::Sha256 => Sha256::digest(data).to_vec(),
            Self::Sha384 => Sha384::digest(data).to_vec(),
        }
    }

    fn read(r: &mut Reader<'_>, field: &'static str) -> Result<Self, TpmError> {
        match r.u16(field)? {
            0x000B => Ok(Self::Sha256),
            0x000C => Ok(Self::Sha384),
            got => Err(TpmError::Value { field, wanted: "SHA-256 (0xb) or SHA-384 (0xc)", got: got.into() }),
        }
    }
}

/// `bytes` as a big-endian number of exactly `N` bytes; `None` when it does not fit.
#[must_use]
pub fn left_pad<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
    let mut out = [0; N];
    let start = N.checked_sub(bytes.len())?;
    out[start..].copy_from_slice(bytes);
    Some(out)
}

/// Appends a `TPM2B`. Every caller's value is bounded far below 64 KiB by its parser or its construction.
fn write_sized(out: &mut Vec<u8>, bytes: &[u8]) {
    let size = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    out.extend(size.to_be_bytes());
    out.extend(&bytes[..size.into()]);
}

/// What is left to read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, field: &'static str, wanted: usize) -> Result<&'a [u8], TpmError> {
        let Some((head, rest)) = self.0.split_at_checked(wanted) else {
            return Err(TpmError::Truncated { field, wanted, got: self.0.len() });
        };
        self.0 = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], TpmError> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(field, N)?);
        Ok(out)
    }

    fn u8(&mut self, field: &'static str) -> Result<u8, TpmError> {
        Ok(u8::from_be_bytes(self.array(field)?))
    }

    fn u16(&mut self, field: &'static str) -> Result<u16, TpmError> {
        Ok(u16::from_be_bytes(self.array(field)?))
    }

    fn u32(&mut self, field: &'static str) -> Result<u32, TpmError> {
        Ok(u32::from_be_bytes(self.array(field)?))
    }

    fn u64(&mut self, field: &'static str) -> Result<u64, TpmError> {
        Ok(u64::from_be_bytes(self.array(field)?))
    }

    /// A `TPM2B` of `least..=most` bytes.
    fn sized(&mut self, field: &'static str, least: usize, most: usize) -> Result<Vec<u8>, TpmError> {
        let got = usize::from(self.u16(field)?);
        if got < least || got > most {
            return Err(TpmError::Length { field, least, most, got });
        }
        Ok(self.take(field, got)?.to_vec())
    }

    fn end(&self, field: &'static str) -> Result<(), TpmError> {
        if self.0.is_empty() { Ok(()) } else { Err(TpmError::Trailing { field, got: self.0.len() }) }
    }
}
