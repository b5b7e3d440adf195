//! The committed model, as it is or with one thing changed.

use std::num::NonZeroUsize;
use std::ops::ControlFlow;

use blf_evidence::pack::{self, Parameters};
use blf_inference::{Files, LoadError, Model, NUMERIC_PROFILE, Progress};

/// What a pack of the model is made from.
pub(crate) struct Tiny {
    pub(crate) parameters: Parameters,
    pub(crate) config: Vec<u8>,
    pub(crate) tokenizer: Vec<u8>,
    pub(crate) template: Vec<u8>,
    pub(crate) weights: Vec<u8>,
}

impl Tiny {
    pub(crate) fn new() -> Self {
        Self {
            parameters: Parameters {
                id: "blf-tiny-1".into(),
                architecture: pack::ARCHITECTURE_LLAMA.into(),
                numeric_profile: NUMERIC_PROFILE.into(),
                max_context: 512,
                max_new_tokens: 128,
                eos: vec![2],
            },
            config: include_bytes!("../../../../tests/models/blf-tiny-1/config.json").to_vec(),
            tokenizer: include_bytes!("../../../../tests/models/blf-tiny-1/tokenizer.json").to_vec(),
            template: include_bytes!("../../../../tests/models/blf-tiny-1/template.txt").to_vec(),
            weights: include_bytes!("../../../../tests/models/blf-tiny-1/model.safetensors").to_vec(),
        }
    }

    /// The model with `change` made to it.
    pub(crate) fn with(change: impl FnOnce(&mut Self)) -> Self {
        let mut tiny = Self::new();
        change(&mut tiny);
        tiny
    }

    pub(crate) fn pack(&self) -> Vec<u8> {
        let mut packed = Vec::new();
        let files = [&*self.config, &*self.tokenizer, &*self.template, &*self.weights];
        pack::write(&mut packed, self.parameters.clone(), files).unwrap();
        packed
    }

    /// Packs, verifies and loads.
    pub(crate) fn load(&self, threads: usize) -> Result<Model, LoadError> {
        let packed = self.pack();
        let header = pack::verify(&packed).unwrap();
        Model::load(&header.manifest, Files::of(&header, &packed)?, NonZeroUsize::new(threads).unwrap())
    }
}

/// Never stops.
pub(crate) fn go_on(_: Progress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}
