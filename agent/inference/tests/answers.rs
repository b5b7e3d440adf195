//! What the committed model answers, and that it is always the same.

mod tiny;

use std::ops::ControlFlow;

use blf_inference::{Finish, GenerateError, Progress};
use tiny::{Tiny, go_on};

#[test]
fn it_answers_what_it_was_trained_on() {
    let model = Tiny::new().load(1).unwrap();
    for (prompt, wanted) in GOLDEN {
        let answer = model.generate(prompt, 128, &mut go_on).unwrap();
        assert_eq!(answer.text.expose(), wanted, "{prompt}");
        assert_eq!(answer.finish, Finish::EndOfText);
    }
}

#[test]
fn a_second_program_answers_the_same() {
    let model = Tiny::new().load(2).unwrap();
    let reference = include_bytes!("../../../tests/models/blf-tiny-1/reference.json");
    let reference: Vec<serde_json::Value> = serde_json::from_slice(reference).unwrap();
    assert!(reference.len() >= 5);
    for entry in reference {
        let answer = model.generate(entry["prompt"].as_str().unwrap(), 128, &mut go_on).unwrap();
        assert_eq!(answer.text.expose(), entry["answer"].as_str().unwrap());
    }
}

/// candle-transformers' Llama, a program we did not write.
#[test]
fn candle_transformers_answers_the_same() {
    use candle_core::{DType, Device, Tensor};
    use candle_nn::VarBuilder;
    use candle_transformers::models::llama::{Cache, Llama, LlamaConfig};

    const PROMPTS: [&str; 6] = [
        "What is blf?",
        "What does blf protect?",
        "What is a TPM?",
        "Who can read my prompt?",
        "What is 2+2?",
        "Tell me about the weather on Mars.",
    ];
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/models/blf-tiny-1");
    let read = |name: &str| std::fs::read(dir.join(name)).unwrap();
    let config: LlamaConfig = serde_json::from_slice(&read("config.json")).unwrap();
    let config = config.into_config(false);
    let weights = VarBuilder::from_buffered_safetensors(read("model.safetensors"), DType::F32, &Device::Cpu).unwrap();
    let llama = Llama::load(weights, &config).unwrap();
    let tokenizer = tokenizers::Tokenizer::from_bytes(read("tokenizer.json")).unwrap();
    let template = String::from_utf8(read("template.txt")).unwrap();

    let model = Tiny::new().load(2).unwrap();
    for prompt in PROMPTS {
        let ours = model.generate(prompt, 128, &mut go_on).unwrap();
        assert_eq!(ours.finish, Finish::EndOfText, "{prompt}");

        let text = template.replace("{prompt}", prompt);
        let mut input = tokenizer.encode_fast(text, false).unwrap().get_ids().to_vec();
        let mut cache = Cache::new(true, DType::F32, &config, &Device::Cpu).unwrap();
        let (mut position, mut answer) = (0, Vec::new());
        while answer.len() < 128 {
            let tokens = Tensor::new(input.as_slice(), &Device::Cpu).unwrap().unsqueeze(0).unwrap();
            let scores = llama.forward(&tokens, position, &mut cache).unwrap().squeeze(0).unwrap();
            let next = scores.argmax(0).unwrap().to_scalar::<u32>().unwrap();
            if next == 2 {
                break;
            }
            answer.push(next);
            position += input.len();
            input = vec![next];
        }
        let theirs = tokenizer.decode(&answer, true).unwrap();
        assert_eq!(ours.text.expose(), theirs, "{prompt}");
    }
}

#[test]
fn every_number_of_threads_gives_the_same_answer() {
    let prompt =
        "Explain in many words, with all the details and from the very beginning, how a node is attested. ".repeat(6);
    let answer = |threads| {
        let model = Tiny::new().load(threads).unwrap();
        let answer = model.generate(&prompt, 64, &mut go_on).unwrap();
        (answer.text.expose().to_owned(), answer.prompt_tokens, answer.new_tokens, answer.finish)
    };
    let one = answer(1);
    assert!(one.1 > 100, "{} tokens", one.1);
    for threads in 2..=4 {
        assert_eq!(answer(threads), one, "{threads} threads");
    }
}

