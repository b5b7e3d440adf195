//! Packs a model's folder in memory, verifies the pack, loads it and answers one prompt: the whole path of a model in one place.
//!
//! `cargo run -p blf-inference --example answer -- tests/models/blf-tiny-1 "What is a TEE?"`

use std::error::Error;
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use blf_evidence::pack::{self, FileName, Parameters};
use blf_inference::{Files, Model, NUMERIC_PROFILE};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(folder), Some(prompt)) = (arguments.next(), arguments.next()) else {
        return Err("usage: answer FOLDER PROMPT [THREADS]".into());
    };
    let threads = arguments.next().map_or(Ok(NonZeroUsize::MIN), |threads| threads.parse())?;

    let files = FileName::ALL.map(|name| std::fs::read(format!("{folder}/{}", name.as_str())));
    let [config, tokenizer, template, weights] = files;
    let parameters = Parameters {
        id: "example".into(),
        architecture: pack::ARCHITECTURE_LLAMA.into(),
        numeric_profile: NUMERIC_PROFILE.into(),
        max_context: 512,
        max_new_tokens: 128,
        eos: vec![2],
    };
    let mut packed = Vec::new();
    pack::write(&mut packed, parameters, [&config?, &tokenizer?, &template?, &weights?])?;

    let header = pack::verify(&packed)?;
    println!("model {} {}", header.manifest.id, header.digest);
    let began = Instant::now();
    let model = Model::load(&header.manifest, Files::of(&header, &packed)?, threads)?;
    println!("loaded in {:?}", began.elapsed());

    let began = Instant::now();
    let answer = model.generate(&prompt, header.manifest.max_new_tokens, &mut |_| {
        if began.elapsed() < Duration::from_secs(60) { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    println!("{}", answer.text.expose());
    println!(
        "{} + {} tokens in {:?}, ended by {:?}",
        answer.prompt_tokens,
        answer.new_tokens,
        began.elapsed(),
        answer.finish
    );
    Ok(())
}
