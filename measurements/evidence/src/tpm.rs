//! TPM 2.0 structures (Trusted Platform Module Library, Part 2), as far as a quote and credential activation need them.
//!
//! What is spoken: `TPMS_ATTEST` of type quote, `TPMT_SIGNATURE` (RSASSA, ECDSA), `TPMT_PUBLIC` (RSA 2048, NIST P-256),
//! Names, `TPM2B_ID_OBJECT` and `TPM2B_ENCRYPTED_SECRET`, and the two key templates the attester creates.
//! Integers are big-endian. Everything else is refused; writing what was parsed gives the same bytes.
//! Nothing here checks a signature or decides whether a key may be trusted.

use std::fmt;

use sha2::{Digest, Sha256, Sha384};

/// `TPM_GENERATED_VALUE`: what a TPM puts first in what it signs, and never signs for others (Part 2, 6.2).
pub const GENERATED_VALUE: u32 = 0xFF54_4347;
/// `TPM_ST_ATTEST_QUOTE` (Part 2, 6.9).
pub const ST_ATTEST_QUOTE: u16 = 0x8018;

const ALG_RSA: u16 = 0x0001;
const ALG_AES: u16 = 0x0006;
const ALG_NULL: u16 = 0x0010;
const ALG_RSASSA: u16 = 0x0014;
const ALG_ECDSA: u16 = 0x0018;
const ALG_ECC: u16 = 0x0023;
const ALG_CFB: u16 = 0x0043;
const ECC_NIST_P256: u16 = 0x0003;
/// A modulus, or a ciphertext under it, of the only RSA size accepted.
const RSA_2048_BYTES: usize = 256;
/// Longest coordinate or signature part: P-384.
const MAX_ECC_BYTES: usize = 48;
/// `sizeof(TPMU_NAME)` for the hashes we know: algorithm and a SHA-384 digest.
const MAX_NAME_BYTES: usize = 2 + 48;
/// A hash's digest, 48 bytes at most here; `extraData` and `authPolicy` are `TPM2B_DATA` and `TPM2B_DIGEST`.
const MAX_DATA_BYTES: usize = 64;
/// `TPM2B_ID_OBJECT` as far as our 32-byte secrets need it: HMAC, then the encrypted `TPM2B_DIGEST`.
const MAX_ENC_IDENTITY_BYTES: usize = 2 + 64;

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

/// `TPMA_OBJECT` (Part 2, 8.3). Reserved bits are zero.
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct ObjectAttributes(u32);

impl ObjectAttributes {
    /// The key never leaves this TPM.
    pub const FIXED_TPM: Self = Self(1 << 1);
    /// Loaded contexts do not survive a `TPM2_Startup(CLEAR)`.
    pub const ST_CLEAR: Self = Self(1 << 2);
    /// The key's parent cannot change.
    pub const FIXED_PARENT: Self = Self(1 << 4);
    /// The TPM itself made the private part.
    pub const SENSITIVE_DATA_ORIGIN: Self = Self(1 << 5);
    /// The auth value gives user role.
    pub const USER_WITH_AUTH: Self = Self(1 << 6);
    /// Admin role needs a policy session.
    pub const ADMIN_WITH_POLICY: Self = Self(1 << 7);
    /// Not subject to dictionary attack protection.
    pub const NO_DA: Self = Self(1 << 10);
    /// Duplication must be encrypted.
    pub const ENCRYPTED_DUPLICATION: Self = Self(1 << 11);
    /// Signs or decrypts only structures of known format.
    pub const RESTRICTED: Self = Self(1 << 16);
    /// May decrypt.
    pub const DECRYPT: Self = Self(1 << 17);
    /// May sign.
    pub const SIGN: Self = Self(1 << 18);
    /// Every bit above.
    const KNOWN: u32 = 0x0007_0CF6;

    /// The attributes with the given bits.
    ///
    /// # Errors
    /// [`TpmError::Value`] when a reserved or unknown bit is set.
    pub fn from_bits(bits: u32) -> Result<Self, TpmError> {
        if bits & !Self::KNOWN != 0 {
            let wanted = "only known bits (0x70cf6)";
            return Err(TpmError::Value { field: "objectAttributes", wanted, got: bits.into() });
        }
        Ok(Self(bits))
    }

