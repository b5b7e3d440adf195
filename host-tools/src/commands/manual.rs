//! `blf-host man`: a page for every command.

use std::io::Write as _;
use std::path::Path;

use clap::CommandFactory as _;

use crate::cli::Cli;
use crate::error::Error;
use crate::node::write;

/// Prints all pages, or writes one file each.
pub(super) fn print_or_write(dir: Option<&Path>) -> Result<(), Error> {
    let mut command = Cli::command();
    command.build();
    for (name, page) in pages(&command, "blf-host") {
        let written = match dir {
            None => std::io::stdout().write_all(&page),
            Some(dir) => write(&dir.join(format!("{name}.1")), &page, 0o644, true),
        };
        written.map_err(|e| Error::failed("WRITE", format!("{name}: {e}")))?;
    }
    Ok(())
}

/// The page of a command and those of the commands below it.
fn pages(command: &clap::Command, name: &str) -> Vec<(String, Vec<u8>)> {
    let mut page = Vec::new();
    let shown = command.clone().display_name(name);
    // Rendering into memory cannot fail.
    drop(clap_mangen::Man::new(shown).title(name).render(&mut page));
    let mut pages = vec![(name.to_owned(), page)];
    for below in command.get_subcommands().filter(|below| below.get_name() != "help") {
        pages.extend(self::pages(below, &format!("{name}-{}", below.get_name())));
    }
    pages
}
