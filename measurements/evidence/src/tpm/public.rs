//! Public keys: attributes, parameters, Names.

use std::fmt;

use super::{ALG_ECDSA, ALG_RSASSA, HashAlg, RSA_2048_BYTES, Reader, TpmError, left_pad, write_sized};

const ALG_RSA: u16 = 0x0001;
const ALG_AES: u16 = 0x0006;
const ALG_NULL: u16 = 0x0010;
const ALG_ECC: u16 = 0x0023;
const ALG_CFB: u16 = 0x0043;
const ECC_NIST_P256: u16 = 0x0003;

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

    /// The key's Qualified Name below a parent with this one, or below a hierarchy with this handle (Part 1, 16).
    #[must_use]
    pub fn qualified_name(&self, parent: &[u8]) -> Vec<u8> {
        let mut out = self.name_alg.id().to_be_bytes().to_vec();
        out.extend(self.name_alg.digest(&[parent, &self.name()].concat()));
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
