//! What is refused, one test each: packs, models and prompts.

mod tiny;

use blf_evidence::pack;
use blf_inference::GenerateError;
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::json;
use tiny::{Tiny, go_on};

#[test]
fn a_flipped_bit_anywhere_in_the_pack() {
    let mut packed = Tiny::new().pack();
    let bits = packed.len() * 8;
    for bit in (0..64).map(|i| (i * 2_654_435_761_usize) % bits) {
        packed[bit / 8] ^= 1 << (bit % 8);
        assert!(pack::verify(&packed).is_err(), "bit {bit}");
        packed[bit / 8] ^= 1 << (bit % 8);
    }
    assert!(pack::verify(&packed).is_ok());
}

#[test]
fn another_model_has_another_identity() {
    let digest = |tiny: Tiny| pack::verify(&tiny.pack()).unwrap().digest;
    let other = Tiny::with(|tiny| *tiny.weights.last_mut().unwrap() ^= 1);
    assert_ne!(digest(other), digest(Tiny::new()));
}

#[test]
fn an_unknown_architecture() {
    refused(|tiny| tiny.parameters.architecture = "qwen3".into(), "architecture \"qwen3\" is unknown");
}

#[test]
fn an_unknown_numeric_profile() {
    refused(|tiny| tiny.parameters.numeric_profile = "q4-k-m".into(), "numeric profile \"q4-k-m\" is unknown");
}

#[test]
fn a_context_the_network_was_not_made_for() {
    refused(|tiny| tiny.parameters.max_context = 513, "max_position_embeddings is 512, wanted at least");
}

#[test]
fn an_end_token_beyond_the_vocabulary() {
    refused(|tiny| tiny.parameters.eos = vec![2, 1024], "vocab_size is 1024, wanted at least");
}

#[test]
fn an_oversized_configuration() {
    config("\"hidden_size\": 128", "\"hidden_size\": 16385", "hidden_size is 16385, wanted 1 to 16384");
}

#[test]
fn a_configuration_of_another_shape_than_the_weights() {
    config(
        "\"intermediate_size\": 384",
        "\"intermediate_size\": 383",
        "model.layers.0.mlp.gate_proj.weight has shape [384, 128], wanted [383, 128]",
    );
}

#[test]
fn a_layer_too_many_in_the_weights() {
    config("\"num_hidden_layers\": 5", "\"num_hidden_layers\": 4", "does not belong to this network");
}

#[test]
fn a_layer_too_few_in_the_weights() {
    config("\"num_hidden_layers\": 5", "\"num_hidden_layers\": 6", "layers.5.input_layernorm.weight is missing");
}

#[test]
fn a_missing_output_projection() {
    config("\"tie_word_embeddings\": true", "\"tie_word_embeddings\": false", "lm_head.weight is missing");
}

#[test]
fn a_tensor_of_another_shape() {
    tensors(
        |list| replace(list, "model.norm.weight", Dtype::BF16, vec![64], 128),
        "model.norm.weight has shape [64], wanted [128]",
    );
}

#[test]
fn a_tensor_of_another_rank() {
    tensors(
        |list| replace(list, "model.norm.weight", Dtype::BF16, vec![1, 128], 256),
        "model.norm.weight has shape [1, 128], wanted [128]",
    );
}

#[test]
fn a_tensor_of_another_type() {
    tensors(
        |list| replace(list, "model.norm.weight", Dtype::I8, vec![128], 128),
        "model.norm.weight is stored as I8, wanted BF16, F16 or F32",
    );
}

#[test]
fn a_missing_tensor() {
    tensors(|list| list.retain(|(name, ..)| name != "model.norm.weight"), "model.norm.weight is missing");
}

#[test]
fn weights_that_are_not_safetensors() {
    for bytes in [vec![0], vec![0xff; 64], vec![0; 4096], b"\x02\0\0\0\0\0\0\0{}x".to_vec()] {
        refused(|tiny| tiny.weights = bytes, "model.safetensors:");
    }
}

