//! The network: Llama's layers over the operations of `ops.rs`.

use std::ops::Deref;

use candle_core::{DType, Device, Tensor};

use crate::config::Config;
use crate::error::LoadError;
use crate::ops;
use crate::weights::Weights;

/// A network with its weights; shared by all jobs.
pub(crate) struct Graph {
    embedding: Tensor,
    layers: Vec<Layer>,
    norm: Tensor,
    /// Output projection, where it is not the embedding.
    head: Option<Tensor>,
    /// Rotary angles: [context, head_dim], cosines, then sines.
    angles: Tensor,
    config: Config,
}

struct Layer {
    attention_norm: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    o: Tensor,
    mlp_norm: Tensor,
    gate: Tensor,
    up: Tensor,
    down: Tensor,
}

/// Keys and values of one job's tokens; wiped when the job ends.
pub(crate) struct Cache {
    /// Per layer: keys and values, [capacity, kv_heads · head_dim].
    layers: Vec<(Secret, Secret)>,
    /// Tokens in it.
    position: usize,
}

/// A tensor computed from a prompt: wiped when dropped. Views of it must end before.
pub(crate) struct Secret(Tensor);

impl Graph {
    /// Takes every tensor of the network; `context` is the longest one that will be asked for.
    pub(crate) fn load(config: Config, mut weights: Weights<'_>, context: usize) -> Result<Self, LoadError> {
        let (hidden, inner) = (config.hidden, config.intermediate);
        let (q_width, kv_width) = (config.heads * config.head_dim, config.kv_heads * config.head_dim);
        let w = &mut weights;
        let layer = |w: &mut Weights<'_>, i: usize| -> Result<Layer, LoadError> {
            let name = |part: &str| format!("model.layers.{i}.{part}.weight");
            Ok(Layer {
                attention_norm: w.vector(&name("input_layernorm"), hidden)?,
                q: w.matrix(&name("self_attn.q_proj"), q_width, hidden)?,
                k: w.matrix(&name("self_attn.k_proj"), kv_width, hidden)?,
                v: w.matrix(&name("self_attn.v_proj"), kv_width, hidden)?,
                o: w.matrix(&name("self_attn.o_proj"), hidden, q_width)?,
                mlp_norm: w.vector(&name("post_attention_layernorm"), hidden)?,
                gate: w.matrix(&name("mlp.gate_proj"), inner, hidden)?,
                up: w.matrix(&name("mlp.up_proj"), inner, hidden)?,
                down: w.matrix(&name("mlp.down_proj"), hidden, inner)?,
            })
        };
        let graph = Self {
            embedding: w.matrix("model.embed_tokens.weight", config.vocab, hidden)?,
            layers: (0..config.layers).map(|i| layer(w, i)).collect::<Result<_, _>>()?,
            norm: w.vector("model.norm.weight", hidden)?,
            head: if config.tied { None } else { Some(w.matrix("lm_head.weight", config.vocab, hidden)?) },
            angles: angles(&config, context)?,
            config,
        };
        weights.finish()?;
        Ok(graph)
    }

    /// Room for `capacity` tokens.
    pub(crate) fn cache(&self, capacity: usize) -> candle_core::Result<Cache> {
        let zeros = || {
            let shape = (capacity, self.config.kv_heads * self.config.head_dim);
            Tensor::zeros(shape, DType::F32, &Device::Cpu).map(Secret)
        };
        let layers = (0..self.layers.len()).map(|_| Ok((zeros()?, zeros()?))).collect::<candle_core::Result<_>>()?;
        Ok(Cache { layers, position: 0 })
    }

    /// Runs the layers over the next tokens and gives their last states, one row each. How a text is cut into calls does not
    /// change a bit of it.
    pub(crate) fn forward(&self, cache: &mut Cache, ids: &[u32]) -> candle_core::Result<Secret> {
        let (eps, position) = (self.config.norm_eps, cache.position);
        let mut x = Secret(ops::embed(&self.embedding, ids)?);
        for (layer, (keys, values)) in self.layers.iter().zip(&cache.layers) {
            let normed = Secret(ops::rms_norm(&x, &layer.attention_norm, eps)?);
            let k = Secret(ops::linear(&normed, &layer.k)?);
            keys.slice_set(&Secret(ops::rope(&k, &self.angles, position)?), 0, position)?;
            values.slice_set(&Secret(ops::linear(&normed, &layer.v)?), 0, position)?;
            let q = Secret(ops::linear(&normed, &layer.q)?);
            let q = Secret(ops::rope(&q, &self.angles, position)?);
            let mixed = Secret(ops::attend(&q, keys, values, self.config.head_dim, position)?);
            x = Secret(ops::add(&x, &Secret(ops::linear(&mixed, &layer.o)?))?);

            let normed = Secret(ops::rms_norm(&x, &layer.mlp_norm, eps)?);
            let (gate, up) = (Secret(ops::linear(&normed, &layer.gate)?), Secret(ops::linear(&normed, &layer.up)?));
            let inner = Secret(ops::swiglu(&gate, &up)?);
            x = Secret(ops::add(&x, &Secret(ops::linear(&inner, &layer.down)?))?);
        }
        cache.position += ids.len();
        Ok(x)
    }

    /// Scores of every token of the vocabulary after the last of `states`.
    pub(crate) fn scores(&self, states: &Secret) -> candle_core::Result<Secret> {
        let last = states.narrow(0, states.dim(0)?.saturating_sub(1), 1)?;
        let normed = Secret(ops::rms_norm(&last, &self.norm, self.config.norm_eps)?);
        ops::linear(&normed, self.head.as_ref().unwrap_or(&self.embedding)).map(Secret)
    }
}

