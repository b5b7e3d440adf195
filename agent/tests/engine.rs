//! The vault's side of the engine against processes that misbehave, and the engine's side against packs that are none.

use std::fs::File;
use std::io::Write as _;
use std::num::NonZeroUsize;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use blf_agent::channel;
use blf_agent::engine::{self, Engine as _, EngineError, EngineProcess};
use blf_agent::frames::{FromEngine, ToEngine};
use blf_bridge::Secret;

const SOON: Duration = Duration::from_secs(10);

/// Something that sits where the engine's process should be.
fn peer(act: impl FnOnce(UnixStream) + Send + 'static) -> (UnixStream, JoinHandle<()>) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    (ours, thread::spawn(move || act(theirs)))
}

fn ready(stream: &mut UnixStream) {
    channel::write(stream, 0, &FromEngine::Ready).unwrap();
}

fn ask(engine: &EngineProcess, within: Duration) -> Result<Vec<u8>, EngineError> {
    engine.answer(&Secret::new(b"hello".to_vec()), 8, within).map(|text| text.expose().to_vec())
}

#[test]
fn prompts_are_answered_one_after_the_other() {
    let (stream, peer) = peer(|mut stream| {
        ready(&mut stream);
        while let Some(frame) = channel::read(&mut stream).unwrap() {
            let ask: ToEngine = frame.message().unwrap();
            thread::sleep(Duration::from_millis(20));
            channel::write(&mut stream, frame.id, &FromEngine::Answer(ask.prompt)).unwrap();
        }
    });
    let engine = Arc::new(EngineProcess::default());
    assert_eq!(ask(&engine, SOON), Err(EngineError::Gone), "before it is there");
    engine.attach(stream, SOON).unwrap();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert_eq!(ask(&engine, SOON).unwrap(), b"hello"));
        }
    });
    drop(engine);
    peer.join().unwrap();
}

#[test]
fn an_engine_s_words_go_on_only_if_they_are_known() {
    for (code, wanted) in [
        ("ENGINE_DEADLINE", EngineError::Failed { code: "ENGINE_DEADLINE" }),
        ("THE_PATIENT_IS_JOHN_DOE", EngineError::Gone),
        ("what is 2+2?", EngineError::Gone),
        ("", EngineError::Gone),
    ] {
        let (stream, peer) = peer(move |mut stream| {
            ready(&mut stream);
            let id = channel::read(&mut stream).unwrap().unwrap().id;
            channel::write(&mut stream, id, &FromEngine::Failed { code: code.into() }).unwrap();
        });
        let engine = EngineProcess::default();
        engine.attach(stream, SOON).unwrap();
        assert_eq!(ask(&engine, SOON), Err(wanted));
        peer.join().unwrap();
    }
}

#[test]
fn what_does_not_answer_in_time_is_not_asked_again() {
    let (stream, peer) = peer(|mut stream| {
        ready(&mut stream);
        let id = channel::read(&mut stream).unwrap().unwrap().id;
        // A length, and never the rest: an answer to the first prompt must not become one to the second.
        let begun = [[0, 0, 0, 9], id.to_be_bytes()].concat();
        // It may have hung up already.
        drop(stream.write_all(&begun));
        assert!(!matches!(channel::read(&mut stream), Ok(Some(_))), "the vault hangs up");
    });
    let engine = EngineProcess::with_grace(Duration::from_millis(100));
    engine.attach(stream, SOON).unwrap();
    assert_eq!(ask(&engine, Duration::from_millis(1)), Err(EngineError::Gone));
    assert!(engine.take_late(), "given up because of the deadline");
    assert!(!engine.take_late(), "said once");
    assert_eq!(ask(&engine, SOON), Err(EngineError::Gone));
    peer.join().unwrap();
}

#[test]
fn an_engine_that_dies_by_itself_was_not_late() {
    let (stream, peer) = peer(|mut stream| {
        ready(&mut stream);
        channel::read(&mut stream).unwrap().unwrap();
    });
    let engine = EngineProcess::default();
    engine.attach(stream, SOON).unwrap();
    assert_eq!(ask(&engine, SOON), Err(EngineError::Gone));
    assert!(!engine.take_late());
    peer.join().unwrap();
}

#[test]
fn a_prompt_without_time_is_not_asked() {
    let engine = EngineProcess::default();
    assert_eq!(ask(&engine, Duration::ZERO), Err(EngineError::Queue));
}

#[test]
fn an_engine_that_is_not_ready_is_none() {
    let engine = EngineProcess::default();
    let (stream, silent) = peer(drop);
    assert_eq!(engine.attach(stream, SOON), Err(EngineError::Gone));
    silent.join().unwrap();
    let (stream, early) =
        peer(|mut stream| channel::write(&mut stream, 0, &FromEngine::Answer(b"x".to_vec())).unwrap());
    assert_eq!(engine.attach(stream, SOON), Err(EngineError::Gone));
    early.join().unwrap();
}

#[test]
fn a_pack_that_is_none_has_a_code() {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&[7; 8192]).unwrap();
    let refused = |pack: File| {
        let (stream, served) = peer(move |stream| engine::serve(stream, &pack, NonZeroUsize::MIN).unwrap());
        let refused = EngineProcess::default().attach(stream, SOON).unwrap_err();
        served.join().unwrap();
        refused.code().to_owned()
    };
    assert_eq!(refused(file), "MODEL_HEADER");
    assert_eq!(refused(tempfile::tempfile().unwrap()), "MODEL_HEADER");
    assert_eq!(refused(File::open("/").unwrap()), "MODEL_READ");
}
