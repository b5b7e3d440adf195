#![no_main]
use std::num::NonZeroUsize;

use blf_evidence::pack::{ARCHITECTURE_LLAMA, Content, Manifest, NUMERIC_PROFILE_F32, Parameters};
use blf_inference::{Files, Model};

// The committed model with one of its files replaced: the first byte says which, the rest is the file.
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((which, file)) = data.split_first() else { return };
    let mut files = [
        &include_bytes!("../../models/blf-tiny-1/config.json")[..],
        include_bytes!("../../models/blf-tiny-1/tokenizer.json"),
        include_bytes!("../../models/blf-tiny-1/template.txt"),
        include_bytes!("../../models/blf-tiny-1/model.safetensors"),
    ];
    files[usize::from(*which) % 4] = file;
    let parameters = Parameters {
        id: "blf-tiny-1".into(),
        architecture: ARCHITECTURE_LLAMA.into(),
        numeric_profile: NUMERIC_PROFILE_F32.into(),
        max_context: 512,
        max_new_tokens: 128,
        eos: vec![2],
    };
    // The engine gets only packs whose digests match; what is in the files is another matter.
    let Ok(manifest) = Manifest::new(
        parameters,
        files.map(|file| Content { size: file.len() as u64, sha256: blf_evidence::Hex([0; 32]) }),
    ) else {
        return;
    };
    let [config, tokenizer, template, weights] = files;
    let _ = Model::load(&manifest, Files { config, tokenizer, template, weights }, NonZeroUsize::MIN);
});
