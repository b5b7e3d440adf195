//! The TCG event log in crypto-agile form, and what its replay makes of the PCRs
//! (TCG PC Client Platform Firmware Profile, section 10; for TDX the CCEL has the same form, its index counting registers).
//!
//! The log is written by firmware and kept by the operating system: nothing in it is true until its replay equals a
//! signed quote. The parser is bounded by the bytes it gets, never by a count they declare. Integers are little-endian.

use std::fmt;

use sha2::{Digest, Sha256, Sha384};

use crate::bundle::PCRS;

/// Longest log accepted, in bytes; the largest known real one (CCEL of a cloud VM) fills 256 KiB with padding.
pub const EVENT_LOG_CAP: usize = 512 * 1024;
/// Most events in a log. A long distribution boot has about 120.
pub const EVENTS_CAP: usize = 2048;
/// Most digest algorithms a log may declare.
const ALGORITHMS_CAP: u32 = 8;

/// `EV_NO_ACTION`: informative, never extended.
pub const EV_NO_ACTION: u32 = 0x0000_0003;
/// `EV_SEPARATOR`: ends the pre-OS part of a PCR.
pub const EV_SEPARATOR: u32 = 0x0000_0004;
/// `EV_EVENT_TAG`: measured by the Linux EFI stub, among others.
pub const EV_EVENT_TAG: u32 = 0x0000_0006;
/// `EV_IPL`: measured by the boot loader; systemd-stub uses it for PCR 11.
pub const EV_IPL: u32 = 0x0000_000D;
/// `EV_EFI_BOOT_SERVICES_APPLICATION`: Authenticode digest of an image that firmware starts.
pub const EV_EFI_BOOT_SERVICES_APPLICATION: u32 = 0x8000_0003;
/// `EV_EFI_ACTION`: a text that firmware measures when it acts.
pub const EV_EFI_ACTION: u32 = 0x8000_0007;

const ALG_SHA256: u16 = 0x000B;
const ALG_SHA384: u16 = 0x000C;
const SPEC_ID: &[u8; 16] = b"Spec ID Event03\0";
const STARTUP_LOCALITY: &[u8; 16] = b"StartupLocality\0";

/// Why bytes are not an event log.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("event log, event {event}, {field}: wanted {wanted}, got {got}")]
pub struct EventLogError {
    /// Index of the event, 0 being the header.
    pub event: usize,
    /// The member, as the standard spells it.
    pub field: &'static str,
    /// What is accepted.
    pub wanted: &'static str,
    /// What was there.
    pub got: u64,
}

/// A parsed log that borrows its bytes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct EventLog<'a> {
    /// `TPM_ALG_ID` and digest size of each digest an event carries, in order.
    pub algorithms: Vec<(u16, u16)>,
    /// The events after the header, in the order in which they were measured.
    pub events: Vec<Event<'a>>,
}

/// `TCG_PCR_EVENT2`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Event<'a> {
    /// `pcrIndex`: below 24; in a CCEL 1 to 4, of which 1 to 4 mean RTMR 0 to 3.
    pub pcr: u32,
    /// `eventType`.
    pub kind: u32,
    /// Digest for the SHA-256 bank, where the log has that bank.
    pub sha256: Option<[u8; 32]>,
    /// Digest for the SHA-384 bank, where the log has that bank.
    pub sha384: Option<[u8; 48]>,
    /// `event`: explains the digest; only for some types is the digest its hash.
    pub data: &'a [u8],
}