#[test]
fn weights_cut_off() {
    refused(|tiny| tiny.weights.truncate(tiny.weights.len() - 2), "model.safetensors:");
}

#[test]
fn a_tokenizer_with_parts_nobody_looked_at() {
    tokenizer("/pre_tokenizer/type", json!("BertPreTokenizer"), "pre_tokenizer \"BertPreTokenizer\" is not one of");
    tokenizer("/normalizer", json!({"type": "Precompiled"}), "normalizer \"Precompiled\" is not one of");
    tokenizer("/decoder", json!({"type": "Sequence", "decoders": [{"type": "CTC"}]}), "decoder \"CTC\" is not one of");
    tokenizer("/padding", json!({}), "padding is {}, wanted null");
}

#[test]
fn a_tokenizer_of_another_kind() {
    tokenizer("/model/type", json!("Unigram"), "model type is \"Unigram\", wanted \"BPE\"");
}

#[test]
fn a_tokenizer_that_drops_merges_by_chance() {
    tokenizer("/model/dropout", json!(0.1), "dropout is 0.1, wanted null");
}

#[test]
fn a_tokenizer_larger_than_the_vocabulary() {
    tokenizer("/model/vocab/!", json!(1024), "token id 1024, wanted less than vocab_size 1024");
}

#[test]
fn a_template_without_one_place_for_the_prompt() {
    for template in ["no place", "{prompt}{prompt}", "\u{fffd}"] {
        refused(|tiny| tiny.template = template.into(), "template.txt: wanted");
    }
    refused(|tiny| tiny.template = vec![0xff], "template.txt: wanted UTF-8");
}

#[test]
fn a_template_that_fills_the_context() {
    let long = format!("{}{{prompt}}", "1 ".repeat(600));
    refused(|tiny| tiny.template = long.into(), "template.txt: leaves no room");
}

#[test]
fn weights_that_compute_no_number() {
    let tiny = Tiny::with(|tiny| {
        let start = tiny.weights.len() - 256; // the last tensor is model.norm.weight
        tiny.weights[start..start + 2].copy_from_slice(&0x7fc0_u16.to_le_bytes());
    });
    let answer = tiny.load(1).unwrap().generate("What is a TEE?", 8, &mut go_on);
    assert!(matches!(answer, Err(GenerateError::NotFinite)));
}

#[test]
fn an_empty_prompt() {
    let model = Tiny::new().load(1).unwrap();
    for prompt in ["", " ", "\n\t"] {
        assert!(matches!(model.generate(prompt, 8, &mut go_on), Err(GenerateError::EmptyPrompt)));
    }
}

#[test]
fn a_prompt_longer_than_the_context() {
    let model =
        Tiny::with(|tiny| (tiny.parameters.max_context, tiny.parameters.max_new_tokens) = (64, 8)).load(1).unwrap();
    let tokens = |prompt: &str| match model.generate(prompt, 1, &mut go_on) {
        Ok(answer) => answer.prompt_tokens,
        Err(GenerateError::PromptTooLong { max: 63, got }) => got,
        Err(other) => panic!("{other}"),
    };
    let template = tokens("?") - 1;
    for count in 50..70 {
        // Two tokens that never merge, so the count is known.
        let prompt: String = "?\n".chars().cycle().take(count).collect();
        let wanted = template + u32::try_from(count).unwrap();
        assert_eq!(tokens(&prompt), wanted);
        assert_eq!(model.generate(&prompt, 1, &mut go_on).is_ok(), wanted <= 63, "{wanted}");
    }
}

#[test]
fn a_prompt_too_large_to_look_at() {
    let model = Tiny::new().load(1).unwrap();
    let refused = model.generate(&"a".repeat(1 << 24), 8, &mut go_on);
    assert!(matches!(refused, Err(GenerateError::PromptTooLong { max: 511, got: 262_144 })));
}

