//! The plaintexts inside sealed blobs: padded to size buckets, the prompt with the context it is meant for.
//!
//! ```text
//! prompt = u32 LE length of context ‖ context ‖ u32 LE length of text ‖ text ‖ zeros up to the bucket
//! answer =                                      u32 LE length of text ‖ text ‖ zeros up to the bucket
//! ```
//!
//! Buckets are the powers of two from 1 KiB: an observer of the blob learns only the bucket.

use blf_evidence::job::{ANSWER_CAP, CONTEXT_CAP, JobContext, PROMPT_CAP};

use crate::{Key, OpenError, Secret, blob};

/// Smallest bucket, in bytes.
pub const BUCKET_MIN: usize = 1024;

/// A prompt whose context was compared with the assignment.
pub struct Prompt(Secret);

impl Prompt {
    /// The text.
    pub fn text(&self) -> &Secret {
        &self.0
    }
}

/// Why a prompt is not run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PromptError {
    /// It stays closed.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// It was sealed for another job, user, model, release, reply key or time.
    #[error("sealed context differs from the assignment's: wanted the same bytes")]
    Context,
    /// Its text is not UTF-8, or empty, or too long.
    #[error("prompt text: wanted 1 to {PROMPT_CAP} bytes of UTF-8")]
    Text,
}

/// Seals a prompt for one job.
///
/// # Errors
/// [`PromptError::Text`], [`OpenError`].
pub fn seal_prompt(key: &Key, context: &JobContext, text: &Secret) -> Result<Vec<u8>, PromptError> {
    let bytes = text.expose();
    if bytes.is_empty() || bytes.len() > PROMPT_CAP || std::str::from_utf8(bytes).is_err() {
        return Err(PromptError::Text);
    }
    let context = context.to_canonical().map_err(|_| PromptError::Context)?;
    Ok(blob::seal(key, &pad(&[context.as_bytes(), bytes])?)?)
}

/// Opens a prompt and compares the sealed context, byte for byte, with the one of the assignment.
///
/// # Errors
/// [`PromptError`].
pub fn open_prompt(key: &Key, sealed: &[u8], context: &str) -> Result<Prompt, PromptError> {
    let plaintext = blob::open(key, sealed)?;
    let [sealed_context, text] = unpad(plaintext.expose(), [CONTEXT_CAP, PROMPT_CAP])?;
    if sealed_context != context.as_bytes() {
        return Err(PromptError::Context);
    }
    if text.is_empty() || std::str::from_utf8(text).is_err() {
        return Err(PromptError::Text);
    }
    Ok(Prompt(Secret::new(text.to_vec())))
}

/// Seals an answer under a fresh key.
///
/// # Errors
/// [`OpenError::Length`], [`OpenError::Randomness`].
pub fn seal_answer(key: &Key, text: &Secret) -> Result<Vec<u8>, OpenError> {
    if text.expose().len() > ANSWER_CAP {
        return Err(OpenError::Length { min: 0, max: ANSWER_CAP, got: text.expose().len() });
    }
    blob::seal(key, &pad(&[text.expose()])?)
}

/// Opens an answer.
///
/// # Errors
/// [`OpenError`].
pub fn open_answer(key: &Key, sealed: &[u8]) -> Result<Secret, OpenError> {
    let plaintext = blob::open(key, sealed)?;
    let [text] = unpad(plaintext.expose(), [ANSWER_CAP])?;
    Ok(Secret::new(text.to_vec()))
}

fn pad(parts: &[&[u8]]) -> Result<Secret, OpenError> {
    let length: usize = parts.iter().map(|p| 4 + p.len()).sum();
    let bucket = length.next_power_of_two().max(BUCKET_MIN);
    let mut padded = zeroize::Zeroizing::new(Vec::with_capacity(bucket));
    for part in parts {
        let length = u32::try_from(part.len()).map_err(|_| OpenError::Padding)?;
        padded.extend_from_slice(&length.to_le_bytes());
        padded.extend_from_slice(part);
    }
    padded.resize(bucket, 0);
    Ok(Secret::new(std::mem::take(&mut *padded)))
}

