//! A model and one answer of it.

use std::num::NonZeroUsize;
use std::ops::ControlFlow;

use blf_evidence::pack::{self, FileName, Manifest};
use rayon::ThreadPool;
use zeroize::Zeroizing;

use crate::config::Config;
use crate::error::{GenerateError, LoadError};
use crate::graph::{Graph, Secret};
use crate::ops;
use crate::text::Text;
use crate::weights::Weights;

/// The files of a model pack, as slices of the memory it was read into and verified in.
#[derive(Clone, Copy)]
pub struct Files<'a> {
    /// `config.json`.
    pub config: &'a [u8],
    /// `tokenizer.json`.
    pub tokenizer: &'a [u8],
    /// `template.txt`.
    pub template: &'a [u8],
    /// `model.safetensors`.
    pub weights: &'a [u8],
}

/// A loaded model. Answers are independent of each other and may be made at the same time.
pub struct Model {
    graph: Graph,
    text: Text,
    pool: ThreadPool,
    eos: Vec<u32>,
    context: usize,
    max_new_tokens: u32,
}

/// How far an answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Tokens of the prompt, template included, that have been read.
    pub prompt_tokens: u32,
    /// Tokens of the answer that have been made.
    pub new_tokens: u32,
}

/// An answer.
pub struct Generation {
    /// Its text.
    pub text: SecretText,
    /// Tokens of the prompt, template included.
    pub prompt_tokens: u32,
    /// Tokens of the answer, without the one that ended it.
    pub new_tokens: u32,
    /// What ended it.
    pub finish: Finish,
}

/// What ended an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// The model said that it is complete.
    EndOfText,
    /// It reached the number of tokens asked for, or the end of the context.
    Length,
}

/// Text that is wiped when dropped and never shown by accident.
pub struct SecretText(Zeroizing<String>);

impl SecretText {
    /// The text itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl<'a> Files<'a> {
    /// The files of `pack`, whose header is `header`.
    ///
    /// # Errors
    /// [`LoadError::Missing`] if `pack` is shorter than the header says; a verified one is not.
    pub fn of(header: &pack::Header, pack: &'a [u8]) -> Result<Self, LoadError> {
        let file = |name: FileName| {
            let range = header.range(name);
            let (start, end) = (usize::try_from(range.start), usize::try_from(range.end));
            let bytes = start.ok().zip(end.ok()).and_then(|(start, end)| pack.get(start..end));
            bytes.ok_or_else(|| LoadError::Missing { name: name.as_str() })
        };
        Ok(Self {
            config: file(FileName::Config)?,
            tokenizer: file(FileName::Tokenizer)?,
            template: file(FileName::Template)?,
            weights: file(FileName::Weights)?,
        })
    }
}

