//! `blf-host import`: a node from a folder of the existing network's node.

use serde_json::json;

use super::init::create;
use super::warn_of_variables;
use crate::cli::ImportArgs;
use crate::error::Error;
use crate::existing;
use crate::node::{Node, variable};
use crate::notice::print;
use crate::settings::Layers;

/// Makes the node and says what became of every key.
pub(super) fn import(arguments: &ImportArgs, json: bool) -> Result<(), Error> {
    let node = Node::named(&arguments.node.name);
    let mut layers = Layers::new();
    let taken = existing::import(&arguments.folder, &mut layers)?;
    layers.environment(variable)?;
    layers.flags(&arguments.flags, None)?;
    create(&node, layers)?;
    warn_of_variables();
    if json {
        print(json!({ "schema": "blf.import/v1", "name": node.name(), "file": node.config(), "keys": taken }));
        return Ok(());
    }
    for key in &taken {
        let mark = if key.kept { "kept" } else { "-" };
        let value = key.value.as_deref().map(|value| format!(" ({value})")).unwrap_or_default();
        print(format_args!("{mark:<5} {:<24} {}{value}", key.name, key.what));
    }
    print(format_args!("node {} configured in {}", node.name(), node.config().display()));
    print("no key was copied: the guest is born with its own; the old wallet keeps its stake and its earnings");
    let name = node.name();
    print(format_args!("next: blf-host config check --name {name}, then blf-host run --name {name}"));
    Ok(())
}