    /// The 32 bits as the TPM has them.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Both sets together.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// All of `other`'s bits are set.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl fmt::Display for ObjectAttributes {
    /// The set bits by their standard names, comma separated.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMES: [(ObjectAttributes, &str); 11] = [
            (ObjectAttributes::FIXED_TPM, "fixedTPM"),
            (ObjectAttributes::ST_CLEAR, "stClear"),
            (ObjectAttributes::FIXED_PARENT, "fixedParent"),
            (ObjectAttributes::SENSITIVE_DATA_ORIGIN, "sensitiveDataOrigin"),
            (ObjectAttributes::USER_WITH_AUTH, "userWithAuth"),
            (ObjectAttributes::ADMIN_WITH_POLICY, "adminWithPolicy"),
            (ObjectAttributes::NO_DA, "noDA"),
            (ObjectAttributes::ENCRYPTED_DUPLICATION, "encryptedDuplication"),
            (ObjectAttributes::RESTRICTED, "restricted"),
            (ObjectAttributes::DECRYPT, "decrypt"),
            (ObjectAttributes::SIGN, "sign"),
        ];
        let mut comma = "";
        for (_, name) in NAMES.iter().filter(|(bit, _)| self.contains(*bit)) {
            write!(f, "{comma}{name}")?;
            comma = ",";
        }
        if self.0 == 0 { f.write_str("none") } else { Ok(()) }
    }
}

impl fmt::Debug for ObjectAttributes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// `TPMT_SYM_DEF_OBJECT` of a parameter set (Part 2, 11.1.7).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Symmetric {
    /// `TPM_ALG_NULL`: a key that protects no children.
    Null,
    /// AES-128 in CFB mode: a storage key.
    Aes128Cfb,
}

/// Signing scheme of a key (`TPMT_RSA_SCHEME`, `TPMT_ECC_SCHEME`).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Scheme {
    /// `TPM_ALG_NULL`: chosen at use, or no signing key.
    Null,
    /// The key's own scheme (RSASSA or ECDSA, by key type) with this hash.
    Signing(HashAlg),
}

/// The public numbers and their parameters (`TPMU_PUBLIC_PARMS`, `TPMU_PUBLIC_ID`).
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum PublicKey {
    /// 2048-bit RSA with exponent 65537 (written as 0, the TPM's default, or in full).
    Rsa2048 {
        /// For storage keys.
        symmetric: Symmetric,
        /// RSASSA or none.
        scheme: Scheme,
        /// `exponent` as the TPM wrote it: 0 or 65537, both meaning 65537.
        exponent: u32,
        /// The modulus, big-endian: 256 bytes, or empty in a template.
        modulus: Vec<u8>,
    },
    /// NIST P-256 without a KDF.
    EccP256 {
        /// For storage keys.
        symmetric: Symmetric,
        /// ECDSA or none.
        scheme: Scheme,
        /// Big-endian, at most 32 bytes; empty in a template.
        x: Vec<u8>,
        /// Likewise.
        y: Vec<u8>,
    },
}

/// `TPMT_PUBLIC` (Part 2, 12.2.4).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Public {
    /// Hash of the Name and of policies.
    pub name_alg: HashAlg,
    /// What the key may do.
    pub attributes: ObjectAttributes,
    /// Policy digest, empty when no policy is needed.
    pub auth_policy: Vec<u8>,
    /// Type, parameters and unique value.
    pub key: PublicKey,
}

