//! What a TPM signs, and its signatures.

use super::{ALG_ECDSA, ALG_RSASSA, HashAlg, RSA_2048_BYTES, Reader, TpmError, write_sized};

/// `TPM_GENERATED_VALUE`: what a TPM puts first in what it signs, and never signs for others (Part 2, 6.2).
pub const GENERATED_VALUE: u32 = 0xFF54_4347;
/// `TPM_ST_ATTEST_QUOTE` (Part 2, 6.9).
pub const ST_ATTEST_QUOTE: u16 = 0x8018;

/// Longest coordinate or signature part: P-384.
const MAX_ECC_BYTES: usize = 48;
/// `sizeof(TPMU_NAME)` for the hashes we know: algorithm and a SHA-384 digest.
const MAX_NAME_BYTES: usize = 2 + 48;
/// A hash's digest, 48 bytes at most here; `extraData` and `authPolicy` are `TPM2B_DATA` and `TPM2B_DIGEST`.
const MAX_DATA_BYTES: usize = 64;

/// `TPMS_CLOCK_INFO` (Part 2, 10.11.1).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ClockInfo {
    /// Milliseconds the TPM was powered, since it was last cleared.
    pub clock: u64,
    /// Number of TPM resets since it was last cleared.
    pub reset_count: u32,
    /// Number of restarts or resumes since the last reset.
    pub restart_count: u32,
    /// No greater `clock` value was reported before.
    pub safe: bool,
}

/// `TPMS_PCR_SELECTION` with the three octets of a PC Client TPM (Part 2, 10.6.2).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PcrSelection {
    /// The bank.
    pub hash: HashAlg,
    /// Bit `n % 8` of octet `n / 8` selects PCR `n`.
    pub select: [u8; 3],
}

impl PcrSelection {
    /// All 24 PCRs of the SHA-256 bank: the only selection evidence may quote.
    pub const ALL_SHA256: Self = Self { hash: HashAlg::Sha256, select: [0xFF; 3] };

    /// `TPML_PCR_SELECTION` of this one selection, as `TPM2_Quote` and `TPM2_PCR_Read` take it.
    #[must_use]
    pub fn to_list_bytes(self) -> Vec<u8> {
        let mut out = 1_u32.to_be_bytes().to_vec();
        self.write(&mut out);
        out
    }

    fn write(self, out: &mut Vec<u8>) {
        out.extend(self.hash.id().to_be_bytes());
        out.push(3);
        out.extend(self.select);
    }
}

/// `TPMS_ATTEST` of type `TPM_ST_ATTEST_QUOTE` (Part 2, 10.12.12): what the AK signs.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Quote {
    /// Qualified Name of the signing key (hash algorithm and digest).
    pub qualified_signer: Vec<u8>,
    /// `extraData`: the caller's qualifying data.
    pub extra_data: Vec<u8>,
    /// The TPM's clock and reset counters.
    pub clock_info: ClockInfo,
    /// Version of the TPM's firmware, vendor defined.
    pub firmware_version: u64,
    /// The bank and PCRs quoted.
    pub pcr_select: PcrSelection,
    /// Digest over the selected PCRs, lowest first, under the signing scheme's hash.
    pub pcr_digest: Vec<u8>,
}

impl Quote {
    /// Parses the bytes of a `TPMS_ATTEST`.
    ///
    /// # Errors
    /// [`TpmError`], naming the member, when the bytes are anything but one quote over one PCR bank.
    pub fn parse(bytes: &[u8]) -> Result<Self, TpmError> {
        let mut r = Reader(bytes);
        let magic = r.u32("magic")?;
        if magic != GENERATED_VALUE {
            return Err(TpmError::Value { field: "magic", wanted: "0xff544347", got: magic.into() });
        }
        let kind = r.u16("type")?;
        if kind != ST_ATTEST_QUOTE {
            return Err(TpmError::Value { field: "type", wanted: "quote (0x8018)", got: kind.into() });
        }
        let qualified_signer = r.sized("qualifiedSigner", 0, MAX_NAME_BYTES)?;
        let extra_data = r.sized("extraData", 0, MAX_DATA_BYTES)?;
        let clock = r.u64("clockInfo.clock")?;
        let reset_count = r.u32("clockInfo.resetCount")?;
        let restart_count = r.u32("clockInfo.restartCount")?;
        let safe = match r.u8("clockInfo.safe")? {
            0 => false,
            1 => true,
            got => return Err(TpmError::Value { field: "clockInfo.safe", wanted: "0 or 1", got: got.into() }),
        };
        let firmware_version = r.u64("firmwareVersion")?;
        let count = r.u32("pcrSelect.count")?;
        if count != 1 {
            return Err(TpmError::Value { field: "pcrSelect.count", wanted: "1 bank", got: count.into() });
        }
        let hash = HashAlg::read(&mut r, "pcrSelect.hash")?;
        let octets = r.u8("pcrSelect.sizeofSelect")?;
        if octets != 3 {
            return Err(TpmError::Value { field: "pcrSelect.sizeofSelect", wanted: "3", got: octets.into() });
        }
        let select = r.array("pcrSelect.pcrSelect")?;
        let pcr_digest = r.sized("pcrDigest", HashAlg::Sha256.size(), HashAlg::Sha384.size())?;
        r.end("TPMS_ATTEST")?;
        Ok(Self {
            qualified_signer,
            extra_data,
            clock_info: ClockInfo { clock, reset_count, restart_count, safe },
            firmware_version,
            pcr_select: PcrSelection { hash, select },
            pcr_digest,
        })
    }