impl<'a> EventLog<'a> {
    /// Parses a log up to its end or to padding that runs, all 0x00 or all 0xFF, to the end of the buffer.
    ///
    /// # Errors
    /// [`EventLogError`], naming event and member, for anything else: truncated events, digests of undeclared
    /// algorithms, a PCR above 23, a header other than `Spec ID Event03`.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, EventLogError> {
        let mut r = Reader { left: bytes, event: 0 };
        if bytes.len() > EVENT_LOG_CAP {
            return Err(r.error("log", "at most 512 KiB", bytes.len()));
        }
        let algorithms = r.spec_id()?;
        let mut events = Vec::new();
        while !r.at_end() {
            r.event += 1;
            if events.len() == EVENTS_CAP {
                return Err(r.error("log", "at most 2048 events", events.len() + 1));
            }
            events.push(r.event2(&algorithms)?);
        }
        Ok(Self { algorithms, events })
    }

    /// The SHA-256 bank after this log, `None` when the log lacks that bank.
    ///
    /// PCR 0 starts at the locality the log states (`StartupLocality`), PCR 17 to 22 at all ones, others at zero
    /// (Platform TPM Profile, 4.6.2).
    #[must_use]
    pub fn replay_sha256(&self) -> Option<[[u8; 32]; PCRS]> {
        self.replay(
            |event| event.sha256,
            |pcr, digest| Sha256::new().chain_update(pcr).chain_update(digest).finalize().into(),
        )
    }

    /// The SHA-384 bank, or the RTMRs at index 1 to 4; otherwise as [`Self::replay_sha256`].
    #[must_use]
    pub fn replay_sha384(&self) -> Option<[[u8; 48]; PCRS]> {
        self.replay(
            |event| event.sha384,
            |pcr, digest| Sha384::new().chain_update(pcr).chain_update(digest).finalize().into(),
        )
    }

    /// RTMR 0 to 3 after this CC event log, which counts them from 1. `None` when it lacks a SHA-384 bank, or extends
    /// anything else: MRTD (0) cannot be extended, and there are no more.
    #[must_use]
    pub fn replay_rtmrs(&self) -> Option<[[u8; 48]; 4]> {
        let foreign = |event: &Event<'_>| event.kind != EV_NO_ACTION && !(1..=4).contains(&event.pcr);
        let replay = self.replay_sha384()?;
        (!self.events.iter().any(foreign)).then_some([replay[1], replay[2], replay[3], replay[4]])
    }

    /// The events that were extended into `pcr`, in order.
    pub fn extended(&self, pcr: u32) -> impl Iterator<Item = &Event<'a>> {
        self.events.iter().filter(move |event| event.pcr == pcr && event.kind != EV_NO_ACTION)
    }

    fn replay<const N: usize>(
        &self,
        digest: impl Fn(&Event<'_>) -> Option<[u8; N]>,
        extend: impl Fn(&[u8], &[u8]) -> [u8; N],
    ) -> Option<[[u8; N]; PCRS]> {
        let mut pcrs = [[0; N]; PCRS];
        pcrs[17..=22].fill([0xFF; N]);
        let mut touched = false;
        for event in &self.events {
            // `parse` keeps the index below PCRS; a hand-made event out of range counts for nothing.
            let Some(pcr) = usize::try_from(event.pcr).ok().and_then(|index| pcrs.get_mut(index)) else { continue };
            if event.kind == EV_NO_ACTION {
                if let (0, false, Some(locality)) = (event.pcr, touched, event.startup_locality()) {
                    pcr[N - 1] = locality;
                }
                continue;
            }
            touched |= event.pcr == 0;
            *pcr = extend(pcr.as_slice(), &digest(event)?);
        }
        let known = if N == 32 { ALG_SHA256 } else { ALG_SHA384 };
        self.algorithms.iter().any(|(id, _)| *id == known).then_some(pcrs)
    }
}

impl Event<'_> {
    /// The locality from which the TPM was started, in an event that states it.
    fn startup_locality(&self) -> Option<u8> {
        match self.data.split_at_checked(16) {
            Some((signature, [locality @ (0 | 3 | 4)])) if signature == STARTUP_LOCALITY => Some(*locality),
            _ => None,
        }
    }

    /// The event type by its standard name, or in hex.
    #[must_use]
    pub fn kind_name(&self) -> impl fmt::Display + use<> {
        let kind = self.kind;
        let name = match kind {
            0x0000_0000 => "EV_PREBOOT_CERT",
            0x0000_0001 => "EV_POST_CODE",
            EV_NO_ACTION => "EV_NO_ACTION",
            EV_SEPARATOR => "EV_SEPARATOR",
            0x0000_0005 => "EV_ACTION",
            EV_EVENT_TAG => "EV_EVENT_TAG",
            0x0000_0007 => "EV_S_CRTM_CONTENTS",
            0x0000_0008 => "EV_S_CRTM_VERSION",
            0x0000_0009 => "EV_CPU_MICROCODE",
            0x0000_000A => "EV_PLATFORM_CONFIG_FLAGS",
            0x0000_000B => "EV_TABLE_OF_DEVICES",
            0x0000_000C => "EV_COMPACT_HASH",
            EV_IPL => "EV_IPL",
            0x0000_000E => "EV_IPL_PARTITION_DATA",
            0x8000_0001 => "EV_EFI_VARIABLE_DRIVER_CONFIG",
            0x8000_0002 => "EV_EFI_VARIABLE_BOOT",
            EV_EFI_BOOT_SERVICES_APPLICATION => "EV_EFI_BOOT_SERVICES_APPLICATION",
            0x8000_0004 => "EV_EFI_BOOT_SERVICES_DRIVER",
            0x8000_0005 => "EV_EFI_RUNTIME_SERVICES_DRIVER",
            0x8000_0006 => "EV_EFI_GPT_EVENT",
            EV_EFI_ACTION => "EV_EFI_ACTION",
            0x8000_0008 => "EV_EFI_PLATFORM_FIRMWARE_BLOB",
            0x8000_0009 => "EV_EFI_HANDOFF_TABLES",
            0x8000_000A => "EV_EFI_PLATFORM_FIRMWARE_BLOB2",
            0x8000_000B => "EV_EFI_HANDOFF_TABLES2",
            0x8000_00E0 => "EV_EFI_VARIABLE_AUTHORITY",
            _ => "",
        };
        if name.is_empty() { format!("0x{kind:08x}") } else { name.into() }
    }
}

