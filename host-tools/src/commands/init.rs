//! `blf-host init`: a node's folder and configuration. No key is made on a host.

use std::io::{self, BufRead, IsTerminal as _, Write};

use serde_json::json;

use super::warn_of_variables;
use crate::cli::InitArgs;
use crate::error::{Error, Exit};
use crate::node::{Node, variable};
use crate::notice::print;
use crate::settings::{Kind, Layers, Origin, document};

/// What stands at the head of every configuration.
const HEADER: &str = "A node of blf-host. Each value can also come from a flag or from BLF_<KEY>; blf-host config show --origin tells.\n\
What the guest may reach and whom it believes is measured with its image and cannot be chosen here.";

/// What people are asked for; the rest has defaults that seldom change.
const ASKED: [&str; 6] = ["image", "model", "devnet", "profile", "memory", "payment_service_url"];

/// Makes the node.
pub(super) fn init(arguments: &InitArgs, json: bool) -> Result<(), Error> {
    let node = Node::named(&arguments.node.name);
    let mut layers = Layers::new();
    layers.environment(variable)?;
    layers.flags(&arguments.flags, None)?;
    let people = io::stdin().is_terminal() && io::stderr().is_terminal();
    if people && !json && !arguments.non_interactive && !node.config().is_file() {
        ask(&mut layers, &mut io::stdin().lock(), &mut io::stderr())?;
    }
    create(&node, layers)?;
    warn_of_variables();
    if json {
        print(json!({ "schema": "blf.init/v1", "name": node.name(), "file": node.config() }));
        return Ok(());
    }
    print(format_args!("node {} configured in {}", node.name(), node.config().display()));
    print("no key was made: the guest is born with its own, and a new address, at every boot");
    let name = node.name();
    print(format_args!("next: blf-host config check --name {name}, then blf-host run --name {name}"));
    Ok(())
}

/// Writes the configuration after it was checked as a whole.
pub(super) fn create(node: &Node, mut layers: Layers) -> Result<(), Error> {
    layers.rooted()?;
    layers.settings()?;
    let text = document(&layers, HEADER);
    // What is written must mean what was meant.
    Layers::new().text(&text, &node.config())?;
    node.create(&text)
}

/// Asks for what no flag said, until each answer will do; an empty answer takes the default.
fn ask(layers: &mut Layers, answers: &mut impl BufRead, out: &mut impl Write) -> Result<(), Error> {
    let cannot = |e: io::Error| Error::failed("PROMPT", e);
    for name in ASKED {
        let Some((key, value)) = layers.all().find(|(key, _)| key.name == name) else { continue };
        if value.origin != Origin::Default {
            continue;
        }
        let offered = value.value.clone();
        loop {
            write!(out, "{} [{offered}]: ", key.about).and_then(|()| out.flush()).map_err(cannot)?;
            let mut line = String::new();
            if answers.read_line(&mut line).map_err(cannot)? == 0 {
                return Err(Error::new(Exit::Usage, "PROMPT", format!("{name}: wanted an answer, the input ended"))
                    .hint("--non-interactive takes the defaults"));
            }
            let answer = match (key.kind, line.trim()) {
                (_, "") => break,
                (Kind::Switch, "y" | "yes") => "true".to_owned(),
                (Kind::Switch, "n" | "no") => "false".to_owned(),
                (_, text) => text.to_owned(),
            };
            match key.check(&answer) {
                Ok(()) => {
                    layers.answer(key, answer);
                    break;
                }
                Err(e) => writeln!(out, "  {e}").map_err(cannot)?,
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(answers: &str) -> (Result<Layers, Error>, String) {
        let mut layers = Layers::new();
        let mut out = Vec::new();
        let done = ask(&mut layers, &mut answers.as_bytes(), &mut out).map(|()| layers);
        (done, String::from_utf8(out).unwrap())
    }

    #[test]
    fn people_are_asked_until_an_answer_will_do() {
        let (layers, out) = asked("/img\n\nmaybe\nyes\n\n64\n1024\n\n");
        let settings = layers.unwrap().settings().unwrap();
        assert_eq!((settings.image.to_str(), settings.model, settings.devnet), (Some("/img"), None, true));
        assert_eq!((settings.memory, settings.payment_service_url), (1024, None));
        assert!(
            out.contains("wanted true or false, got \"maybe\"") && out.contains("wanted a number from 192"),
            "{out}"
        );
        let (ended, _) = asked("/img\n");
        assert_eq!(ended.unwrap_err().code, "PROMPT");
    }
}
