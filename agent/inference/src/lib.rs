//! Deterministic local inference: a prompt in, an answer out, the same bits everywhere.
//!
//! ```text
//! model pack → Files → Model (config → weights → graph, template and tokenizer) → generate(prompt) → Generation
//! ```
//!
//! [`Model::load`] takes the files of a verified model pack as byte slices; [`Model::generate`] answers one prompt, greedily.
//! Nothing here opens a file or a socket, reads the environment or the clock, or starts a thread beyond the pool that `load` is
//! told the size of, so the engine process can give all of that up.
//!
//! The arithmetic is [`NUMERIC_PROFILE`]: weights in bfloat16 or float32, everything else in float32; every sum has one order
//! that depends on nothing but its length (`ops.rs` has the rules). Hence the answer is the same for any number of threads, any
//! split of the prompt into chunks and any x86-64 or aarch64 processor, and checking a given answer in one pass gives the same
//! logits as making it token by token.
//!
//! candle supplies the tensors. Its own matrix product is not used: its sums depend on the shape of the operands.

#![forbid(unsafe_code)]

mod config;
mod error;
mod graph;
mod model;
mod ops;
mod text;
mod weights;

pub use blf_evidence::pack::NUMERIC_PROFILE_F32 as NUMERIC_PROFILE;

pub use error::{GenerateError, LoadError};
pub use model::{Files, Finish, Generation, Model, Progress, SecretText};