struct Reader<'a> {
    left: &'a [u8],
    event: usize,
}

impl<'a> Reader<'a> {
    /// `TCG_PCR_EVENT` (the SHA-1 form) holding `TCG_EfiSpecIDEvent`: declares the digests of all further events.
    fn spec_id(&mut self) -> Result<Vec<(u16, u16)>, EventLogError> {
        let pcr = self.u32("pcrIndex")?;
        if pcr > 1 {
            return Err(self.error("pcrIndex", "0, or 1 in a CCEL", pcr));
        }
        let kind = self.u32("eventType")?;
        if kind != EV_NO_ACTION {
            return Err(self.error("eventType", "EV_NO_ACTION (3)", kind));
        }
        if self.take("digest", 20)? != [0; 20] {
            return Err(self.error("digest", "20 zero bytes", 1_u8));
        }
        let size = self.u32("eventSize")?;
        let mut header = Reader { left: self.take_u32("event", size)?, event: 0 };
        if header.take("signature", 16)? != SPEC_ID {
            return Err(self.error("signature", "Spec ID Event03", 0_u8));
        }
        header.u32("platformClass")?;
        header.take("specVersion, specErrata and uintnSize", 4)?;
        let count = header.u32("numberOfAlgorithms")?;
        if count == 0 || count > ALGORITHMS_CAP {
            return Err(header.error("numberOfAlgorithms", "1 to 8", count));
        }
        let mut algorithms = Vec::new();
        for _ in 0..count {
            let (id, size) = (header.u16("algorithmId")?, header.u16("digestSize")?);
            let right = match id {
                ALG_SHA256 => size == 32,
                ALG_SHA384 => size == 48,
                _ => size <= 64,
            };
            if !right {
                return Err(header.error("digestSize", "the algorithm's size", size));
            }
            if algorithms.iter().any(|(other, _)| *other == id) {
                return Err(header.error("algorithmId", "each algorithm once", id));
            }
            algorithms.push((id, size));
        }
        let vendor = header.take("vendorInfoSize", 1)?[0];
        header.take("vendorInfo", vendor.into())?;
        if header.left.is_empty() { Ok(algorithms) } else { Err(header.error("event", "its end", header.left.len())) }
    }

    fn event2(&mut self, algorithms: &[(u16, u16)]) -> Result<Event<'a>, EventLogError> {
        let pcr = self.u32("pcrIndex")?;
        if usize::try_from(pcr).map_or(true, |pcr| pcr >= PCRS) {
            return Err(self.error("pcrIndex", "below 24", pcr));
        }
        let kind = self.u32("eventType")?;
        let count = self.u32("digests.count")?;
        if usize::try_from(count) != Ok(algorithms.len()) {
            return Err(self.error("digests.count", "one for each declared algorithm", count));
        }
        let (mut sha256, mut sha384) = (None, None);
        for (wanted, size) in algorithms {
            let id = self.u16("digests.hashAlg")?;
            if id != *wanted {
                return Err(self.error("digests.hashAlg", "the declared algorithms in their order", id));
            }
            match id {
                ALG_SHA256 => sha256 = Some(self.array("digests.digest")?),
                ALG_SHA384 => sha384 = Some(self.array("digests.digest")?),
                _ => drop(self.take("digests.digest", (*size).into())?),
            }
        }
        let size = self.u32("eventSize")?;
        Ok(Event { pcr, kind, sha256, sha384, data: self.take_u32("event", size)? })
    }

    /// Nothing is left but padding. An event cannot begin with 0xFFFFFFFF, and one that begins with zeros only to
    /// the buffer's end would lack its digests.
    fn at_end(&self) -> bool {
        self.left.iter().all(|byte| *byte == 0) || self.left.iter().all(|byte| *byte == 0xFF)
    }

    fn error(&self, field: &'static str, wanted: &'static str, got: impl TryInto<u64>) -> EventLogError {
        EventLogError { event: self.event, field, wanted, got: got.try_into().unwrap_or(u64::MAX) }
    }

    fn take(&mut self, field: &'static str, size: usize) -> Result<&'a [u8], EventLogError> {
        let Some((head, rest)) = self.left.split_at_checked(size) else {
            return Err(self.error(field, "more bytes than are left", self.left.len()));
        };
        self.left = rest;
        Ok(head)
    }

    fn take_u32(&mut self, field: &'static str, size: u32) -> Result<&'a [u8], EventLogError> {
        let size = usize::try_from(size).map_err(|_| self.error(field, "a size below the log's", size))?;
        self.take(field, size)
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], EventLogError> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(field, N)?);
        Ok(out)
    }

    fn u16(&mut self, field: &'static str) -> Result<u16, EventLogError> {
        Ok(u16::from_le_bytes(self.array(field)?))
    }

    fn u32(&mut self, field: &'static str) -> Result<u32, EventLogError> {
        Ok(u32::from_le_bytes(self.array(field)?))
    }
}
