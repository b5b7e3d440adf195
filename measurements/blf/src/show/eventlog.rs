//! The TCG event log as a table, and what its replay gives.

use blf_evidence::Hex;
use blf_evidence::eventlog::{EV_EFI_ACTION, EV_IPL, EV_NO_ACTION, Event, EventLog, EventLogError};

use super::fields::{Fields, Shown};

/// Longest description of an event, in characters.
const DESCRIPTION: usize = 80;
/// Types whose event is text: EV_POST_CODE, EV_NO_ACTION, EV_ACTION, EV_S_CRTM_VERSION, EV_IPL, EV_EFI_ACTION.
const TEXTS: [u32; 6] = [1, EV_NO_ACTION, 5, 8, EV_IPL, EV_EFI_ACTION];
/// Types whose event is a UEFI_VARIABLE_DATA: EV_EFI_VARIABLE_DRIVER_CONFIG, _BOOT, _BOOT2, _AUTHORITY.
const VARIABLES: [u32; 4] = [0x8000_0001, 0x8000_0002, 0x8000_000C, 0x8000_00E0];

/// A log: banks, events, registers after them.
pub(super) fn log(bytes: &[u8]) -> Result<Fields, EventLogError> {
    let log = EventLog::parse(bytes)?;
    let td = log.replay_sha256().is_none() && log.replay_rtmrs().is_some();
    let algorithms = log.algorithms.iter().map(|(id, size)| format!("{} ({size} bytes)", algorithm(*id)).into());
    let events = log.events.iter().enumerate().map(|(index, event)| {
        Fields::default()
            .with("#", (index as u64) + 1)
            .with(if td { "RTMR" } else { "PCR" }, register(td, event.pcr))
            .with("eventType", event.kind_name().to_string())
            .with_some("SHA-256", event.sha256.map(Hex))
            .with_some("SHA-384", event.sha384.map(Hex).filter(|_| event.sha256.is_none()))
            .with("event", describe(event))
    });
    Ok(Fields::default()
        .with("digestAlgorithms", algorithms.collect::<Vec<Shown>>())
        .with("events", events.collect::<Vec<_>>())
        .with("replay", replay(&log, td)))
}

/// A PCR by its number; in the log of a TD 1 to 4 mean RTMR 0 to 3, and 0 the MRTD, which is none.
fn register(td: bool, index: u32) -> Option<u32> {
    if td { index.checked_sub(1) } else { Some(index) }
}

fn algorithm(id: u16) -> String {
    match id {
        0x0004 => "TPM_ALG_SHA1".into(),
        0x000B => "TPM_ALG_SHA256".into(),
        0x000C => "TPM_ALG_SHA384".into(),
        0x000D => "TPM_ALG_SHA512".into(),
        0x0012 => "TPM_ALG_SM3_256".into(),
        id => format!("0x{id:04x}"),
    }
}

/// The registers that some event was extended into, by the first bank we can replay.
fn replay(log: &EventLog<'_>, td: bool) -> Fields {
    let registers: Option<Vec<String>> = log
        .replay_sha256()
        .map(|pcrs| pcrs.iter().map(|pcr| Hex(*pcr).to_string()).collect())
        .or_else(|| log.replay_sha384().map(|pcrs| pcrs.iter().map(|pcr| Hex(*pcr).to_string()).collect()));
    let extended =
        (0_u32..).zip(registers.unwrap_or_default()).filter(|(index, _)| log.extended(*index).next().is_some());
    let name = if td { "RTMR" } else { "PCR" };
    extended.fold(Fields::default(), |fields, (index, value)| {
        fields.with(format!("{name} {}", register(td, index).unwrap_or_default()), value)
    })
}

/// What an event says of itself, where it says it in words; nobody checked that its digest is of these.
fn describe(event: &Event<'_>) -> String {
    let words = match event.kind {
        kind if TEXTS.contains(&kind) => text(event.data),
        kind if VARIABLES.contains(&kind) => variable(event.data),
        _ if event.data.len() <= 4 => Some(hex::encode(event.data)),
        _ => None,
    };
    let Some(words) = words else { return format!("{} bytes", event.data.len()) };
    let short: String = words.chars().take(DESCRIPTION).collect();
    if short.len() < words.len() { format!("{short}…") } else { short }
}

/// Text in UTF-16LE or ASCII, with or without a zero at its end.
fn text(data: &[u8]) -> Option<String> {
    let wide = data.len() >= 4 && data.len().is_multiple_of(2) && data[1] == 0 && data[3] == 0;
    let text = if wide { utf16(data)? } else { std::str::from_utf8(data).ok()?.to_owned() };
    let text = text.trim_end_matches('\0');
    (!text.is_empty() && !text.contains('\0')).then(|| text.to_owned())
}

/// The name in a `UEFI_VARIABLE_DATA`: VariableName (16), UnicodeNameLength (8), VariableDataLength (8), UnicodeName.
fn variable(data: &[u8]) -> Option<String> {
    let length = u64::from_le_bytes(data.get(16..24)?.try_into().ok()?);
    let end = usize::try_from(length).ok()?.checked_mul(2)?.checked_add(32)?;
    let name = utf16(data.get(32..end)?)?;
    Some(format!("{name}, {} bytes", data.len() - end))
}

fn utf16(data: &[u8]) -> Option<String> {
    let units: Vec<u16> = data.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect();
    String::from_utf16(&units).ok()
}
