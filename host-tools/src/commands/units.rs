//! `blf-host install-units`: the systemd unit of a node, with the path of this program.

use std::path::Path;

use serde_json::json;

use crate::error::Error;
use crate::node::write;
use crate::notice::print;

/// A node as a service; see docs/operating.md.
const UNIT: &str = include_str!("../../systemd/blf-host@.service");
/// The user it runs as.
const USER: &str = include_str!("../../systemd/blf-host.sysusers.conf");
/// Where the unit expects the program.
const PROGRAM: &str = "/usr/bin/blf-host";

/// Writes both files and says what to do next.
pub(super) fn install(dir: &Path, sysusers: &Path, json: bool) -> Result<(), Error> {
    let program = std::env::current_exe().map_err(|e| Error::failed("PROGRAM", e))?;
    let program = program.to_str().filter(|path| !path.contains(['%', '"', '\\', ' ', '\n'])).ok_or_else(|| {
        Error::failed("PROGRAM", format!("{}: a unit cannot name such a path", program.display()))
            .hint("copy blf-host to /usr/local/bin and run it from there")
    })?;
    let files = [
        (dir.join("blf-host@.service"), UNIT.replace(PROGRAM, program)),
        (sysusers.join("blf-host.conf"), USER.to_owned()),
    ];
    for (file, text) in &files {
        write(file, text.as_bytes(), 0o644, true).map_err(|e| {
            Error::failed("WRITE", format!("{}: {e}", file.display())).hint("run it as root, or name other folders")
        })?;
    }
    let [unit, user] = files.map(|(file, _)| file);
    if json {
        print(json!({ "schema": "blf.units/v1", "unit": unit, "sysusers": user, "program": program }));
        return Ok(());
    }
    print(format_args!("wrote {} and {}", unit.display(), user.display()));
    for line in [
        "next: systemd-sysusers && systemctl daemon-reload",
        "      install -d -o blf -m 0700 /var/lib/blf",
        "      sudo -u blf BLF_CONFIG_DIR=/var/lib/blf blf-host init --name NAME --image DIR --model FILE",
        "      systemctl enable --now blf-host@NAME",
    ] {
        print(line);
    }
    Ok(())
}
