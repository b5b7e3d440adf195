//! The engine, from both sides: what the vault asks, and the process that answers.
//!
//! The engine's process has one socket to the vault and a sealed memory file with the model pack that the vault has
//! hashed. It enters its sandbox before it looks at either, so that tokenizer and weights, which the host chose, are parsed
//! by a process that can open nothing.
//!
//! The pack is read into the engine's own memory and not mapped: mapping wants unsafe, tensors are converted while loading
//! anyway, and what was read is dropped afterwards. The memory file stays for a restart.

use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt as _;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use blf_bridge::Secret;
use blf_evidence::pack::{HEADER_MAX, Header};
use blf_inference::{Files, GenerateError, Model};
use rustix::process::{Pid, Signal};
use zeroize::Zeroize as _;

use crate::channel::{self, Within};
use crate::frames::{FromEngine, ToEngine};

/// How long the engine's process may take beyond the prompt's own deadline: it looks at the clock before every few tokens of
/// the prompt and after each of the answer. Whoever asks chooses the deadline, so a short one must not kill it.
const GRACE: Duration = Duration::from_secs(30);
/// Every word with which an engine may fail.
const CODES: [&str; 8] = [
    "ENGINE_DEADLINE",
    "ENGINE_FAILED",
    "JOB_TOKENS",
    "MODEL_HEADER",
    "MODEL_LOAD",
    "MODEL_READ",
    "PROMPT_TEXT",
    "PROMPT_TOO_LONG",
];

/// Answers prompts, one at a time: callers queue.
pub trait Engine: Send + Sync {
    /// The answer's text.
    ///
    /// # Errors
    /// [`EngineError`].
    fn answer(&self, prompt: &Secret, max_new_tokens: u32, deadline: Duration) -> Result<Secret, EngineError>;
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// The engine says why.
    #[error("engine: {code}")]
    Failed {
        /// Its code.
        code: &'static str,
    },
    /// The engine's process is not there, broke off, or did not answer in time.
    #[error("engine: gone")]
    Gone,
    /// The job ended while it waited for its turn.
    #[error("engine: wanted a turn before the deadline")]
    Queue,
}

/// The engine's process, as the vault sees it.
pub struct EngineProcess {
    slot: Mutex<Option<(UnixStream, Option<Pid>)>>,
    grace: Duration,
    /// The process was killed because of a deadline.
    late: AtomicBool,
}

impl Default for EngineProcess {
    fn default() -> Self {
        Self::with_grace(GRACE)
    }
}

impl EngineProcess {
    /// One that may take `grace` longer than the deadline of a prompt before it is given up.
    pub fn with_grace(grace: Duration) -> Self {
        Self { slot: Mutex::default(), grace, late: AtomicBool::new(false) }
    }

    /// Whether the process was given up because of a prompt's deadline; says so once. The user chose the prompt and the
    /// deadline, so such an end is no sign of a broken engine.
    pub fn take_late(&self) -> bool {
        self.late.swap(false, Ordering::SeqCst)
    }

    /// Waits until the engine at the other end has loaded its model, then gives it the prompts to come.
    ///
    /// # Errors
    /// [`EngineError`].
    pub fn attach(&self, stream: UnixStream, deadline: Duration) -> Result<(), EngineError> {
        self.attach_to(stream, None, deadline)
    }

    /// The same for an engine in `process`, which is killed when it fails to answer in time.
    ///
    /// # Errors
    /// [`EngineError`].
    pub fn attach_process(&self, stream: UnixStream, process: Pid, deadline: Duration) -> Result<(), EngineError> {
        self.attach_to(stream, Some(process), deadline)
    }

    fn attach_to(&self, stream: UnixStream, process: Option<Pid>, deadline: Duration) -> Result<(), EngineError> {
        match receive(&mut Within::new(&stream, deadline))? {
            FromEngine::Ready => {
                *self.slot.lock().unwrap_or_else(PoisonError::into_inner) = Some((stream, process));
                Ok(())
            }
            FromEngine::Failed { code } => Err(failed(&code)),
            FromEngine::Answer(mut text) => {
                text.zeroize();
                Err(EngineError::Gone)
            }
        }
    }
}

impl Engine for EngineProcess {
    fn answer(&self, prompt: &Secret, max_new_tokens: u32, deadline: Duration) -> Result<Secret, EngineError> {
        let asked = Instant::now();
        let mut slot = self.slot.lock().unwrap_or_else(PoisonError::into_inner);
        let left = deadline.checked_sub(asked.elapsed()).filter(|d| !d.is_zero()).ok_or(EngineError::Queue)?;
        let (stream, process) = slot.take().ok_or(EngineError::Gone)?;
        let sent = Instant::now();
        let answer = exchange(&stream, prompt, max_new_tokens, left, self.grace);
        if matches!(answer, Err(EngineError::Gone)) {
            self.late.store(sent.elapsed() >= left.saturating_add(self.grace), Ordering::SeqCst);
            // The stream is not put back: what it says next would belong to another prompt.
            if let Some(process) = process {
                let _ = rustix::process::kill_process(process, Signal::KILL);
            }
        } else {
            *slot = Some((stream, process));
        }
        answer
    }
}