impl Public {
    /// Parses the bytes of a `TPMT_PUBLIC`.
    ///
    /// # Errors
    /// [`TpmError`] for any key type, scheme, size or attribute not named in this module, and for trailing bytes.
    pub fn parse(bytes: &[u8]) -> Result<Self, TpmError> {
        let mut r = Reader(bytes);
        let kind = r.u16("type")?;
        let name_alg = HashAlg::read(&mut r, "nameAlg")?;
        let attributes = ObjectAttributes::from_bits(r.u32("objectAttributes")?)?;
        let auth_policy = r.sized("authPolicy", 0, name_alg.size())?;
        if !auth_policy.is_empty() && auth_policy.len() != name_alg.size() {
            let (least, most) = (name_alg.size(), name_alg.size());
            return Err(TpmError::Length { field: "authPolicy", least, most, got: auth_policy.len() });
        }
        let key = match kind {
            ALG_RSA => {
                let symmetric = read_symmetric(&mut r)?;
                let scheme = read_scheme(&mut r, ALG_RSASSA)?;
                let bits = r.u16("keyBits")?;
                if bits != 2048 {
                    return Err(TpmError::Value { field: "keyBits", wanted: "2048 (0x800)", got: bits.into() });
                }
                let exponent = r.u32("exponent")?;
                if exponent != 0 && exponent != 65537 {
                    return Err(TpmError::Value { field: "exponent", wanted: "65537", got: exponent.into() });
                }
                let modulus = r.sized("unique.rsa", 0, RSA_2048_BYTES)?;
                if !modulus.is_empty() && modulus.len() != RSA_2048_BYTES {
                    let (least, most) = (RSA_2048_BYTES, RSA_2048_BYTES);
                    return Err(TpmError::Length { field: "unique.rsa", least, most, got: modulus.len() });
                }
                PublicKey::Rsa2048 { symmetric, scheme, exponent, modulus }
            }
            ALG_ECC => {
                let symmetric = read_symmetric(&mut r)?;
                let scheme = read_scheme(&mut r, ALG_ECDSA)?;
                let curve = r.u16("curveID")?;
                if curve != ECC_NIST_P256 {
                    return Err(TpmError::Value { field: "curveID", wanted: "NIST P-256 (0x3)", got: curve.into() });
                }
                let kdf = r.u16("kdf")?;
                if kdf != ALG_NULL {
                    return Err(TpmError::Value { field: "kdf", wanted: "none (0x10)", got: kdf.into() });
                }
                PublicKey::EccP256 { symmetric, scheme, x: r.sized("unique.x", 0, 32)?, y: r.sized("unique.y", 0, 32)? }
            }
            got => return Err(TpmError::Value { field: "type", wanted: "RSA (0x1) or ECC (0x23)", got: got.into() }),
        };
        r.end("TPMT_PUBLIC")?;
        Ok(Self { name_alg, attributes, auth_policy, key })
    }

    /// Parses a `TPM2B_PUBLIC`: the same with its length in front.
    ///
    /// # Errors
    /// As [`Public::parse`], and when the length does not cover exactly the rest.
    pub fn parse_sized(bytes: &[u8]) -> Result<Self, TpmError> {
        let mut r = Reader(bytes);
        let inner = r.sized("TPM2B_PUBLIC", 0, u16::MAX.into())?;
        r.end("TPM2B_PUBLIC")?;
        Self::parse(&inner)
    }

