//! Why a model is refused and why there is no answer. Nothing here carries a part of a prompt or an answer.

/// Why a model cannot be loaded: whoever made the pack must know.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The pack is for another kind of network.
    #[error("model: architecture {got:?} is unknown, wanted \"llama\"")]
    Architecture {
        /// Architecture in the manifest.
        got: String,
    },
    /// `config.json` is not JSON, or has a member that is unknown, missing or of the wrong type.
    #[error("config.json: {0}")]
    Config(#[source] serde_json::Error),
    /// A member of `config.json` has a value this engine does not compute with.
    #[error("config.json: {member} is {got}, wanted {wanted}")]
    ConfigValue {
        /// The member.
        member: &'static str,
        /// What would be right.
        wanted: String,
        /// What is there.
        got: String,
    },
    /// A tensor could not be made.
    #[error("model: {0}")]
    Engine(#[from] candle_core::Error),
    /// The pack's header and its bytes do not belong together.
    #[error("model: pack ends before {name}")]
    Missing {
        /// File that is not there.
        name: &'static str,
    },
    /// The pack is for another arithmetic.
    #[error("model: numeric profile {got:?} is unknown, wanted {wanted:?}")]
    NumericProfile {
        /// Ours.
        wanted: &'static str,
        /// Profile in the manifest.
        got: String,
    },
    /// `template.txt` is not text with one `{{prompt}}`, or leaves no room for a prompt.
    #[error("template.txt: {0}")]
    Template(&'static str),
    /// A tensor of the network is not there.
    #[error("model.safetensors: {name} is missing")]
    TensorMissing {
        /// Its name.
        name: String,
    },
    /// A tensor has another shape than `config.json` gives it.
    #[error("model.safetensors: {name} has shape {got:?}, wanted {wanted:?}")]
    TensorShape {
        /// Its name.
        name: String,
        /// Shape by `config.json`.
        wanted: Vec<usize>,
        /// Shape in the file.
        got: Vec<usize>,
    },
    /// A tensor is stored in a format we do not compute with.
    #[error("model.safetensors: {name} is stored as {got}, wanted BF16, F16 or F32")]
    TensorType {
        /// Its name.
        name: String,
        /// Its format.
        got: String,
    },
    /// A tensor that the network does not have.
    #[error("model.safetensors: {name} does not belong to this network")]
    TensorUnknown {
        /// Its name, shortened.
        name: String,
    },
    /// The thread pool could not be started.
    #[error("model: no threads: {0}")]
    Threads(#[from] rayon::ThreadPoolBuildError),
    /// `tokenizer.json` cannot be read, or has a part that is not on the list of known ones.
    #[error("tokenizer.json: {0}")]
    Tokenizer(String),
    /// `model.safetensors` is not a safetensors file.
    #[error("model.safetensors: {0}")]
    Weights(String),
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum GenerateError {
    /// More tokens are asked for than the manifest allows, or none.
    #[error("answer: wanted 1 to {max} new tokens, got {got}")]
    AnswerLength {
        /// Limit of the manifest.
        max: u32,
        /// What was asked for.
        got: u32,
    },
    /// The caller's progress function said to stop.
    #[error("answer: stopped by the caller after {new_tokens} tokens")]
    Cancelled {
        /// Tokens made until then.
        new_tokens: u32,
    },
    /// Nothing was asked.
    #[error("prompt: empty")]
    EmptyPrompt,
    /// An operation failed; the message names it and never its operands.
    #[error("engine: {0}")]
    Engine(#[from] candle_core::Error),
    /// The network computed something that is not a finite number.
    #[error("engine: a score is not a finite number")]
    NotFinite,
    /// The prompt leaves no room for an answer.
    #[error("prompt: wanted at most {max} tokens, got {got}")]
    PromptTooLong {
        /// Tokens of prompt and template that fit.
        max: u32,
        /// Tokens there are, or a lower bound of them.
        got: u32,
    },
    /// The tokenizer failed.
    #[error("tokenizer: failed")]
    Tokenizer,
}
