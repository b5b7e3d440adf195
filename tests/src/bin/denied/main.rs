//! Tries, in each role's real sandbox, what no role may do, and says how each attempt ended.
//!
//! ```text
//! denied                    the roles' sandboxes on this machine: what their filters decide
//! as process 1 of a guest   the same in the agent's place, after the agent's own mounts, modules and switches:
//!                           also what the guest's kernel decides; the report goes to the console
//! denied try …              one role's attempts from one on, as a process that the others start
//! ```
//!
//! A report has one line for each attempt and fact: `attempt ROLE NAME WANTED GOT` or `fact NAME WANTED GOT`. Who reads it
//! compares; this program judges nothing.

#![allow(missing_docs, reason = "for tests only")]
#![deny(unsafe_code)]

mod attempts;
mod call;
mod facts;

use std::fs::OpenOptions;
use std::io::{self, BufRead as _, BufReader, Write};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, ExitCode, Stdio};

use blf_agent::boot::system;
use blf_agent::sandbox;
use rustix::system::RebootCommand;

use attempts::{Attempt, Role, attempts};

/// As long as the model of the tests; it bounds the engine's address space.
const MODEL_BYTES: u64 = 4 << 20;
/// The signal by which a filter kills.
const SIGSYS: i32 = 31;
/// How a child says that it could not enter its sandbox.
const NO_SANDBOX: u8 = 3;

fn main() -> ExitCode {
    if std::process::id() == 1 {
        guest();
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments.as_slice() {
        [] => here(),
        ["try", role, from, place] => attempt(role, from, *place == "guest"),
        _ => return ExitCode::from(2),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            let _ = writeln!(io::stderr(), "denied: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Every role on this machine.
fn here() -> io::Result<ExitCode> {
    for role in [Role::Supervisor, Role::Requests, Role::Courier, Role::Engine] {
        let code = report(&mut io::stdout(), role, false)?;
        if code != 0 {
            return Ok(ExitCode::from(code));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// In the agent's place: its boot as far as it hardens, then every role.
fn guest() -> ! {
    let prepared = system::mount().and_then(|()| system::load_modules()).and_then(|()| system::harden());
    if let Ok(mut console) = OpenOptions::new().write(true).open("/dev/console") {
        let mut told = prepared.map_err(io::Error::other).and_then(|()| {
            facts::kernel(&mut console)?;
            report(&mut console, Role::Kernel, true)?;
            sandbox::enter_supervisor().map_err(io::Error::other)?;
            for role in [Role::Supervisor, Role::Requests, Role::Courier, Role::Engine] {
                report(&mut console, role, true)?;
            }
            writeln!(console, "end")
        });
        if let Err(error) = &mut told {
            let _ = writeln!(console, "failed {error}");
        }
    }
    loop {
        let _ = rustix::system::reboot(RebootCommand::PowerOff);
    }
}

/// Writes how the attempts of one role end; gives the status of a child that could not begin, else 0.
fn report(out: &mut impl Write, role: Role, guest: bool) -> io::Result<u8> {
    let attempts = attempts(role, guest);
    let mut at = 0;
    while at < attempts.len() {
        let mut child = Command::new("/proc/self/exe")
            .args(["try", role.name(), &at.to_string(), if guest { "guest" } else { "here" }])
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let lines = child.stdout.take().map(|out| BufReader::new(out).lines()).into_iter().flatten();
        for line in lines.map_while(Result::ok) {
            if let Some(fact) = line.strip_prefix("fact ") {
                // Once is enough, however often a filter kills.
                if at == 0 {
                    writeln!(out, "fact {fact}")?;
                }
                continue;
            }
            say(out, role, attempts.get(at), &line)?;
            at += 1;
        }
        let status = child.wait()?;
        match (status.signal(), status.code()) {
            (Some(SIGSYS), _) => {
                say(out, role, attempts.get(at), "K")?;
                at += 1;
            }
            (_, Some(0)) => {}
            (_, Some(code)) if code == i32::from(NO_SANDBOX) => return Ok(NO_SANDBOX),
            _ => return Err(io::Error::other(format!("{} after {at} attempts: {status}", role.name()))),
        }
    }
    Ok(0)
}

fn say(out: &mut impl Write, role: Role, attempt: Option<&(&Attempt, char)>, got: &str) -> io::Result<()> {
    let (attempt, wanted) = attempt.ok_or_else(|| io::Error::other("more outcomes than attempts"))?;
    writeln!(out, "attempt {} {} {wanted} {got}", role.name(), attempt.name)
}

/// The child: enters, then tries one after the other until it is done or killed.
fn attempt(role: &str, from: &str, guest: bool) -> io::Result<ExitCode> {
    let role = Role::parse(role).ok_or_else(|| io::Error::other("wanted a role"))?;
    let from: usize = from.parse().map_err(io::Error::other)?;
    let mut status = facts::Status::open()?;
    // In a guest process 1 has entered, and everybody after it inherits that.
    let supervisor = if guest { Ok(()) } else { sandbox::enter_supervisor() };
    let entered = supervisor.and_then(|()| match role {
        Role::Kernel | Role::Supervisor => Ok(()),
        Role::Requests => sandbox::enter_requests(),
        Role::Courier => sandbox::enter_courier(),
        Role::Engine => sandbox::enter_engine(MODEL_BYTES),
    });
    if let Err(error) = entered {
        let _ = writeln!(io::stderr(), "denied: {}: {error}", role.name());
        return Ok(ExitCode::from(NO_SANDBOX));
    }
    let mut out = io::stdout();
    if role != Role::Kernel {
        status.tell(&mut out, role)?;
    }
    for (attempt, _) in attempts(role, guest).iter().skip(from) {
        let got = attempt.run();
        writeln!(out, "{got}")?;
        out.flush()?;
    }
    Ok(ExitCode::SUCCESS)
}
