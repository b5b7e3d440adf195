//! Times as people write them: RFC 3339 in UTC, to the second.

use std::time::Duration;

use blf_evidence::UnixTime;
use x509_cert::der::DateTime;

/// A time from Unix seconds or from RFC 3339 in UTC, e.g. `2026-11-21T12:00:00Z`; for the command line.
///
/// # Errors
/// What was wanted.
pub(crate) fn parse(text: &str) -> Result<UnixTime, String> {
    let wanted = || format!("wanted Unix seconds, or UTC as 2026-11-21T12:00:00Z, got {text}");
    let seconds = match text.parse::<u64>() {
        Ok(seconds) => seconds,
        Err(_) => text.parse::<DateTime>().map_err(|_| wanted())?.unix_duration().as_secs(),
    };
    if seconds > UnixTime::MAX.0 { Err(wanted()) } else { Ok(UnixTime(seconds)) }
}

/// RFC 3339, or the seconds themselves beyond the year 9999.
pub(crate) fn written(time: UnixTime) -> String {
    DateTime::from_unix_duration(Duration::from_secs(time.0)).map_or_else(|_| time.0.to_string(), |t| t.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_spellings_of_one_time() {
        let time = UnixTime(1_774_000_000);
        assert_eq!(written(time), "2026-03-20T09:46:40Z");
        assert_eq!((parse("1774000000"), parse("2026-03-20T09:46:40Z")), (Ok(time), Ok(time)));
        assert_eq!(written(UnixTime::MAX), "9007199254740991");
        for bad in
            ["", "now", "-1", "2026-03-20", "2026-03-20T09:46:40+01:00", "2026-02-30T00:00:00Z", "9007199254740992"]
        {
            assert!(parse(bad).unwrap_err().contains("wanted Unix seconds"), "{bad}");
        }
    }
}