fn exchange(
    stream: &UnixStream,
    prompt: &Secret,
    max_new_tokens: u32,
    deadline: Duration,
    grace: Duration,
) -> Result<Secret, EngineError> {
    let deadline_millis = u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX);
    let mut ask = ToEngine { prompt: prompt.expose().to_vec(), max_new_tokens, deadline_millis };
    let mut stream = Within::new(stream, deadline.saturating_add(grace));
    let sent = channel::write(&mut stream, 1, &ask);
    ask.prompt.zeroize();
    sent.map_err(|_| EngineError::Gone)?;
    match receive(&mut stream)? {
        FromEngine::Answer(text) => Ok(Secret::new(text)),
        FromEngine::Failed { code } => Err(failed(&code)),
        FromEngine::Ready => Err(EngineError::Gone),
    }
}

fn receive(stream: &mut Within<'_>) -> Result<FromEngine, EngineError> {
    let frame = channel::read(stream).ok().flatten().ok_or(EngineError::Gone)?;
    frame.message().map_err(|_| EngineError::Gone)
}

fn failed(code: &str) -> EngineError {
    // The engine may be in somebody else's hands, and what it says goes on to the ICL and the host: a word of its own
    // choice could be 48 characters of the prompt.
    CODES.into_iter().find(|known| *known == code).map_or(EngineError::Gone, |code| EngineError::Failed { code })
}

impl EngineError {
    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Failed { code } => code,
            Self::Gone => "ENGINE_GONE",
            Self::Queue => "ENGINE_QUEUE",
        }
    }
}

/// The engine's process: loads the pack in `pack`, says so on `stream`, and answers until the stream ends.
///
/// # Errors
/// Those of the stream. Errors of the model go to the vault as codes.
pub fn serve(mut stream: UnixStream, pack: &File, threads: NonZeroUsize) -> io::Result<()> {
    let model = match load(pack, threads) {
        Ok(model) => model,
        Err(code) => return channel::write(&mut stream, 0, &FromEngine::Failed { code: code.into() }),
    };
    channel::write(&mut stream, 0, &FromEngine::Ready)?;
    while let Some(frame) = channel::read(&mut stream)? {
        let id = frame.id;
        let mut ask: ToEngine = frame.message().map_err(io::Error::other)?;
        drop(frame);
        let mut reply = generate(&model, &ask);
        ask.prompt.zeroize();
        channel::write(&mut stream, id, &reply)?;
        if let FromEngine::Answer(text) = &mut reply {
            text.zeroize();
        }
    }
    Ok(())
}

fn load(pack: &File, threads: NonZeroUsize) -> Result<Model, &'static str> {
    // Not `File::metadata`, which asks by statx: the sandbox leaves only what cannot name a file.
    let size = rustix::fs::fstat(pack).map_err(|_| "MODEL_READ")?.st_size;
    let size = usize::try_from(size).map_err(|_| "MODEL_READ")?;
    let mut bytes = vec![0; size];
    pack.read_exact_at(&mut bytes, 0).map_err(|_| "MODEL_READ")?;
    let header = Header::parse(&bytes[..size.min(HEADER_MAX)]).map_err(|_| "MODEL_HEADER")?;
    let files = Files::of(&header, &bytes).map_err(|_| "MODEL_HEADER")?;
    Model::load(&header.manifest, files, threads).map_err(|_| "MODEL_LOAD")
}

fn generate(model: &Model, ask: &ToEngine) -> FromEngine {
    let until = Instant::now() + Duration::from_millis(ask.deadline_millis.min(24 * 3600 * 1000));
    let failed = |code: &str| FromEngine::Failed { code: code.into() };
    if Instant::now() >= until {
        return failed("ENGINE_DEADLINE");
    }
    let Ok(prompt) = std::str::from_utf8(&ask.prompt) else { return failed("PROMPT_TEXT") };
    let answer = model.generate(prompt, ask.max_new_tokens, &mut |_| {
        if Instant::now() < until { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    match answer {
        Ok(generation) => FromEngine::Answer(generation.text.expose().as_bytes().to_vec()),
        Err(GenerateError::AnswerLength { .. }) => failed("JOB_TOKENS"),
        Err(GenerateError::Cancelled { .. }) => failed("ENGINE_DEADLINE"),
        Err(GenerateError::EmptyPrompt) => failed("PROMPT_TEXT"),
        Err(GenerateError::PromptTooLong { .. }) => failed("PROMPT_TOO_LONG"),
        Err(GenerateError::Engine(_) | GenerateError::NotFinite | GenerateError::Tokenizer) => failed("ENGINE_FAILED"),
    }
}
