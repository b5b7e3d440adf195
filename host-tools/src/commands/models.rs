//! `blf-host models`: what the nodes give their guests, whether it is whole, and whether it works.

use serde_json::json;

use super::attest::appraise_once;
use super::status::unwell;
use super::warn_of_variables;
use crate::cli::ModelsCommand;
use crate::error::Error;
use crate::journal::{self, Log};
use crate::model::{self, Pack, Packed};
use crate::node::{self, Node};
use crate::notice::print;
use crate::record::{Phase, Record, now};
use crate::settings::Flags;

/// Runs one of the commands.
pub(super) fn models(command: &ModelsCommand, json: bool, log: Option<Log>) -> Result<(), Error> {
    match command.clone() {
        ModelsCommand::List => list(json),
        ModelsCommand::Test { node, no_boot, flags } => test(&Node::named(&node.name), no_boot, &flags, json, log),
        ModelsCommand::Pack { id, dir, out, max_context, max_new_tokens, eos } => {
            print_pack(json, &model::pack(&Pack { id, dir, out, max_context, max_new_tokens, eos })?);
            Ok(())
        }
        ModelsCommand::Show { file } => {
            print_pack(json, &model::show(&file, true)?);
            Ok(())
        }
    }
}

fn list(json: bool) -> Result<(), Error> {
    let mut rows = Vec::new();
    for name in node::all() {
        let node = Node::named(&name);
        // One whose configuration is wrong is a row like the others.
        let (file, shown) = match node.layers(&Flags::default(), None).and_then(|layers| layers.settings()) {
            Ok(settings) => {
                let shown = settings.model.as_deref().map(|file| model::show(file, false));
                (settings.model, shown)
            }
            Err(error) => (None, Some(Err(error))),
        };
        let running = node.runs().then(|| Record::read(&node).ok().flatten()).flatten();
        let running = running.filter(|record| record.phase == Phase::Serving);
        if json {
            let (pack, error) = match &shown {
                Some(Ok(pack)) => (json!(pack), None),
                Some(Err(error)) => (json!(null), Some(error)),
                None => (json!(null), None),
            };
            let serves = running.map(|record| record.models);
            rows.push(json!({ "node": name, "file": file, "pack": pack, "error": error, "serves": serves }));
            continue;
        }
        let here = running.is_some_and(|record| {
            let served = |digest| record.models.iter().any(|model| model.manifest_sha256 == digest);
            shown.as_ref().is_some_and(|pack| pack.as_ref().is_ok_and(|pack| served(pack.manifest_sha256)))
        });
        let mark = if here { "x" } else { " " };
        match &shown {
            None => print(format_args!("[ ] {name:<16} no model: its guest does not boot without one")),
            Some(Err(error)) => print(format_args!("[!] {name:<16} {error}")),
            Some(Ok(pack)) => print(format_args!(
                "[{mark}] {name:<16} {} {} ({} bytes, {})",
                pack.manifest.id,
                pack.manifest_sha256,
                pack.bytes,
                pack.file.display()
            )),
        }
    }
    if json {
        print(json!({ "schema": "blf.models/v1", "models": rows }));
    } else if node::all().is_empty() {
        print(format_args!("no node is configured in {}: blf-host init --model FILE", node::config_dir().display()));
    } else {
        print("[x] served by a running guest");
    }
    Ok(())
}

fn test(node: &Node, no_boot: bool, flags: &Flags, json: bool, log: Option<Log>) -> Result<(), Error> {
    let settings = node.layers(flags, log)?.settings()?;
    let journal = journal::start(settings.log, settings.log_level)?;
    let pack = model::show(settings.model_pack()?, true)?;
    let running = node.runs().then(|| Record::read(node)).transpose()?.flatten();
    let booted = match (&running, no_boot) {
        (Some(record), _) if record.phase == Phase::Serving => {
            if !record.models.iter().any(|model| model.manifest_sha256 == pack.manifest_sha256) {
                let error =
                    format!("node {}: its running guest serves another model than its configuration", node.name());
                return Err(Error::rejected("MODEL_STALE", error).hint("stop the node and run it again"));
            }
            true
        }
        (_, true) => false,
        (Some(record), false) => match unwell(node.name(), record.standing(true, now()), Some(record)) {
            Some(error) => return Err(error),
            None => true,
        },
        (None, false) => {
            let _running = node.lock()?;
            warn_of_variables();
            // The appraisal wants evidence that names exactly this model.
            appraise_once(&settings, node, journal, json)?;
            true
        }
    };
    if json {
        print(json!({ "schema": "blf.model-test/v1", "model": pack, "whole": true, "served": booted }));
    } else {
        print_pack(false, &pack);
        print(if booted { "every byte is whole, and a guest serves it" } else { "every byte is whole; not booted" });
        print("what it answers, a user asks: blf ask");
    }
    Ok(())
}

fn print_pack(json: bool, packed: &Packed) {
    if json {
        print(json!({ "schema": "blf.model/v1", "model": packed }));
        return;
    }
    let Packed { file, bytes, manifest_sha256, manifest } = packed;
    print(format_args!("{}: model {}, {bytes} bytes", file.display(), manifest.id));
    print(format_args!("manifest sha256 {manifest_sha256}"));
    print(format_args!(
        "{} with {}, {} tokens of context, answers of {} tokens, ending with {:?}",
        manifest.architecture, manifest.numeric_profile, manifest.max_context, manifest.max_new_tokens, manifest.eos
    ));
    for file in &manifest.files {
        print(format_args!("{:>12} bytes  {}  {}", file.size, file.sha256, file.name.as_str()));
    }
}
