//! Solidity's ABI: 32-byte words with offsets, in (calldata) and out (returns, logs, errors).

use alloy_primitives::keccak256;
use blf_evidence::Address;

/// A word.
pub(crate) type Word = [u8; 32];

/// Most elements of an array in calldata.
pub(super) const ARRAY_CAP: usize = 64;

/// Calldata that is not what the function takes; names the argument's kind.
#[derive(Debug, PartialEq)]
pub(super) struct Malformed(pub(super) &'static str);

/// Words of one frame: arguments of a function, or a struct. Offsets count from its start.
#[derive(Clone, Copy)]
pub(super) struct Frame<'a>(&'a [u8]);

/// What goes out: one argument.
pub(super) enum Token<'a> {
    Word(Word),
    Bytes(&'a [u8]),
    Array(Vec<Word>),
}

/// Splits calldata into the function of `signatures` that it calls and the arguments.
pub(super) fn function<'a>(data: &'a [u8], signatures: &[&'static str]) -> Option<(&'static str, Frame<'a>)> {
    let (selector, arguments) = data.split_first_chunk::<4>()?;
    let signature = signatures.iter().find(|signature| self::selector(signature) == *selector)?;
    Some((signature, Frame(arguments)))
}

/// First four bytes of keccak256 of a function's or an error's signature.
pub(super) fn selector(signature: &str) -> [u8; 4] {
    let hash = keccak256(signature).0;
    [hash[0], hash[1], hash[2], hash[3]]
}

/// A number as a word.
pub(super) fn uint(number: u128) -> Word {
    let mut word = [0; 32];
    word[16..].copy_from_slice(&number.to_be_bytes());
    word
}

/// An address as a word.
pub(crate) fn address(address: Address) -> Word {
    let mut word = [0; 32];
    word[12..].copy_from_slice(&address.0);
    word
}

/// A truth as a word.
pub(super) fn boolean(truth: bool) -> Word {
    uint(u128::from(truth))
}

/// Heads, then tails.
pub(super) fn encode(tokens: &[Token<'_>]) -> Vec<u8> {
    let (mut heads, mut tails) = (Vec::new(), Vec::new());
    for token in tokens {
        if let Token::Word(word) = token {
            heads.extend(word);
            continue;
        }
        heads.extend(uint((32 * tokens.len() + tails.len()) as u128));
        match token {
            Token::Word(_) => {}
            Token::Bytes(bytes) => {
                tails.extend(uint(bytes.len() as u128));
                tails.extend_from_slice(bytes);
                tails.resize(tails.len().next_multiple_of(32), 0);
            }
            Token::Array(words) => {
                tails.extend(uint(words.len() as u128));
                tails.extend(words.iter().flatten());
            }
        }
    }
    [heads, tails].concat()
}

impl<'a> Frame<'a> {
    pub(super) fn word(self, index: usize) -> Result<Word, Malformed> {
        let word = self.0.get(32 * index..).and_then(|rest| rest.first_chunk::<32>());
        word.copied().ok_or(Malformed("an argument is missing"))
    }

    pub(super) fn u8(self, index: usize) -> Result<u8, Malformed> {
        u8::try_from(self.u64(index)?).map_err(|_| Malformed("a uint8 is too large"))
    }

    pub(super) fn u64(self, index: usize) -> Result<u64, Malformed> {
        let word = self.word(index)?;
        let (high, low) = word.split_at(24);
        let low = <[u8; 8]>::try_from(low).map_err(|_| Malformed("a uint64 is too short"))?;
        if high.iter().any(|byte| *byte != 0) {
            return Err(Malformed("a uint64 is too large"));
        }
        Ok(u64::from_be_bytes(low))
    }

    pub(super) fn address(self, index: usize) -> Result<Address, Malformed> {
        let word = self.word(index)?;
        match word.split_first_chunk::<12>() {
            Some((&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], rest)) => {
                rest.try_into().map(Address).map_err(|_| Malformed("an address is too short"))
            }
            _ => Err(Malformed("an address is too large")),
        }
    }

    /// The frame of a dynamic struct.
    pub(super) fn structure(self, index: usize) -> Result<Self, Malformed> {
        let offset = usize::try_from(self.u64(index)?).ok();
        offset.and_then(|offset| self.0.get(offset..)).map(Self).ok_or(Malformed("an offset leads outside"))
    }

    pub(super) fn bytes(self, index: usize) -> Result<&'a [u8], Malformed> {
        let tail = self.structure(index)?;
        let length = usize::try_from(tail.u64(0)?).map_err(|_| Malformed("a length is too large"))?;
        tail.0.get(32..).and_then(|rest| rest.get(..length)).ok_or(Malformed("bytes end early"))
    }

    pub(super) fn addresses(self, index: usize) -> Result<Vec<Address>, Malformed> {
        let tail = self.structure(index)?;
        match usize::try_from(tail.u64(0)?) {
            Ok(length) if length <= ARRAY_CAP => (1..=length).map(|at| tail.address(at)).collect(),
            _ => Err(Malformed("an array is longer than 64")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let someone = Address([7; 20]);
        let data = encode(&[
            Token::Word(uint(5)),
            Token::Bytes(b"hello"),
            Token::Array(vec![address(someone)]),
            Token::Word(address(someone)),
        ]);
        assert_eq!(data.len(), 32 * 8);
        let frame = Frame(&data);
        assert_eq!(frame.u8(0), Ok(5));
        assert_eq!(frame.bytes(1), Ok(&b"hello"[..]));
        assert_eq!(frame.addresses(2), Ok(vec![someone]));
        assert_eq!(frame.address(3), Ok(someone));
    }

    #[test]
    fn hostile_calldata_is_refused() {
        assert_eq!(Frame(&[0; 31]).word(0), Err(Malformed("an argument is missing")));
        assert_eq!(Frame(&uint(256)).u8(0), Err(Malformed("a uint8 is too large")));
        assert_eq!(Frame(&uint(1 << 64)).u64(0), Err(Malformed("a uint64 is too large")));
        assert_eq!(Frame(&[1; 32]).address(0), Err(Malformed("an address is too large")));
        assert_eq!(Frame(&uint(33)).bytes(0), Err(Malformed("an offset leads outside")));
        let long = [uint(32), uint(u128::from(u64::MAX))].concat();
        assert_eq!(Frame(&long).bytes(0), Err(Malformed("bytes end early")));
        assert_eq!(Frame(&long).addresses(0), Err(Malformed("an array is longer than 64")));
        assert!(function(b"abc", &["acl()"]).is_none());
    }
}