    /// The bytes of the `TPMT_PUBLIC`.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let kind = match self.key {
            PublicKey::Rsa2048 { .. } => ALG_RSA,
            PublicKey::EccP256 { .. } => ALG_ECC,
        };
        out.extend(kind.to_be_bytes());
        out.extend(self.name_alg.id().to_be_bytes());
        out.extend(self.attributes.bits().to_be_bytes());
        write_sized(&mut out, &self.auth_policy);
        match &self.key {
            PublicKey::Rsa2048 { symmetric, scheme, exponent, modulus } => {
                write_symmetric(&mut out, *symmetric);
                write_scheme(&mut out, *scheme, ALG_RSASSA);
                out.extend(2048_u16.to_be_bytes());
                out.extend(exponent.to_be_bytes());
                write_sized(&mut out, modulus);
            }
            PublicKey::EccP256 { symmetric, scheme, x, y } => {
                write_symmetric(&mut out, *symmetric);
                write_scheme(&mut out, *scheme, ALG_ECDSA);
                out.extend(ECC_NIST_P256.to_be_bytes());
                out.extend(ALG_NULL.to_be_bytes());
                write_sized(&mut out, x);
                write_sized(&mut out, y);
            }
        }
        out
    }

    /// The bytes of the `TPM2B_PUBLIC`, as `TPM2_CreatePrimary` takes a template.
    #[must_use]
    pub fn to_sized_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        write_sized(&mut out, &self.to_bytes());
        out
    }

    /// The key's Name: `nameAlg ‖ H_nameAlg(TPMT_PUBLIC)` (Part 1, 16).
    #[must_use]
    pub fn name(&self) -> Vec<u8> {
        let mut out = self.name_alg.id().to_be_bytes().to_vec();
        out.extend(self.name_alg.digest(&self.to_bytes()));
        out
    }

    /// The public numbers at full size: SEC 1 uncompressed point, or big-endian modulus. `None` for a template.
    #[must_use]
    pub fn point_or_modulus(&self) -> Option<Vec<u8>> {
        match &self.key {
            PublicKey::Rsa2048 { modulus, .. } => (!modulus.is_empty()).then(|| modulus.clone()),
            PublicKey::EccP256 { x, y, .. } if !x.is_empty() && !y.is_empty() => {
                let mut out = vec![4];
                out.extend(left_pad::<32>(x)?);
                out.extend(left_pad::<32>(y)?);
                Some(out)
            }
            PublicKey::EccP256 { .. } => None,
        }
    }

    /// DER `SubjectPublicKeyInfo` (RFC 5280, RFC 3279, RFC 5480), as a certificate of this key carries it.
    /// `None` for a template.
    #[must_use]
    pub fn subject_public_key_info(&self) -> Option<Vec<u8>> {
        /// SEQUENCE { SEQUENCE { id-ecPublicKey, prime256v1 }, BIT STRING of 65 bytes }
        const P256: [u8; 26] = [
            0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x02, 0x01, 0x06, 0x08, 0x2A, 0x86, 0x48,
            0xCE, 0x3D, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
        ];
        /// SEQUENCE { SEQUENCE { rsaEncryption, NULL }, BIT STRING { SEQUENCE { INTEGER of 257 bytes, 65537 } } }
        const RSA_2048: [u8; 33] = [
            0x30, 0x82, 0x01, 0x22, 0x30, 0x0D, 0x06, 0x09, 0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x01, 0x01, 0x05,
            0x00, 0x03, 0x82, 0x01, 0x0F, 0x00, 0x30, 0x82, 0x01, 0x0A, 0x02, 0x82, 0x01, 0x01, 0x00,
        ];
        /// INTEGER 65537
        const EXPONENT: [u8; 5] = [0x02, 0x03, 0x01, 0x00, 0x01];
        let numbers = self.point_or_modulus()?;
        match &self.key {
            PublicKey::EccP256 { .. } => Some([&P256[..], &numbers].concat()),
            // The modulus of a 2048-bit key has its top bit set, so DER puts exactly one zero byte in front.
            PublicKey::Rsa2048 { .. } if numbers[0] & 0x80 != 0 => Some([&RSA_2048[..], &numbers, &EXPONENT].concat()),
            PublicKey::Rsa2048 { .. } => None,
        }
    }
}

/// Default EK template L-2 (TCG EK Credential Profile 2.x, B.3.4): ECC P-256, decrypts, PolicySecret(endorsement).
#[must_use]
pub fn ek_p256_template() -> Public {
    let key =
        PublicKey::EccP256 { symmetric: Symmetric::Aes128Cfb, scheme: Scheme::Null, x: vec![0; 32], y: vec![0; 32] };
    Public { name_alg: HashAlg::Sha256, attributes: EK_ATTRIBUTES, auth_policy: EK_POLICY_A_SHA256.to_vec(), key }
}

/// Default EK template L-1 (TCG EK Credential Profile 2.x, B.3.3): RSA 2048, decrypts, PolicySecret(endorsement).
#[must_use]
pub fn ek_rsa2048_template() -> Public {
    let (symmetric, modulus) = (Symmetric::Aes128Cfb, vec![0; RSA_2048_BYTES]);
    let key = PublicKey::Rsa2048 { symmetric, scheme: Scheme::Null, exponent: 0, modulus };
    Public { name_alg: HashAlg::Sha256, attributes: EK_ATTRIBUTES, auth_policy: EK_POLICY_A_SHA256.to_vec(), key }
}

/// Our attestation key: restricted ECDSA P-256 with SHA-256, made by and fixed to the TPM, empty auth value.
#[must_use]
pub fn ak_p256_template() -> Public {
    let attributes = AK_REQUIRED.union(ObjectAttributes::USER_WITH_AUTH);
    let scheme = Scheme::Signing(HashAlg::Sha256);
    let key = PublicKey::EccP256 { symmetric: Symmetric::Null, scheme, x: Vec::new(), y: Vec::new() };
    Public { name_alg: HashAlg::Sha256, attributes, auth_policy: Vec::new(), key }
}

