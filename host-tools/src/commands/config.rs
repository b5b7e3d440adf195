//! `blf-host config`: what a node's configuration says, where each value comes from, and whether it can work.

use serde_json::json;

use super::launch::prepare;
use super::warn_of_variables;
use crate::cli::ConfigCommand;
use crate::error::Error;
use crate::journal::Log;
use crate::node::Node;
use crate::notice::print;
use crate::payment::Payment;
use crate::settings::{Flags, Layers, Origin};

/// Checks or shows.
pub(super) fn config(command: &ConfigCommand, json: bool, log: Option<Log>) -> Result<(), Error> {
    let (ConfigCommand::Check { node } | ConfigCommand::Show { node, .. }) = command;
    let node = Node::named(&node.name);
    let layers = node.layers(&Flags::default(), log)?;
    match command {
        ConfigCommand::Show { origin, .. } => {
            show(&node, &layers, *origin, json);
            Ok(())
        }
        ConfigCommand::Check { .. } => check(&node, &layers, json),
    }
}

fn show(node: &Node, layers: &Layers, origin: bool, json: bool) {
    if json {
        let values: serde_json::Map<_, _> =
            layers.all().map(|(key, value)| (key.name.to_owned(), json!(value))).collect();
        print(json!({ "schema": "blf.config/v1", "name": node.name(), "file": node.config(), "values": values }));
        return;
    }
    for (key, value) in layers.all() {
        let shown = if value.value.is_empty() { "-" } else { value.value.as_str() };
        if origin {
            print(format_args!("{:<20} {shown:<36} {}", key.name, value.origin));
        } else {
            print(format_args!("{:<20} {shown}", key.name));
        }
    }
}

/// Reads everything that a run would read before it starts anything.
fn check(node: &Node, layers: &Layers, json: bool) -> Result<(), Error> {
    let settings = layers.settings()?;
    warn_of_variables();
    prepare(&settings, &|_| {})?;
    if let Some(service) = settings.payment_service_url.clone() {
        drop(Payment::new(service, settings.payment_roots.as_deref())?);
    }
    let chosen = layers.all().filter(|(_, value)| value.origin != Origin::Default).count();
    if json {
        print(json!({ "schema": "blf.config-check/v1", "name": node.name(), "ok": true, "chosen": chosen }));
    } else {
        print(format_args!("{}: {chosen} values chosen, all can work", node.config().display()));
    }
    Ok(())
}
