//! The systemd unit, the completions and the manual: what is shipped beside the program says what the program does.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use blf_evidence::tunnel::DRAIN;
use blf_host::cli::Cli;
use blf_host::existing::{Fate, NAMES};
use blf_host::settings::{KEYS, Layers};
use clap::CommandFactory as _;
use tempfile::TempDir;

fn unit() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd/blf-host@.service")
}

fn docs() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/operating.md")).unwrap()
}

/// The values of a directive of the unit.
fn directive(name: &str) -> Vec<String> {
    let text = fs::read_to_string(unit()).unwrap();
    text.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('=').map(str::to_owned)).collect()
}

fn seconds(name: &str) -> u64 {
    directive(name)[0].parse().unwrap()
}

/// The last line that is not blank of what a program says.
fn words(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    text
}

#[test]
fn the_unit_waits_as_long_as_a_guest_drains_and_boots() {
    let settings = Layers::new().settings().unwrap();
    assert!(settings.stop_timeout > DRAIN);
    assert!(seconds("TimeoutStopSec") > settings.stop_timeout.as_secs());
    assert!(seconds("TimeoutStartSec") > settings.boot_timeout.as_secs() + 20);
    assert!(seconds("WatchdogSec") > 1);
}

#[test]
fn the_unit_restarts_what_may_heal_at_most_twelve_times_an_hour() {
    assert_eq!(directive("Restart"), ["on-failure"]);
    assert_eq!(directive("RestartPreventExitStatus"), ["2 3 6"]);
    assert_eq!(
        (directive("StartLimitIntervalSec"), directive("StartLimitBurst")),
        (vec!["1h".into()], vec!["12".into()])
    );
    // The steps of systemd 254 grow so slowly that the limit is not met: it would end the unit for good.
    let (first, steps, most) = (seconds("RestartSec") as f64, seconds("RestartSteps"), 600.0_f64);
    assert_eq!(directive("RestartMaxDelaySec"), ["10min"]);
    let (mut at, mut starts) = (0.0, 1);
    for restart in 0.. {
        let step = u32::try_from(u64::min(restart, steps)).unwrap();
        at += first * (most / first).powf(f64::from(step) / steps as f64);
        if at >= 3600.0 {
            break;
        }
        starts += 1;
    }
    assert!(starts <= 12, "{starts} starts in the first hour");
}

#[test]
fn the_unit_is_hardened() {
    // setpriv, which starts every helper, ends with a capset(2) even where there is nothing to set.
    assert!(directive("SystemCallFilter").contains(&"capset".to_owned()));
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        let line = "skipped: the_unit_is_hardened: wanted the program systemd-analyze, it is not in PATH\n";
        drop(std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes()));
        return;
    }
    let text = words(Command::new("systemd-analyze").args(["security", "--offline=true", "--no-pager"]).arg(unit()));
    let exposure = text.lines().find_map(|line| line.split("Overall exposure level for").nth(1)).unwrap();
    let level: f64 = exposure.split(": ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    assert!(level <= 2.0, "{exposure}");

    // What it does not understand it says; only what an older systemd does not know yet may be there.
    let folder = TempDir::new().unwrap();
    let copy = folder.path().join("blf-host@.service");
    let text = fs::read_to_string(unit()).unwrap().replace("/usr/bin/blf-host", "/bin/true");
    fs::write(&copy, text.replace("Documentation=", "# ")).unwrap();
    let output = Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&copy).output().unwrap();
    for line in String::from_utf8_lossy(&output.stderr).lines().filter(|line| line.contains("blf-host@")) {
        assert!(line.contains("'RestartSteps'") || line.contains("'RestartMaxDelaySec'"), "{line}");
    }
}

#[test]
fn the_unit_is_installed_with_the_path_of_its_program() {
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let program = env!("CARGO_BIN_EXE_blf-host");
    let install = |of: &str, dir: &str| {
        let arguments = ["install-units", "--program", of, "--dir", dir, "--sysusers", &at("sysusers")];
        Command::new(program).args(arguments).output().unwrap()
    };
    // Any program will do that a service sees.
    let seen = fs::canonicalize("/bin/sh").unwrap();
    let seen = seen.to_str().unwrap();
    fs::create_dir(at("system")).unwrap();
    let said = String::from_utf8(install(seen, &at("system")).stdout).unwrap();
    assert!(said.contains("systemctl daemon-reload") && said.contains("--profile FILE    # or --devnet"), "{said}");
    let unit = fs::read_to_string(folder.path().join("system/blf-host@.service")).unwrap();
    assert!(unit.contains(&format!("\nExecStart={seen} run --name %i ")), "{unit}");
    assert!(!unit.contains("/usr/bin/blf-host"));
    assert!(fs::read_to_string(folder.path().join("sysusers/blf-host.conf")).unwrap().contains("\nu blf "));

    let private = TempDir::new_in("/tmp").unwrap();
    let hidden = private.path().join("blf-host").display().to_string();
    fs::copy(seen, &hidden).unwrap();
    for (of, dir, wanted) in [
        (seen, at("blf-host/units"), "next: run it as root"),
        // No service manager would look there.
        (seen, at("sytsem"), "next: run it as root"),
        (&*hidden, at("system"), "a service does not see this folder"),
        ("/nonexistent", at("system"), "No such file"),
    ] {
        let output = install(of, &dir);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(1) && said.contains(wanted), "{said}");
    }
}

/// Every command with its path, as `jobs list`.
fn commands(command: &clap::Command, above: &[String]) -> Vec<Vec<String>> {
    let mut all = Vec::new();
    for below in command.get_subcommands().filter(|below| below.get_name() != "help") {
        let path = [above, &[below.get_name().to_owned()]].concat();
        all.extend(commands(below, &path));
        all.push(path);
    }
    all
}

#[test]
fn completions_and_manual_cover_every_command() {
    let program = env!("CARGO_BIN_EXE_blf-host");
    let all = commands(&Cli::command(), &[]);
    for known in ["init", "run", "status", "attest", "import", "jobs earnings", "models test", "config show"] {
        assert!(all.iter().any(|path| path.join(" ") == known), "{known}");
    }
    let folder = TempDir::new().unwrap();
    words(Command::new(program).args(["man", "--dir"]).arg(folder.path()));
    let bash = words(Command::new(program).args(["completions", "bash"]));
    let manual = words(Command::new(program).arg("man"));
    for path in &all {
        // As clap names its branches.
        let branch = format!("cmd=\"blf__host__subcmd__{}\"", path.join("-").replace('-', "__subcmd__"));
        assert!(bash.contains(&branch), "{path:?}");
        let page = fs::read_to_string(folder.path().join(format!("blf-host-{}.1", path.join("-")))).unwrap();
        assert!(page.contains("SYNOPSIS") && manual.contains(&page), "{path:?}");
        assert!(docs().contains(&format!("`{}", path[0])), "docs/operating.md does not name {path:?}");
    }
    for shell in ["zsh", "fish"] {
        let text = words(Command::new(program).args(["completions", shell]));
        assert!(all.iter().all(|path| text.contains(path.last().unwrap().as_str())), "{shell}");
    }
}

#[test]
fn the_operators_page_knows_every_key_and_every_name_of_the_existing_node() {
    let docs = docs();
    for key in KEYS {
        assert!(docs.contains(&format!("`{}`", key.name)), "{}", key.name);
    }
    for name in NAMES.iter().filter(|name| name.fate != Fate::Kept) {
        for word in [name.key, name.variable].into_iter().filter(|word| !word.is_empty()) {
            assert!(docs.contains(&format!("`{word}`")), "{word}");
        }
    }
}
