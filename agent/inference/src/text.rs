//! Text to tokens and back: the template around a prompt, and a tokenizer made of known parts only.

use serde_json::Value;
use tokenizers::{PostProcessorWrapper, Tokenizer};
use zeroize::Zeroizing;

use crate::error::{GenerateError, LoadError};

/// Tokenizer and template of a model.
pub(crate) struct Text {
    tokenizer: Tokenizer,
    /// The template's tokens before and after the prompt.
    before: Vec<u32>,
    after: Vec<u32>,
}

impl Text {
    /// Reads `tokenizer.json` and `template.txt`; every token must be one of `vocab`.
    pub(crate) fn parse(tokenizer: &[u8], template: &[u8], vocab: usize) -> Result<Self, LoadError> {
        known_parts(tokenizer)?;
        let mut tokenizer = Tokenizer::from_bytes(tokenizer).map_err(|e| LoadError::Tokenizer(e.to_string()))?;
        tokenizer.with_post_processor(None::<PostProcessorWrapper>); // the template says what is around a prompt
        let mut model = tokenizer.get_model().clone();
        model.resize_cache(0); // it would keep words of one prompt for the next
        tokenizer.with_model(model);
        let in_vocab = |id: &u32| usize::try_from(*id).is_ok_and(|id| id < vocab);
        if let Some(id) = tokenizer.get_vocab(true).into_values().find(|id| !in_vocab(id)) {
            return Err(LoadError::Tokenizer(format!("token id {id}, wanted less than vocab_size {vocab}")));
        }

        let template = std::str::from_utf8(template).map_err(|_| LoadError::Template("wanted UTF-8"))?;
        let Some((before, after)) = template.split_once(PROMPT).filter(|(_, after)| !after.contains(PROMPT)) else {
            return Err(LoadError::Template("wanted {prompt} exactly once"));
        };
        let encode = |text: &str| {
            let tokens = tokenizer.encode_fast(text, false).map_err(|e| LoadError::Tokenizer(e.to_string()))?;
            Ok::<_, LoadError>(tokens.get_ids().to_vec())
        };
        let (before, after) = (encode(before)?, encode(after)?);
        tokenizer.set_encode_special_tokens(true); // from here on a special token's name is plain text
        Ok(Self { tokenizer, before, after })
    }

    /// Tokens of the template alone.
    pub(crate) fn template_len(&self) -> usize {
        self.before.len() + self.after.len()
    }

    /// The prompt's tokens inside the template's. The prompt is tokenised apart from the template, so that nothing in it can
    /// end its own part.
    pub(crate) fn encode(&self, prompt: &str) -> Result<Zeroizing<Vec<u32>>, GenerateError> {
        let prompt = self.tokenizer.encode_fast(prompt, false).map_err(|_| GenerateError::Tokenizer)?;
        let mut ids = Zeroizing::new(Vec::with_capacity(self.template_len() + prompt.len()));
        for part in [&self.before, prompt.get_ids(), &self.after] {
            ids.extend_from_slice(part);
        }
        Ok(ids)
    }

    /// The text of an answer's tokens, special ones left out.
    pub(crate) fn decode(&self, ids: &[u32]) -> Result<Zeroizing<String>, GenerateError> {
        self.tokenizer.decode(ids, true).map(Zeroizing::new).map_err(|_| GenerateError::Tokenizer)
    }
}

/// Refuses what would bring chance (dropout), padding or parts whose hostile inputs nobody here has looked at.
fn known_parts(json: &[u8]) -> Result<(), LoadError> {
    let file: Value = serde_json::from_slice(json).map_err(|e| LoadError::Tokenizer(e.to_string()))?;
    let refuse = |what: String| Err(LoadError::Tokenizer(what));
    if file["model"]["type"] != "BPE" {
        return refuse(format!("model type is {}, wanted \"BPE\"", brief(&file["model"]["type"])));
    }
    for (name, value) in
        [("dropout", &file["model"]["dropout"]), ("truncation", &file["truncation"]), ("padding", &file["padding"])]
    {
        if !value.is_null() {
            return refuse(format!("{name} is {}, wanted null", brief(value)));
        }
    }
    let parts = [
        ("normalizer", "normalizers", ["NFC", "NFKC", "Prepend", "Replace"].as_slice()),
        ("pre_tokenizer", "pretokenizers", ["ByteLevel", "Digits", "Metaspace", "Split"].as_slice()),
        ("decoder", "decoders", ["ByteFallback", "ByteLevel", "Fuse", "Metaspace", "Replace", "Strip"].as_slice()),
    ];
    for (name, list, known) in parts {
        let part = &file[name];
        let members = match &part[list] {
            Value::Array(members) if part["type"] == "Sequence" => members.as_slice(),
            _ if part.is_null() => &[],
            _ => std::slice::from_ref(part),
        };
        for member in members {
            if !known.iter().any(|known| member["type"] == *known) {
                return refuse(format!("{name} {} is not one of {known:?}", brief(&member["type"])));
            }
        }
    }
    Ok(())
}

fn brief(value: &Value) -> String {
    value.to_string().chars().take(64).collect()
}

const PROMPT: &str = "{prompt}";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_have_the_tokens_of_the_reference() {
        let text = Text::parse(TOKENIZER, TEMPLATE, 1024).unwrap();
        let reference: Vec<Value> = serde_json::from_slice(REFERENCE).unwrap();
        assert!(reference.len() >= 5);
        for entry in reference {
            let prompt = entry["prompt"].as_str().unwrap();
            let wanted: Vec<u32> = serde_json::from_value(entry["ids"].clone()).unwrap();
            assert_eq!(*text.encode(prompt).unwrap(), wanted, "{prompt}");
        }
    }

    #[test]
    fn a_prompt_s_tokens_read_back_as_the_prompt() {
        let text = Text::parse(TOKENIZER, b"{prompt}", 1024).unwrap();
        for prompt in ["plain", " <|end|> two  spaces\n", "Grüße 中文 \u{1f999} e\u{301}", "\0\u{7f}"] {
            assert_eq!(*text.decode(&text.encode(prompt).unwrap()).unwrap(), prompt);
        }
    }

    const REFERENCE: &[u8] = include_bytes!("../../../tests/models/blf-tiny-1/reference.json");
    const TEMPLATE: &[u8] = include_bytes!("../../../tests/models/blf-tiny-1/template.txt");
    const TOKENIZER: &[u8] = include_bytes!("../../../tests/models/blf-tiny-1/tokenizer.json");
}