fn unpad<const N: usize>(padded: &[u8], caps: [usize; N]) -> Result<[&[u8]; N], OpenError> {
    let mut rest = padded;
    let mut parts = [&[][..]; N];
    for (part, cap) in parts.iter_mut().zip(caps) {
        let (length, after) = rest.split_first_chunk::<4>().ok_or(OpenError::Padding)?;
        let length = usize::try_from(u32::from_le_bytes(*length)).map_err(|_| OpenError::Padding)?;
        if length > cap {
            return Err(OpenError::Padding);
        }
        (*part, rest) = after.split_at_checked(length).ok_or(OpenError::Padding)?;
    }
    let used = padded.len() - rest.len();
    if padded.len() != used.next_power_of_two().max(BUCKET_MIN) || rest.iter().any(|b| *b != 0) {
        return Err(OpenError::Padding);
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use blf_evidence::{Address, Hex, UnixTime};

    use super::*;

    fn context() -> JobContext {
        JobContext {
            cofhe: None,
            job_id: Hex([1; 32]),
            measurements: vec!["tpm-pcr11:00".into()],
            max_new_tokens: 64,
            model_manifest_sha256: Hex([2; 32]),
            not_after: UnixTime(1_795_157_973),
            reply_hpke: Hex([3; 32]),
            user: Address([4; 20]),
            v: 1,
        }
    }

    #[test]
    fn another_context_is_refused_member_by_member() {
        let key = Key::random().unwrap();
        let text = Secret::new("what is 2+2?".into());
        let sealed = seal_prompt(&key, &context(), &text).unwrap();
        let opened = open_prompt(&key, &sealed, &context().to_canonical().unwrap()).unwrap();
        assert_eq!(opened.text().expose(), text.expose());
        type Change = fn(&mut JobContext);
        let others: [(&str, Change); 7] = [
            ("job", |c| c.job_id = Hex([9; 32])),
            ("user", |c| c.user = Address([9; 20])),
            ("model", |c| c.model_manifest_sha256 = Hex([9; 32])),
            ("release", |c| c.measurements = vec!["tpm-pcr11:01".into()]),
            ("reply key", |c| c.reply_hpke = Hex([9; 32])),
            ("expiry", |c| c.not_after = UnixTime(9)),
            ("length", |c| c.max_new_tokens = 9),
        ];
        for (name, change) in others {
            let mut other = context();
            change(&mut other);
            assert_ne!(other, context(), "{name}: mutation had no effect");
            let result = open_prompt(&key, &sealed, &other.to_canonical().unwrap());
            assert_eq!(result.err(), Some(PromptError::Context), "{name}");
        }
    }

    #[test]
    fn only_the_bucket_shows() {
        let key = Key::random().unwrap();
        let lengths = [0, 1, 500, 1020].map(|n| seal_answer(&key, &Secret::new(vec![b'a'; n])).unwrap().len());
        assert_eq!(lengths, [1024 + 28; 4]);
        assert_eq!(seal_answer(&key, &Secret::new(vec![b'a'; 1021])).unwrap().len(), 2048 + 28);
        assert!(seal_answer(&key, &Secret::new(vec![b'a'; ANSWER_CAP + 1])).is_err());
        assert!(seal_prompt(&key, &context(), &Secret::new(vec![b'a'; PROMPT_CAP + 1])).is_err());
    }

    #[test]
    fn every_other_padding_is_refused() {
        let key = Key::random().unwrap();
        let sealed = |bytes: Vec<u8>| blob::seal(&key, &Secret::new(bytes)).unwrap();
        let good = pad(&[b"hello"]).unwrap().expose().to_vec();
        assert!(open_answer(&key, &sealed(good.clone())).is_ok());
        let mut dirty = good.clone();
        dirty[1023] = 1;
        let mut long = good.clone();
        long[0..4].copy_from_slice(&2000u32.to_le_bytes());
        let mut huge = good.clone();
        huge[0..4].copy_from_slice(&u32::MAX.to_le_bytes());
        for bad in
            [dirty, long, huge, [good.clone(), vec![0; 1024]].concat(), good[..1023].to_vec(), vec![], vec![0; 3]]
        {
            assert_eq!(open_answer(&key, &sealed(bad)).err(), Some(OpenError::Padding));
        }
    }

    proptest::proptest! {
        #[test]
        fn answers_round_trip(text in proptest::collection::vec(0u8..=255, 0..5000)) {
            let key = Key::random().unwrap();
            let sealed = seal_answer(&key, &Secret::new(text.clone())).unwrap();
            let opened = open_answer(&key, &sealed).unwrap();
            proptest::prop_assert_eq!(opened.expose(), text.as_slice());
        }
    }
}
