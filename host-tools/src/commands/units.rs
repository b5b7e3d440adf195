//! `blf-host install-units`: the systemd unit of a node, with the path of its program.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::error::Error;
use crate::node::write;
use crate::notice::print;
use crate::programs::vsock_in;
use crate::vsock::VHOST_VSOCK;

/// A node as a service; see docs/operating.md.
const UNIT: &str = include_str!("../../systemd/blf-host@.service");
/// The user it runs as.
const USER: &str = include_str!("../../systemd/blf-host.sysusers.conf");
/// Where the unit expects the program.
const PROGRAM: &str = "/usr/bin/blf-host";
/// What the unit hides from the service, by `ProtectHome=` and `PrivateTmp=`.
const HIDDEN: [&str; 5] = ["/home", "/root", "/run/user", "/tmp", "/var/tmp"];

/// Writes both files and says what to do next.
pub(super) fn install(dir: &Path, sysusers: &Path, program: Option<&Path>, json: bool) -> Result<(), Error> {
    let wrong = |program: &Path, what: &dyn std::fmt::Display| {
        let error = Error::failed("PROGRAM", format!("{}: {what}", program.display()));
        error.hint(format!("install -m 0755 {} /usr/local/bin/blf-host, and run it from there", program.display()))
    };
    let unwritable = |path: &Path, e: &std::io::Error| {
        let error = Error::failed("WRITE", format!("{}: {e}", path.display()));
        error.hint("run it as root, or name other folders")
    };
    let program = match program {
        Some(program) => program.canonicalize().map_err(|e| wrong(program, &e))?,
        None => env::current_exe().map_err(|e| Error::failed("PROGRAM", e))?,
    };
    if hidden(&program) {
        return Err(wrong(&program, &"a service does not see this folder"));
    }
    let nameable = program.to_str().filter(|path| !path.contains(['%', '"', '\\', ' ', '\n']));
    let program = nameable.ok_or_else(|| wrong(&program, &"a unit cannot name such a path"))?;
    let files =
        [(dir, "blf-host@.service", UNIT.replace(PROGRAM, program)), (sysusers, "blf-host.conf", USER.to_owned())];
    // A fresh Debian 13 has no /etc/sysusers.d. That there is no folder for units is a mistake: nobody would look there.
    fs::create_dir_all(sysusers).map_err(|e| unwritable(sysusers, &e))?;
    for (folder, name, text) in &files {
        let file = folder.join(name);
        write(&file, text.as_bytes(), 0o644, true).map_err(|e| unwritable(&file, &e))?;
    }
    let [unit, user] = files.map(|(folder, name, _)| folder.join(name));
    if json {
        print(json!({ "schema": "blf.units/v1", "unit": unit, "sysusers": user, "program": program }));
        return Ok(());
    }
    print(format_args!("wrote {} and {}", unit.display(), user.display()));
    let vsock = vsock_in(&env::var_os("PATH").unwrap_or_default()).filter(|_| !Path::new(VHOST_VSOCK).exists());
    if let Some(vsock) = vsock.filter(|vsock| hidden(vsock)) {
        print(format_args!("first: install -m 0755 {} /usr/local/bin, where the service sees it", vsock.display()));
    }
    for line in [
        "next: systemd-sysusers && systemctl daemon-reload",
        "      install -d -o blf -m 0700 /var/lib/blf",
        "      runuser -u blf -- env BLF_CONFIG_DIR=/var/lib/blf blf-host init --name NAME --image DIR --model FILE \\",
        "          --profile FILE    # or --devnet",
        "      systemctl enable --now blf-host@NAME",
    ] {
        print(line);
    }
    Ok(())
}

fn hidden(file: &Path) -> bool {
    // As the file system knows it: a folder above may be a link.
    let file = file.canonicalize().unwrap_or_else(|_| PathBuf::from(file));
    HIDDEN.iter().any(|folder| file.starts_with(folder))
}