#[test]
fn more_tokens_than_the_manifest_allows_or_none() {
    let model = Tiny::new().load(1).unwrap();
    for wanted in [0, 129, u32::MAX] {
        let refused = model.generate("What is a TEE?", wanted, &mut go_on);
        assert!(matches!(refused, Err(GenerateError::AnswerLength { max: 128, got }) if got == wanted));
    }
}

#[test]
fn damaged_files_never_bring_the_engine_down() {
    let mut chance = Chance(1);
    let (mut loaded, mut refused) = (0, 0);
    for round in 0..240 {
        let tiny = Tiny::with(|tiny| {
            let file = match round % 3 {
                0 => &mut tiny.config,
                1 => &mut tiny.tokenizer,
                _ => &mut tiny.weights,
            };
            let reach = file.len().min(if round % 3 == 2 { 4096 } else { usize::MAX }); // of the weights, the header
            for _ in 0..=chance.below(3) {
                let at = chance.below(reach);
                match chance.below(4) {
                    0 => file[at] ^= 1 << chance.below(8),
                    1 => file[at] = b"0123456789-[]{}\":,.e "[chance.below(21)],
                    2 => drop(file.remove(at)),
                    _ => file.insert(at, b'9'),
                }
            }
        });
        match tiny.load(1) {
            Ok(model) => {
                loaded += 1;
                let _ = model.generate("What is a TEE? <|end|> \u{1f999}", 4, &mut go_on);
            }
            Err(_) => refused += 1,
        }
    }
    assert!(loaded > 0 && refused > 100, "{loaded} loaded, {refused} refused");
}

/// The model with `change` made to it is refused with a message that has `wanted` in it.
fn refused(change: impl FnOnce(&mut Tiny), wanted: &str) {
    let refused = Tiny::with(change).load(1).err().expect("was loaded").to_string();
    assert!(refused.contains(wanted), "wanted {wanted}, got {refused}");
}

fn config(from: &str, to: &str, wanted: &str) {
    refused(|tiny| tiny.config = replaced(&tiny.config, from, to), wanted);
}

/// The tokenizer with another value at `pointer` (RFC 6901).
fn tokenizer(pointer: &str, value: serde_json::Value, wanted: &str) {
    let mut file: serde_json::Value = serde_json::from_slice(&Tiny::new().tokenizer).unwrap();
    *file.pointer_mut(pointer).unwrap() = value;
    refused(|tiny| tiny.tokenizer = file.to_string().into(), wanted);
}

fn replaced(bytes: &[u8], from: &str, to: &str) -> Vec<u8> {
    let text = std::str::from_utf8(bytes).unwrap();
    assert!(text.contains(from), "{from}");
    text.replacen(from, to, 1).into()
}

type Tensor = (String, Dtype, Vec<usize>, Vec<u8>);

/// The weights written again, with `change` made to the list of tensors.
fn tensors(change: impl FnOnce(&mut Vec<Tensor>), wanted: &str) {
    let rewrite = |weights: &[u8]| {
        let file = SafeTensors::deserialize(weights).unwrap();
        let tensor =
            |(name, view): (String, TensorView<'_>)| (name, view.dtype(), view.shape().to_vec(), view.data().to_vec());
        let mut list: Vec<Tensor> = file.tensors().into_iter().map(tensor).collect();
        change(&mut list);
        let views = list
            .iter()
            .map(|(name, dtype, shape, data)| (name.clone(), TensorView::new(*dtype, shape.clone(), data).unwrap()));
        safetensors::serialize(views, None).unwrap()
    };
    refused(|tiny| tiny.weights = rewrite(&tiny.weights), wanted);
}

fn replace(list: &mut [Tensor], name: &str, dtype: Dtype, shape: Vec<usize>, len: usize) {
    let tensor = list.iter_mut().find(|tensor| tensor.0 == name).unwrap();
    *tensor = (name.into(), dtype, shape, vec![0; len]);
}

/// A small generator (Knuth's MMIX constants), so that every run damages the same places.
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % limit
    }
}