/// What every attestation key must have; beside these it must not have `decrypt`.
pub const AK_REQUIRED: ObjectAttributes = ObjectAttributes::FIXED_TPM
    .union(ObjectAttributes::FIXED_PARENT)
    .union(ObjectAttributes::SENSITIVE_DATA_ORIGIN)
    .union(ObjectAttributes::RESTRICTED)
    .union(ObjectAttributes::SIGN);

/// Attributes of the default EK templates (EK Credential Profile, B.3.3): 0x000300B2.
pub const EK_ATTRIBUTES: ObjectAttributes = ObjectAttributes::FIXED_TPM
    .union(ObjectAttributes::FIXED_PARENT)
    .union(ObjectAttributes::SENSITIVE_DATA_ORIGIN)
    .union(ObjectAttributes::ADMIN_WITH_POLICY)
    .union(ObjectAttributes::RESTRICTED)
    .union(ObjectAttributes::DECRYPT);

/// PolicyA for SHA-256: `TPM2_PolicySecret(TPM_RH_ENDORSEMENT)` (EK Credential Profile, B.6.2).
pub const EK_POLICY_A_SHA256: [u8; 32] = [
    0x83, 0x71, 0x97, 0x67, 0x44, 0x84, 0xB3, 0xF8, 0x1A, 0x90, 0xCC, 0x8D, 0x46, 0xA5, 0xD7, 0x24, 0xFD, 0x52, 0xD7,
    0x6E, 0x06, 0x52, 0x0B, 0x64, 0xF2, 0xA1, 0xDA, 0x1B, 0x33, 0x14, 0x69, 0xAA,
];

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

/// `bytes` as a big-endian number of exactly `N` bytes; `None` when it does not fit.
#[must_use]
pub fn left_pad<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
    let mut out = [0; N];
    let start = N.checked_sub(bytes.len())?;
    out[start..].copy_from_slice(bytes);
    Some(out)
}

fn read_symmetric(r: &mut Reader<'_>) -> Result<Symmetric, TpmError> {
    match r.u16("symmetric")? {
        ALG_NULL => Ok(Symmetric::Null),
        ALG_AES => {
            let bits = r.u16("symmetric.keyBits")?;
            if bits != 128 {
                return Err(TpmError::Value { field: "symmetric.keyBits", wanted: "128 (0x80)", got: bits.into() });
            }
            let mode = r.u16("symmetric.mode")?;
            if mode != ALG_CFB {
                return Err(TpmError::Value { field: "symmetric.mode", wanted: "CFB (0x43)", got: mode.into() });
            }
            Ok(Symmetric::Aes128Cfb)
        }
        got => Err(TpmError::Value { field: "symmetric", wanted: "none (0x10) or AES (0x6)", got: got.into() }),
    }
}

fn write_symmetric(out: &mut Vec<u8>, symmetric: Symmetric) {
    match symmetric {
        Symmetric::Null => out.extend(ALG_NULL.to_be_bytes()),
        Symmetric::Aes128Cfb => {
            for word in [ALG_AES, 128, ALG_CFB] {
                out.extend(word.to_be_bytes());
            }
        }
    }
}

fn read_scheme(r: &mut Reader<'_>, signing: u16) -> Result<Scheme, TpmError> {
    match r.u16("scheme")? {
        ALG_NULL => Ok(Scheme::Null),
        scheme if scheme == signing => Ok(Scheme::Signing(HashAlg::read(r, "scheme.hash")?)),
        got => {
            Err(TpmError::Value { field: "scheme", wanted: "none, RSASSA for RSA, or ECDSA for ECC", got: got.into() })
        }
    }
}

fn write_scheme(out: &mut Vec<u8>, scheme: Scheme, signing: u16) {
    match scheme {
        Scheme::Null => out.extend(ALG_NULL.to_be_bytes()),
        Scheme::Signing(hash) => {
            out.extend(signing.to_be_bytes());
            out.extend(hash.id().to_be_bytes());
        }
    }
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