impl Deref for Secret {
    type Target = Tensor;

    fn deref(&self) -> &Tensor {
        &self.0
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        // Fails only for what is not float32 or not on the CPU, and nothing here is either.
        let _ = ops::wipe(&self.0);
    }
}

/// Rotary angles as transformers computes them: inverse frequencies and their products with the position in float32.
#[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss)] // the rounding that is wanted; integers below 2^24
fn angles(config: &Config, context: usize) -> candle_core::Result<Tensor> {
    let half = config.head_dim / 2;
    let frequencies: Vec<f32> = (0..half)
        .map(|i| {
            let frequency = 1.0 / libm::pow(config.rope_theta, i as f64 / half as f64);
            let Some(scaling) = config.rope_scaling else { return frequency as f32 };
            let turns = scaling.original_context * frequency / std::f64::consts::TAU;
            let smooth = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor);
            let smooth = smooth.clamp(0.0, 1.0);
            ((1.0 - smooth) * frequency / scaling.factor + smooth * frequency) as f32
        })
        .collect();
    let mut table = Vec::with_capacity(context * config.head_dim);
    for position in 0..context {
        let angle = |frequency: &f32| position as f32 * *frequency;
        table.extend(frequencies.iter().map(|frequency| libm::cosf(angle(frequency))));
        table.extend(frequencies.iter().map(|frequency| libm::sinf(angle(frequency))));
    }
    Tensor::from_vec(table, (context, config.head_dim), &Device::Cpu)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_s_memory_is_wiped_when_it_is_dropped() {
        let secret = Secret(Tensor::from_vec(vec![1.5f32; 64], (8, 8), &Device::Cpu).unwrap());
        let window = secret.0.clone(); // the same memory
        assert_eq!(ops::floats(&window).unwrap(), [1.5; 64]);
        drop(secret);
        assert_eq!(ops::floats(&window).unwrap(), [0.0; 64]);
    }

    #[test]
    fn a_cut_of_the_text_and_a_number_of_threads_change_no_bit() {
        let graph = Graph::load(Config::parse(CONFIG).unwrap(), Weights::parse(WEIGHTS).unwrap(), 512).unwrap();
        let ids: Vec<u32> = (0..131).map(|i| (i * i * 37 + 11) % 1024).collect();
        let run = |threads: usize, chunk: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let mut cache = graph.cache(ids.len()).unwrap();
                let mut states = Vec::new();
                let mut scores = Vec::new();
                for chunk in ids.chunks(chunk) {
                    let rows = graph.forward(&mut cache, chunk).unwrap();
                    scores = bits(&graph.scores(&rows).unwrap());
                    states.extend(bits(&rows));
                }
                (states, scores)
            })
        };
        let whole = run(1, ids.len());
        for (threads, chunk) in [(1, 1), (2, 131), (3, 131), (4, 131), (2, 1), (4, 1), (2, 7), (3, 32), (4, 64)] {
            assert!(run(threads, chunk) == whole, "{threads} threads, chunks of {chunk}");
        }
    }

    #[test]
    fn a_second_program_computes_the_same_scores() {
        let graph = Graph::load(Config::parse(CONFIG).unwrap(), Weights::parse(WEIGHTS).unwrap(), 512).unwrap();
        let reference: Vec<Reference> = serde_json::from_slice(REFERENCE).unwrap();
        assert!(reference.len() >= 5);
        for Reference { prompt, ids, scores: wanted } in reference {
            let mut cache = graph.cache(ids.len()).unwrap();
            let scores = graph.scores(&graph.forward(&mut cache, &ids).unwrap()).unwrap();
            let scores = ops::floats(&scores).unwrap();
            assert_eq!(scores.len(), wanted.len());
            let far =
                scores.iter().zip(&wanted).map(|(got, wanted)| (f64::from(*got) - wanted).abs()).fold(0.0, f64::max);
            assert!(far <= 5e-5, "{prompt}: {far}");
        }
    }

    #[test]
    fn llama_3_s_frequencies_are_stretched_as_published() {
        let scaling = crate::config::RopeScaling {
            factor: 32.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_context: 8192.0,
        };
        let mut config = Config::parse(CONFIG).unwrap();
        (config.rope_theta, config.head_dim) = (500_000.0, 64);
        let plain = ops::floats(&angles(&config, 2).unwrap()).unwrap();
        config.rope_scaling = Some(scaling);
        let stretched = ops::floats(&angles(&config, 2).unwrap()).unwrap();
        // Sines of position 1, which are nearly the frequencies: the first as they were, the last divided by 32, one in between.
        let sine = |table: &[f32], i: usize| table[64 + 32 + i];
        assert_eq!(sine(&plain, 0), sine(&stretched, 0));
        assert!((sine(&plain, 31) / sine(&stretched, 31) - 32.0).abs() < 1e-3);
        let middle = sine(&plain, 16) / sine(&stretched, 16);
        assert!(middle > 1.0 && middle < 32.0, "{middle}");
    }

    fn bits(x: &Tensor) -> Vec<u32> {
        ops::floats(x).unwrap().into_iter().map(f32::to_bits).collect()
    }

    #[derive(serde::Deserialize)]
    struct Reference {
        prompt: String,
        ids: Vec<u32>,
        scores: Vec<f64>,
    }

    const CONFIG: &[u8] = include_bytes!("../../../tests/models/blf-tiny-1/config.json");
    const WEIGHTS: &[u8] = include_bytes!("../../../tests/models/blf-tiny-1/model.safetensors");
    const REFERENCE: &[u8] = include_bytes!("../../../tests/models/blf-tiny-1/reference.json");
}