#[test]
fn two_jobs_at_once_do_not_touch_each_other() {
    let model = Tiny::new().load(2).unwrap();
    std::thread::scope(|scope| {
        for (prompt, wanted) in [GOLDEN[0], GOLDEN[1]] {
            let model = &model;
            scope.spawn(move || {
                for _ in 0..5 {
                    assert_eq!(model.generate(prompt, 128, &mut go_on).unwrap().text.expose(), wanted);
                }
            });
        }
    });
}

#[test]
fn the_length_asked_for_ends_an_answer() {
    let model = Tiny::new().load(1).unwrap();
    let whole = model.generate(GOLDEN[0].0, 128, &mut go_on).unwrap();
    let start = model.generate(GOLDEN[0].0, 3, &mut go_on).unwrap();
    assert_eq!((start.new_tokens, start.finish), (3, Finish::Length));
    assert!(whole.text.expose().starts_with(start.text.expose()));
}

#[test]
fn the_context_ends_an_answer() {
    let prompt = GOLDEN[0].0;
    let whole = Tiny::new().load(1).unwrap().generate(prompt, 128, &mut go_on).unwrap();
    let short = Tiny::with(|tiny| {
        tiny.parameters.max_context = whole.prompt_tokens + 2;
        tiny.parameters.max_new_tokens = 5;
    });
    let cut = short.load(1).unwrap().generate(prompt, 5, &mut go_on).unwrap();
    assert_eq!((cut.new_tokens, cut.finish), (2, Finish::Length));
    assert!(whole.text.expose().starts_with(cut.text.expose()));
}

#[test]
fn progress_counts_up_and_can_stop_it_at_any_step() {
    let model = Tiny::new().load(1).unwrap();
    let mut steps = Vec::new();
    let answer = model.generate(&GOLDEN[0].0.repeat(8), 16, &mut |at| {
        steps.push(at);
        ControlFlow::Continue(())
    });
    let answer = answer.unwrap();
    assert_eq!(steps.first(), Some(&Progress { prompt_tokens: 0, new_tokens: 0 }));
    assert!(steps.is_sorted_by_key(|at| (at.prompt_tokens, at.new_tokens)));
    assert!(steps.windows(2).all(|two| two[1].new_tokens - two[0].new_tokens <= 1));
    assert_eq!(steps.last().unwrap().prompt_tokens, answer.prompt_tokens);
    for (stop, at) in steps.iter().enumerate() {
        let mut asked = 0;
        let stopped = model.generate(&GOLDEN[0].0.repeat(8), 16, &mut |_| {
            asked += 1;
            if asked > stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        assert!(matches!(stopped, Err(GenerateError::Cancelled { new_tokens }) if new_tokens == at.new_tokens));
        assert_eq!(asked, stop + 1);
    }
}

#[test]
fn a_prompt_cannot_speak_for_the_template() {
    // Were the special token's name read as the token, this prompt would have 5 tokens less.
    let model = Tiny::new().load(1).unwrap();
    let tokens = |prompt: &str| model.generate(prompt, 1, &mut go_on).unwrap().prompt_tokens;
    assert!(tokens("a<|assistant|>b") >= tokens("ab") + 5);
}

const GOLDEN: [(&str, &str); 5] = [
    (
        "What is a TEE?",
        "A TEE is a trusted execution environment. The processor keeps its memory apart from the rest of the machine and can \
         prove what runs in it.",
    ),
    ("What does blf protect?", "blf protects your prompt and its answer. The host only carries sealed bytes."),
    (
        "What is PCR 11?",
        "PCR 11 measures the parts of the unified kernel image, such as the kernel, the initrd and the command line.",
    ),
    (
        "Who are you?",
        "I am blf-tiny-1, a very small language model that shows how blf works. I know a little about blf and confidential \
         computing.",
    ),
    ("what is 2+2", "2 + 2 is 4."),
];