    /// The bytes of the `TPMS_ATTEST`.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = GENERATED_VALUE.to_be_bytes().to_vec();
        out.extend(ST_ATTEST_QUOTE.to_be_bytes());
        write_sized(&mut out, &self.qualified_signer);
        write_sized(&mut out, &self.extra_data);
        out.extend(self.clock_info.clock.to_be_bytes());
        out.extend(self.clock_info.reset_count.to_be_bytes());
        out.extend(self.clock_info.restart_count.to_be_bytes());
        out.push(self.clock_info.safe.into());
        out.extend(self.firmware_version.to_be_bytes());
        out.extend(self.pcr_select.to_list_bytes());
        write_sized(&mut out, &self.pcr_digest);
        out
    }
}

/// `TPMT_SIGNATURE` (Part 2, 11.3.4).
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Signature {
    /// `TPM_ALG_RSASSA`: RSASSA-PKCS1-v1_5 under a 2048-bit key.
    Rsassa {
        /// Hash that was signed.
        hash: HashAlg,
        /// 256 bytes, big-endian.
        signature: Vec<u8>,
    },
    /// `TPM_ALG_ECDSA`.
    Ecdsa {
        /// Hash that was signed.
        hash: HashAlg,
        /// `signatureR`, big-endian; some TPMs leave leading zeros away.
        r: Vec<u8>,
        /// `signatureS`, likewise.
        s: Vec<u8>,
    },
}

impl Signature {
    /// Parses the bytes of a `TPMT_SIGNATURE`.
    ///
    /// # Errors
    /// [`TpmError`] for another scheme or hash, for a size that is none of RSA 2048, P-256 or P-384, for trailing bytes.
    pub fn parse(bytes: &[u8]) -> Result<Self, TpmError> {
        let mut r = Reader(bytes);
        let value = match r.u16("sigAlg")? {
            ALG_RSASSA => Self::Rsassa {
                hash: HashAlg::read(&mut r, "rsassa.hash")?,
                signature: r.sized("rsassa.sig", RSA_2048_BYTES, RSA_2048_BYTES)?,
            },
            ALG_ECDSA => Self::Ecdsa {
                hash: HashAlg::read(&mut r, "ecdsa.hash")?,
                r: r.sized("ecdsa.signatureR", 1, MAX_ECC_BYTES)?,
                s: r.sized("ecdsa.signatureS", 1, MAX_ECC_BYTES)?,
            },
            got => {
                let wanted = "RSASSA (0x14) or ECDSA (0x18)";
                return Err(TpmError::Value { field: "sigAlg", wanted, got: got.into() });
            }
        };
        r.end("TPMT_SIGNATURE")?;
        Ok(value)
    }

    /// The bytes of the `TPMT_SIGNATURE`.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::Rsassa { hash, signature } => {
                out.extend(ALG_RSASSA.to_be_bytes());
                out.extend(hash.id().to_be_bytes());
                write_sized(&mut out, signature);
            }
            Self::Ecdsa { hash, r, s } => {
                out.extend(ALG_ECDSA.to_be_bytes());
                out.extend(hash.id().to_be_bytes());
                write_sized(&mut out, r);
                write_sized(&mut out, s);
            }
        }
        out
    }

    /// The hash that was signed.
    #[must_use]
    pub fn hash(&self) -> HashAlg {
        match self {
            Self::Rsassa { hash, .. } | Self::Ecdsa { hash, .. } => *hash,
        }
    }
}
