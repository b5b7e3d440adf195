//! The shape of the network: `config.json`, closed and bounded.

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::error::LoadError;

/// Numbers that fix every tensor's shape; all within the limits below, so that no product of them overflows.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Config {
    pub(crate) hidden: usize,
    pub(crate) intermediate: usize,
    pub(crate) layers: usize,
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) head_dim: usize,
    pub(crate) vocab: usize,
    /// Longest context the network was made for, in tokens.
    pub(crate) context: usize,
    pub(crate) norm_eps: f32,
    pub(crate) rope_theta: f64,
    pub(crate) rope_scaling: Option<RopeScaling>,
    /// The output projection is the embedding table.
    pub(crate) tied: bool,
}

/// Llama 3's stretching of low frequencies (`rope_type` "llama3").
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct RopeScaling {
    pub(crate) factor: f64,
    pub(crate) low_freq_factor: f64,
    pub(crate) high_freq_factor: f64,
    pub(crate) original_context: f64,
}

impl Config {
    /// Reads Hugging Face's `config.json` of a `LlamaForCausalLM`. Members that change the arithmetic must have the value that
    /// is computed here, those that do not are listed and passed over, all others are refused.
    pub(crate) fn parse(json: &[u8]) -> Result<Self, LoadError> {
        let file: ConfigFile = serde_json::from_slice(json).map_err(LoadError::Config)?;
        fixed("model_type", "llama", &file.model_type)?;
        fixed("hidden_act", "silu", file.hidden_act.as_deref().unwrap_or("silu"))?;
        fixed("attention_bias", "false", if file.attention_bias { "true" } else { "false" })?;
        fixed("mlp_bias", "false", if file.mlp_bias { "true" } else { "false" })?;
        let hidden = within("hidden_size", file.hidden_size, 16_384)?;
        let heads = within("num_attention_heads", file.num_attention_heads, 256)?;
        let kv_heads =
            within("num_key_value_heads", file.num_key_value_heads.unwrap_or(file.num_attention_heads), heads)?;
        let head_dim = within("head_dim", file.head_dim.unwrap_or(hidden / heads), 512)?;
        if !heads.is_multiple_of(kv_heads) {
            return Err(value("num_key_value_heads", "a divisor of num_attention_heads", kv_heads));
        }
        if !head_dim.is_multiple_of(2) {
            return Err(value("head_dim", "an even number", head_dim));
        }
        let (nested, scaling) = match (&file.rope_scaling, &file.rope_parameters) {
            (Some(_), Some(_)) => return Err(value("rope_scaling", "to be there only once", "twice")),
            (rope, None) | (None, rope) => (rope.as_ref().and_then(|rope| rope.rope_theta), rope.as_ref()),
        };
        Ok(Self {
            hidden,
            intermediate: within("intermediate_size", file.intermediate_size, 131_072)?,
            layers: within("num_hidden_layers", file.num_hidden_layers, 256)?,
            heads,
            kv_heads,
            head_dim,
            vocab: within("vocab_size", file.vocab_size, 1 << 20)?,
            context: within("max_position_embeddings", file.max_position_embeddings, CONTEXT_MAX)?,
            norm_eps: Some(file.rms_norm_eps)
                .filter(|eps| (1e-12..=1e-2).contains(eps))
                .ok_or_else(|| value("rms_norm_eps", "1e-12 to 0.01", file.rms_norm_eps))?,
            rope_theta: real("rope_theta", nested.or(file.rope_theta).unwrap_or(10_000.0), 1.0, 1e12)?,
            rope_scaling: scaling.map(Rope::scaling).transpose()?.flatten(),
            tied: file.tie_word_embeddings,
        })
    }
}

/// The members of the file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ConfigFile {
    model_type: String,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    vocab_size: usize,
    max_position_embeddings: usize,
    rms_norm_eps: f32,
    rope_theta: Option<f64>,
    rope_scaling: Option<Rope>,
    rope_parameters: Option<Rope>,
    #[serde(default)]
    tie_word_embeddings: bool,
    hidden_act: Option<String>,
    #[serde(default)]
    attention_bias: bool,
    #[serde(default)]
    mlp_bias: bool,
    // Below: of no effect on the arithmetic of one greedy answer.
    #[serde(rename = "architectures")]
    _architectures: Option<IgnoredAny>,
    #[serde(rename = "attention_dropout")]
    _attention_dropout: Option<IgnoredAny>,
    #[serde(rename = "bos_token_id")]
    _bos_token_id: Option<IgnoredAny>,
    #[serde(rename = "dtype")]
    _dtype: Option<IgnoredAny>,
    #[serde(rename = "eos_token_id")]
    _eos_token_id: Option<IgnoredAny>, // the manifest's list counts
    #[serde(rename = "initializer_range")]
    _initializer_range: Option<IgnoredAny>,
    #[serde(rename = "pad_token_id")]
    _pad_token_id: Option<IgnoredAny>,
    #[serde(rename = "pretraining_tp")]
    _pretraining_tp: Option<IgnoredAny>,
    #[serde(rename = "torch_dtype")]
    _torch_dtype: Option<IgnoredAny>, // each tensor states its own
    #[serde(rename = "transformers_version")]
    _transformers_version: Option<IgnoredAny>,
    #[serde(rename = "use_cache")]
    _use_cache: Option<IgnoredAny>,
}