impl Model {
    /// Loads a model and starts its `threads` threads.
    ///
    /// Assumes that `files` are the ones of `manifest` ([`pack::Verifier`] has compared their digests), not that they make sense.
    ///
    /// # Errors
    /// [`LoadError`], by file and member or tensor.
    pub fn load(manifest: &Manifest, files: Files<'_>, threads: NonZeroUsize) -> Result<Self, LoadError> {
        if manifest.architecture != pack::ARCHITECTURE_LLAMA {
            return Err(LoadError::Architecture { got: manifest.architecture.clone() });
        }
        if manifest.numeric_profile != crate::NUMERIC_PROFILE {
            let got = manifest.numeric_profile.clone();
            return Err(LoadError::NumericProfile { wanted: crate::NUMERIC_PROFILE, got });
        }
        let config = Config::parse(files.config)?;
        let context = usize::try_from(manifest.max_context).unwrap_or(usize::MAX);
        let at_least = |member, wanted: String, got: usize| {
            Err(LoadError::ConfigValue { member, wanted: format!("at least {wanted}"), got: got.to_string() })
        };
        if config.context < context {
            return at_least(
                "max_position_embeddings",
                format!("the manifest's max_context {context}"),
                config.context,
            );
        }
        if let Some(eos) = manifest.eos.iter().find(|id| usize::try_from(**id).is_ok_and(|id| id >= config.vocab)) {
            return at_least("vocab_size", format!("the manifest's eos {eos} + 1"), config.vocab);
        }
        let text = Text::parse(files.tokenizer, files.template, config.vocab)?;
        if text.template_len() + 2 > context {
            return Err(LoadError::Template("leaves no room for a prompt in max_context"));
        }
        let graph = Graph::load(config, Weights::parse(files.weights)?, context)?;
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads.get())
            .thread_name(|i| format!("inference-{i}"))
            .build()?;
        pool.broadcast(|_| ()); // all threads have started: the caller may give up the right to start any
        Ok(Self { graph, text, pool, eos: manifest.eos.clone(), context, max_new_tokens: manifest.max_new_tokens })
    }

    /// Answers `prompt` with at most `max_new_tokens` tokens, taking the highest score each time (of equal ones the lowest id).
    ///
    /// `progress` is asked before each piece of work, at most 32 tokens of the prompt or one token of the answer; it
    /// is where the caller keeps a deadline.
    ///
    /// # Errors
    /// [`GenerateError`]; nothing of the prompt or of a partial answer is in it.
    pub fn generate(
        &self,
        prompt: &str,
        max_new_tokens: u32,
        progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Generation, GenerateError> {
        if max_new_tokens == 0 || max_new_tokens > self.max_new_tokens {
            return Err(GenerateError::AnswerLength { max: self.max_new_tokens, got: max_new_tokens });
        }
        let ids = self.prompt_ids(prompt)?;
        let room = (self.context - ids.len()).min(usize::try_from(max_new_tokens).unwrap_or(usize::MAX));
        let mut step = |prompt_tokens: usize, new_tokens: usize| {
            let at = Progress { prompt_tokens: count(prompt_tokens), new_tokens: count(new_tokens) };
            match progress(at) {
                ControlFlow::Continue(()) => Ok(()),
                ControlFlow::Break(()) => Err(GenerateError::Cancelled { new_tokens: at.new_tokens }),
            }
        };

        let mut cache = self.graph.cache(ids.len() + room)?;
        let mut next = None;
        for (i, chunk) in ids.chunks(CHUNK).enumerate() {
            step(i * CHUNK, 0)?;
            next = Some(self.pool.install(|| self.graph.forward(&mut cache, chunk))?);
        }
        // Room for the whole answer from the start: a list that grows leaves copies behind.
        let mut answer = Zeroizing::new(Vec::with_capacity(room));
        let finish = loop {
            let Some(states) = next.take() else { break Finish::Length };
            let id = self.pool.install(|| best(&self.graph.scores(&states)?))?;
            if self.eos.contains(&id) {
                break Finish::EndOfText;
            }
            answer.push(id);
            if answer.len() == room {
                break Finish::Length;
            }
            step(ids.len(), answer.len())?;
            next = Some(self.pool.install(|| self.graph.forward(&mut cache, &[id]))?);
        };
        Ok(Generation {
            text: SecretText(self.text.decode(&answer)?),
            prompt_tokens: count(ids.len()),
            new_tokens: count(answer.len()),
            finish,
        })
    }

    fn prompt_ids(&self, prompt: &str) -> Result<Zeroizing<Vec<u32>>, GenerateError> {
        if prompt.trim().is_empty() {
            return Err(GenerateError::EmptyPrompt);
        }
        let max = self.context - 1;
        // Few tokens are this long: it bounds the tokenizer's work, not the answer.
        let at_least = prompt.len() / TOKEN_BYTES;
        if at_least > max {
            return Err(GenerateError::PromptTooLong { max: count(max), got: count(at_least) });
        }
        let ids = self.text.encode(prompt)?;
        if ids.len() > max {
            return Err(GenerateError::PromptTooLong { max: count(max), got: count(ids.len()) });
        }
        Ok(ids)
    }
}

/// The lowest of the ids with the highest score.
fn best(scores: &Secret) -> Result<u32, GenerateError> {
    let scores = Zeroizing::new(ops::floats(scores)?);
    let mut best = (0, f32::NEG_INFINITY);
    for (id, score) in (0u32..).zip(scores.iter()) {
        if !score.is_finite() {
            return Err(GenerateError::NotFinite);
        }
        if *score > best.1 {
            best = (id, *score);
        }
    }
    Ok(best.0)
}

/// Numbers of tokens, all bounded by a context that is a u32.
fn count(tokens: usize) -> u32 {
    u32::try_from(tokens).unwrap_or(u32::MAX)
}

/// Tokens of a prompt that are read at once.
const CHUNK: usize = 32; // as `generate` says
/// Bytes per token on average beyond which a prompt is not even tokenised.
const TOKEN_BYTES: usize = 64;
