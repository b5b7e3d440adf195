//! What a TPM answers: bytes to be read with their bounds, and response codes with their names.

use std::fmt;

use super::TpmFailure;

/// A response code (Part 2, 6.6).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rc(pub u32);

impl Rc {
    /// TPM_RC_SUCCESS.
    pub const SUCCESS: Self = Self(0);

    /// The command was not started and may be sent again: TPM_RC_YIELDED, TPM_RC_TESTING, TPM_RC_RETRY.
    pub fn is_busy(self) -> bool {
        matches!(self.0, 0x908 | 0x90A | 0x922)
    }

    /// TPM_RC_HANDLE for the command's first handle: there is no such object or index.
    pub fn is_unknown_handle(self) -> bool {
        self.0 == 0x18B
    }

    /// The code's name without its position; `None` when it is not in the list below.
    fn name(self) -> Option<&'static str> {
        /// Format one: bit 7 set, the number in the low six bits.
        const FORMAT_1: [(u32, &str); 24] = [
            (0x01, "ASYMMETRIC"),
            (0x02, "ATTRIBUTES"),
            (0x03, "HASH"),
            (0x04, "VALUE"),
            (0x05, "HIERARCHY"),
            (0x07, "KEY_SIZE"),
            (0x0A, "TYPE"),
            (0x0B, "HANDLE"),
            (0x0D, "RANGE"),
            (0x0E, "AUTH_FAIL"),
            (0x0F, "NONCE"),
            (0x12, "SCHEME"),
            (0x15, "SIZE"),
            (0x16, "SYMMETRIC"),
            (0x17, "TAG"),
            (0x18, "SELECTOR"),
            (0x1A, "INSUFFICIENT"),
            (0x1B, "SIGNATURE"),
            (0x1C, "KEY"),
            (0x1D, "POLICY_FAIL"),
            (0x1F, "INTEGRITY"),
            (0x22, "BAD_AUTH"),
            (0x26, "CURVE"),
            (0x27, "ECC_POINT"),
        ];
        /// Format zero: errors (0x100) and warnings (0x900).
        const FORMAT_0: [(u32, &str); 21] = [
            (0x01E, "BAD_TAG"),
            (0x100, "INITIALIZE"),
            (0x101, "FAILURE"),
            (0x120, "DISABLED"),
            (0x124, "AUTH_TYPE"),
            (0x125, "AUTH_MISSING"),
            (0x128, "PCR_CHANGED"),
            (0x142, "COMMAND_SIZE"),
            (0x143, "COMMAND_CODE"),
            (0x148, "NV_LOCKED"),
            (0x149, "NV_AUTHORIZATION"),
            (0x14A, "NV_UNINITIALIZED"),
            (0x902, "OBJECT_MEMORY"),
            (0x903, "SESSION_MEMORY"),
            (0x904, "MEMORY"),
            (0x905, "SESSION_HANDLES"),
            (0x908, "YIELDED"),
            (0x909, "CANCELED"),
            (0x90A, "TESTING"),
            (0x921, "LOCKOUT"),
            (0x922, "RETRY"),
        ];
        let find = |list: &[(u32, &'static str)], number| {
            list.iter().find(|(known, _)| *known == number).map(|(_, name)| *name)
        };
        if self.0 >> 12 != 0 {
            return None; // from the resource manager or a driver, not from the TPM
        }
        if self.0 & 0x80 != 0 { find(&FORMAT_1, self.0 & 0x3F) } else { find(&FORMAT_0, self.0) }
    }
}

impl fmt::Display for Rc {
    /// `TPM_RC_VALUE (parameter 2, 0x2c4)`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "TPM_RC_{name} (")?,
            None => f.write_str("response code (")?,
        }
        if self.0 & 0x80 != 0 && self.0 >> 12 == 0 {
            let position = (self.0 >> 8) & 0xF;
            match position {
                0 => {}
                p if self.0 & 0x40 != 0 => write!(f, "parameter {p}, ")?,
                p if p >= 8 => write!(f, "session {}, ", p - 8)?,
                p => write!(f, "handle {p}, ")?,
            }
        }
        write!(f, "0x{:x})", self.0)
    }
}

/// What is left to read of one command's response.
pub(super) struct Reader<'a> {
    command: &'static str,
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(command: &'static str, bytes: &'a [u8]) -> Self {
        Self { command, bytes }
    }

    pub(super) fn take(&mut self, field: &'static str, wanted: usize) -> Result<&'a [u8], TpmFailure> {
        let Some((head, rest)) = self.bytes.split_at_checked(wanted) else {
            return Err(TpmFailure::Truncated { command: self.command, field, wanted, got: self.bytes.len() });
        };
        self.bytes = rest;
        Ok(head)
    }

    pub(super) fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], TpmFailure> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(field, N)?);
        Ok(out)
    }

    pub(super) fn u8(&mut self, field: &'static str) -> Result<u8, TpmFailure> {
        self.array(field).map(u8::from_be_bytes)
    }

    pub(super) fn u16(&mut self, field: &'static str) -> Result<u16, TpmFailure> {
        self.array(field).map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self, field: &'static str) -> Result<u32, TpmFailure> {
        self.array(field).map(u32::from_be_bytes)
    }

    /// The content of a TPM2B of at most `most` bytes.
    pub(super) fn sized(&mut self, field: &'static str, most: usize) -> Result<&'a [u8], TpmFailure> {
        let got = usize::from(self.u16(field)?);
        if got > most {
            return Err(TpmFailure::TooLong { what: field, wanted: most, got });
        }
        self.take(field, got)
    }

    /// A ticket (TPMT_TK_CREATION, TPMT_TK_AUTH), which nothing here hands back to the TPM.
    pub(super) fn ticket(&mut self, field: &'static str) -> Result<(), TpmFailure> {
        self.u16(field)?;
        self.u32(field)?;
        self.sized(field, 64).map(|_| ())
    }

    pub(super) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.bytes)
    }

    pub(super) fn expect(&self, field: &'static str, wanted: u32, got: u32) -> Result<(), TpmFailure> {
        if wanted == got {
            return Ok(());
        }
        Err(TpmFailure::Unexpected { command: self.command, field, wanted, got })
    }

    pub(super) fn end(&self, field: &'static str) -> Result<(), TpmFailure> {
        if self.bytes.is_empty() {
            return Ok(());
        }
        Err(TpmFailure::Trailing { command: self.command, field, got: self.bytes.len() })
    }
}

#[cfg(test)]
mod tests {
    use super::Rc;

    #[test]
    fn response_codes_are_named() {
        for (rc, text) in [
            (0x2C4, "TPM_RC_VALUE (parameter 2, 0x2c4)"),
            (0x18B, "TPM_RC_HANDLE (handle 1, 0x18b)"),
            (0x9A2, "TPM_RC_BAD_AUTH (session 1, 0x9a2)"),
            (0x922, "TPM_RC_RETRY (0x922)"),
            (0x101, "TPM_RC_FAILURE (0x101)"),
            (0x1DF, "TPM_RC_INTEGRITY (parameter 1, 0x1df)"),
            (0x000B_0902, "response code (0xb0902)"),
        ] {
            assert_eq!(Rc(rc).to_string(), text);
        }
    }
}