/// `rope_scaling`, and `rope_parameters` as newer files call it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rope {
    rope_type: String,
    rope_theta: Option<f64>,
    factor: Option<f64>,
    low_freq_factor: Option<f64>,
    high_freq_factor: Option<f64>,
    original_max_position_embeddings: Option<f64>,
}

impl Rope {
    fn scaling(&self) -> Result<Option<RopeScaling>, LoadError> {
        match self.rope_type.as_str() {
            "default" => Ok(None),
            "llama3" => {
                let get = |member, value: Option<f64>, max| real(member, value.unwrap_or(0.0), 1.0, max);
                let scaling = RopeScaling {
                    factor: get("factor", self.factor, 1024.0)?,
                    low_freq_factor: get("low_freq_factor", self.low_freq_factor, 1024.0)?,
                    high_freq_factor: get("high_freq_factor", self.high_freq_factor, 1024.0)?,
                    original_context: get(
                        "original_max_position_embeddings",
                        self.original_max_position_embeddings,
                        1e6,
                    )?,
                };
                if scaling.high_freq_factor <= scaling.low_freq_factor {
                    return Err(value("high_freq_factor", "more than low_freq_factor", scaling.high_freq_factor));
                }
                Ok(Some(scaling))
            }
            other => Err(value("rope_type", "default or llama3", other.chars().take(64).collect::<String>())),
        }
    }
}

fn within(member: &'static str, got: usize, max: usize) -> Result<usize, LoadError> {
    if got == 0 || got > max { Err(value(member, format!("1 to {max}"), got)) } else { Ok(got) }
}

fn real(member: &'static str, got: f64, min: f64, max: f64) -> Result<f64, LoadError> {
    if (min..=max).contains(&got) { Ok(got) } else { Err(value(member, format!("{min} to {max}"), got)) }
}

fn fixed(member: &'static str, wanted: &str, got: &str) -> Result<(), LoadError> {
    if got == wanted { Ok(()) } else { Err(value(member, wanted, got.chars().take(64).collect::<String>())) }
}

fn value(member: &'static str, wanted: impl ToString, got: impl ToString) -> LoadError {
    LoadError::ConfigValue { member, wanted: wanted.to_string(), got: got.to_string() }
}

/// Bounds the table of rotary angles.
const CONTEXT_MAX: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_model_s_shape() {
        let config = Config::parse(TINY).unwrap();
        assert_eq!((config.hidden, config.layers, config.heads, config.kv_heads), (128, 5, 4, 2));
        assert!(config.tied);
        assert_eq!(config.norm_eps, 1e-5);
    }

    #[test]
    fn a_value_we_do_not_compute_with_is_refused_by_name() {
        let text = std::str::from_utf8(TINY).unwrap();
        for (from, to, wanted) in [
            ("\"llama\"", "\"qwen3\"", "model_type is qwen3, wanted llama"),
            ("\"silu\"", "\"gelu\"", "hidden_act is gelu"),
            ("\"attention_bias\": false", "\"attention_bias\": true", "attention_bias is true"),
            ("\"mlp_bias\": false", "\"mlp_bias\": true", "mlp_bias is true"),
            (
                "\"hidden_size\": 128",
                "\"hidden_size\": 1000000000000",
                "hidden_size is 1000000000000, wanted 1 to 16384",
            ),
            ("\"num_hidden_layers\": 5", "\"num_hidden_layers\": 0", "num_hidden_layers is 0"),
            ("\"vocab_size\": 1024", "\"vocab_size\": 1048577", "vocab_size is 1048577"),
            ("\"num_key_value_heads\": 2", "\"num_key_value_heads\": 3", "num_key_value_heads is 3"),
            ("\"head_dim\": 32", "\"head_dim\": 33", "head_dim is 33"),
            ("\"rms_norm_eps\": 1e-05", "\"rms_norm_eps\": 0", "rms_norm_eps is 0"),
            ("\"rope_theta\": 10000.0", "\"rope_theta\": -1", "rope_theta is -1"),
            ("\"rope_scaling\": null", "\"rope_scaling\": {\"rope_type\": \"yarn\"}", "rope_type is yarn"),
            ("\"mlp_bias\": false", "\"quantization_config\": {}", "unknown field `quantization_config`"),
            ("\"mlp_bias\": false", "\"head_dim\": 32", "duplicate field `head_dim`"),
            ("\"hidden_size\": 128", "\"hidden_size\": -1", "invalid value"),
        ] {
            assert!(text.contains(from), "{from}");
            let refused = Config::parse(text.replacen(from, to, 1).as_bytes()).unwrap_err().to_string();
            assert!(refused.contains(wanted), "wanted {wanted}, got {refused}");
        }
    }

    const TINY: &[u8] = include_bytes!("../../../tests/models/blf-tiny-1/config.json");
}
