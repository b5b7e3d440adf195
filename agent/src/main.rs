//! The entry: which role is this process?

use std::alloc::System;
use std::io::{self, Write as _};
use std::num::NonZeroUsize;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

use blf_agent::{boot, courier, engine, profile, sandbox, tunnel};
use zeroizing_alloc::ZeroAlloc;

/// What is freed is zeroized first: prompts pass through buffers of libraries that do not know what they hold.
#[global_allocator]
static ALLOCATOR: ZeroAlloc<System> = ZeroAlloc(System);

fn main() -> ExitCode {
    sandbox::silence_panics();
    if std::process::id() == 1 {
        boot::run();
    }
    let role = std::env::args_os().nth(1).unwrap_or_default();
    let ended = match role.to_str() {
        Some("courier") => run_courier(),
        Some("engine") => run_engine(),
        _ => {
            let _ = writeln!(io::stderr(), "blf-agent: wanted to be process 1 of the image it is measured in");
            return ExitCode::from(2);
        }
    };
    if ended.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The first stream is the socket to the vault.
fn run_courier() -> io::Result<()> {
    let vault = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let profile = profile::network().map_err(io::Error::other)?;
    let door = tunnel::door();
    sandbox::enter_courier().map_err(io::Error::other)?;
    courier::run(vault, door, &profile).map_err(io::Error::other)
}

/// The first stream is the socket to the vault, the second the model pack.
fn run_engine() -> io::Result<()> {
    let vault = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let pack = std::fs::File::from(io::stdout().as_fd().try_clone_to_owned()?);
    let threads = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    sandbox::enter_engine(pack.metadata()?.len()).map_err(io::Error::other)?;
    engine::serve(vault, &pack, threads)
}
