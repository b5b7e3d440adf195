//! Recursive Length Prefix (Ethereum yellow paper, appendix B), in its one canonical form.

/// Most items of a list.
const ITEMS_CAP: usize = 32;

/// One item: as it stands, and what it holds.
#[derive(Clone, Copy)]
pub(super) struct Item<'a> {
    pub(super) encoded: &'a [u8],
    payload: &'a [u8],
    is_list: bool,
}

/// Reads a single item that fills `bytes`.
pub(super) fn item(bytes: &[u8]) -> Result<Item<'_>, String> {
    let (item, rest) = first(bytes)?;
    if rest.is_empty() { Ok(item) } else { Err(format!("rlp: {} bytes after the end", rest.len())) }
}

/// A list around items that are encoded already.
pub(super) fn list(items: &[u8]) -> Vec<u8> {
    let mut bytes = match u8::try_from(items.len()) {
        Ok(short @ ..=55) => vec![0xc0 + short],
        _ => {
            let length = items.len().to_be_bytes();
            let length: Vec<u8> = length.into_iter().skip_while(|byte| *byte == 0).collect();
            let width = u8::try_from(length.len()).unwrap_or(8); // of a usize
            [vec![0xf7 + width], length].concat()
        }
    };
    bytes.extend(items);
    bytes
}

/// A number, encoded.
pub(super) fn number(number: u64) -> Vec<u8> {
    let bytes: Vec<u8> = number.to_be_bytes().into_iter().skip_while(|byte| *byte == 0).collect();
    match (bytes.as_slice(), u8::try_from(bytes.len()).unwrap_or(8)) {
        ([small @ ..=0x7f], _) => vec![*small],
        (_, width) => [vec![0x80 + width], bytes].concat(),
    }
}

impl<'a> Item<'a> {
    /// The items of a list.
    pub(super) fn list(self, name: &str) -> Result<Vec<Self>, String> {
        if !self.is_list {
            return Err(format!("{name}: wanted a list, got bytes"));
        }
        let (mut items, mut rest) = (Vec::new(), self.payload);
        while !rest.is_empty() {
            let (item, after) = first(rest)?;
            if items.len() == ITEMS_CAP {
                return Err(format!("{name}: wanted at most {ITEMS_CAP} items"));
            }
            items.push(item);
            rest = after;
        }
        Ok(items)
    }

    /// Bytes of any length.
    pub(super) fn bytes(self, name: &str) -> Result<&'a [u8], String> {
        if self.is_list { Err(format!("{name}: wanted bytes, got a list")) } else { Ok(self.payload) }
    }

    /// A number without leading zeros, as `N` bytes.
    pub(super) fn number<const N: usize>(self, name: &str) -> Result<[u8; N], String> {
        let bytes = self.bytes(name)?;
        if bytes.first() == Some(&0) {
            return Err(format!("{name}: wanted a number without leading zeros"));
        }
        let mut number = [0; N];
        let at = N.checked_sub(bytes.len()).ok_or_else(|| format!("{name}: wanted at most {N} bytes"))?;
        number[at..].copy_from_slice(bytes);
        Ok(number)
    }
}

/// Splits the first item off.
fn first(bytes: &[u8]) -> Result<(Item<'_>, &[u8]), String> {
    let (&head, after) = bytes.split_first().ok_or("rlp: ended early")?;
    let (start, length, is_list) = match head {
        ..=0x7f => (0, 1, false),
        0x80..=0xb7 => (1, usize::from(head - 0x80), false),
        0xb8..=0xbf => long(after, head - 0xb7, false)?,
        0xc0..=0xf7 => (1, usize::from(head - 0xc0), true),
        0xf8..=0xff => long(after, head - 0xf7, true)?,
    };
    let payload = bytes.get(start..).and_then(|rest| rest.get(..length)).ok_or("rlp: ended early")?;
    if let (1, false, &[..=0x7f]) = (start, is_list, payload) {
        return Err("rlp: wanted a small byte without a length".into());
    }
    let (encoded, rest) = bytes.split_at(start + length);
    Ok((Item { encoded, payload, is_list }, rest))
}

/// Start, length and kind of an item whose length stands in `width` bytes.
fn long(after: &[u8], width: u8, is_list: bool) -> Result<(usize, usize, bool), String> {
    let width = usize::from(width);
    let bytes = after.get(..width).ok_or("rlp: ended early")?;
    let length = bytes.iter().try_fold(0_usize, |length, byte| Some(length.checked_mul(256)? + usize::from(*byte)));
    match (bytes.first(), length) {
        (Some(1..), Some(length @ 56..)) if length <= after.len() => Ok((1 + width, length, is_list)),
        _ => Err("rlp: wanted the shortest form of a length that fits".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_numbers() {
        let long = [vec![0xb8, 60], vec![1; 60]].concat();
        let bytes = list(&[number(0), number(127), number(128), number(u64::MAX), long, list(&[])].concat());
        let items = item(&bytes).unwrap().list("list").unwrap();
        let numbers: Vec<_> = items[..4].iter().map(|item| u64::from_be_bytes(item.number("n").unwrap())).collect();
        assert_eq!(numbers, [0, 127, 128, u64::MAX]);
        assert_eq!(items[4].bytes("bytes").unwrap(), [1; 60]);
        assert!(items[5].list("inner").unwrap().is_empty());
        assert!(items[5].bytes("bytes").is_err() && items[0].list("list").is_err());
    }

    #[test]
    fn other_forms_are_refused() {
        for (name, bytes) in [
            ("nothing", &[][..]),
            ("bytes that end early", &[0x83, 1, 2]),
            ("a small byte with a length", &[0x81, 1]),
            ("a short length in the long form", &[0xb8, 2, 1, 1]),
            ("a length with a leading zero", &[0xb9, 0, 60]),
            ("a length beyond the end", &[0xbb, 0xff, 0xff, 0xff, 0xff]),
            ("a length of the largest width", &[0xbf, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
            ("two items", &[1, 1]),
        ] {
            assert!(item(bytes).is_err(), "{name}");
        }
        assert!(item(&[0x82, 0, 1]).unwrap().number::<8>("n").is_err(), "a leading zero");
        assert!(item(&[0x82, 1, 1]).unwrap().number::<1>("n").is_err(), "too large");
        assert!(item(&list(&[1; 33])).unwrap().list("list").is_err(), "too many items");
    }
}
