//! Certificate chains in PEM (RFC 7468), as Intel's services and quotes carry them: one text for one chain.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

const BEGIN: &[u8] = b"-----BEGIN CERTIFICATE-----\n";
const END: &[u8] = b"-----END CERTIFICATE-----";
/// Characters in each line but the last.
const LINE: usize = 64;

/// Why a text is not the wanted chain.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("PEM, certificate {certificate} of {of}: wanted {wanted}")]
pub struct PemError {
    /// Which one, counted from 1.
    pub certificate: usize,
    /// How many there should be.
    pub of: usize,
    /// What is accepted.
    pub wanted: &'static str,
}

/// The DER of exactly `N` certificates, the leaf first.
///
/// Nothing stands before or between them; lines have 64 characters and end with LF. What differs among real chains is
/// tolerated at their end: any number of LF, and then a NUL.
///
/// # Errors
/// [`PemError`] naming the certificate.
pub fn chain<const N: usize>(text: &[u8]) -> Result<[Vec<u8>; N], PemError> {
    let mut chain = [const { Vec::new() }; N];
    let mut rest = text;
    for (index, der) in chain.iter_mut().enumerate() {
        (*der, rest) = first(rest).map_err(|wanted| PemError { certificate: index + 1, of: N, wanted })?;
        // The last one may end without LF.
        if let Some(next) = rest.strip_prefix(b"\n") {
            rest = next;
        }
    }
    let rest = rest.strip_suffix(b"\0").unwrap_or(rest);
    if rest.iter().any(|byte| *byte != b'\n') {
        return Err(PemError { certificate: N, of: N, wanted: "nothing behind it" });
    }
    Ok(chain)
}

/// The first certificate, and what stands behind it.
fn first(text: &[u8]) -> Result<(Vec<u8>, &[u8]), &'static str> {
    let body = text.strip_prefix(BEGIN).ok_or("-----BEGIN CERTIFICATE-----")?;
    let mut base64 = Vec::with_capacity(body.len());
    let mut rest = body;
    loop {
        let end = rest.iter().position(|byte| *byte == b'\n').ok_or("lines that end with LF")?;
        let (line, next) = (&rest[..end], &rest[end + 1..]);
        let last = next.starts_with(b"-");
        if line.len() > LINE || line.is_empty() || !last && line.len() != LINE {
            return Err("64 characters in each line but the last");
        }
        base64.extend_from_slice(line);
        rest = next;
        if last {
            break;
        }
    }
    let rest = rest.strip_prefix(END).ok_or("-----END CERTIFICATE-----")?;
    // This alphabet, padded, no stray bits: one text for one DER.
    Ok((STANDARD.decode(base64).map_err(|_| "base64 in its one form")?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pem(der: &[u8]) -> String {
        let base64 = STANDARD.encode(der);
        let lines: Vec<_> = base64.as_bytes().chunks(LINE).map(|line| str::from_utf8(line).unwrap()).collect();
        format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
    }

    #[test]
    fn one_text_for_one_chain() {
        let (a, b) = (vec![1; 100], vec![2; 96]);
        let good = pem(&a) + &pem(&b);
        let wanted = [a.clone(), b.clone()];
        for end in ["", "\n", "\n\n", "\0", "\n\0"] {
            assert_eq!(chain(format!("{good}{end}").as_bytes()).as_ref(), Ok(&wanted), "{end:?}");
        }
        assert_eq!(chain(good.trim_end().as_bytes()).as_ref(), Ok(&wanted));
        for (name, bad) in [
            ("one too few", pem(&a)),
            ("one too many", good.clone() + &pem(&a)),
            ("text before", format!(" {good}")),
            ("text between", pem(&a) + "\n" + &pem(&b)),
            ("text behind", good.clone() + " "),
            ("two NULs", good.clone() + "\0\0"),
            ("CR LF", good.replace('\n', "\r\n")),
            ("another width", good.replacen("AQEB\n", "AQE\nB", 1)),
            ("an empty line", good.replacen("\n-----END", "\n\n-----END", 1)),
            ("no padding", good.replace('=', "")),
            ("stray bits", good.replacen("AQ==", "AR==", 1)),
            ("another label", good.replace("CERTIFICATE", "X509 CRL")),
            ("no end", good.replacen("-----END", "-----end", 1)),
            ("nothing", String::new()),
        ] {
            assert_ne!(bad, good, "{name}: no effect");
            assert!(chain::<2>(bad.as_bytes()).is_err(), "{name}: {bad}");
        }
    }
}
