//! `blf-host attest`: the verdict on a node's evidence. Of a node that runs, what was found when it started and what the
//! coordinator certified since; of one that does not, of a boot made for it, from which nothing leaves.

use serde_json::json;

use super::launch::{Order, carry_out};
use super::status::{attestation, certificate, unwell};
use super::{on_this_thread, warn_of_variables};
use crate::cli::AttestArgs;
use crate::error::{Error, Exit};
use crate::journal::{self, Log};
use crate::launch::Until;
use crate::node::Node;
use crate::notice::{Notice, Show, print, several, stdout};
use crate::record::{Record, Recorder, Standing, now};
use crate::settings::Settings;

/// Shows the verdict and ends with it.
pub(super) fn attest(arguments: &AttestArgs, json: bool, log: Option<Log>) -> Result<(), Error> {
    if arguments.mock || arguments.tee_key.is_some() {
        let flag = if arguments.mock { "--mock" } else { "--tee-key" };
        let error = format!("{flag}: what makes a guest's evidence is measured with its image, no flag chooses it");
        return Err(Error::new(Exit::Usage, "NO_MOCK", error).hint("blf-host attest, without it"));
    }
    let node = Node::named(&arguments.node.name);
    let settings = node.layers(&arguments.flags, log)?.settings()?;
    let journal = journal::start(settings.log, settings.log_level)?;
    if !node.runs() {
        let _running = node.lock()?;
        warn_of_variables();
        let recorder = appraise_once(&settings, &node, journal, json)?;
        let record = recorder.record();
        if json {
            print(json!({ "schema": "blf.attest/v1", "name": node.name(), "running": false, "record": record }));
        } else {
            print(format_args!("attested: {}", attestation(&record)));
            print("the guest was stopped again; blf-host run seeks admission by the ICL");
        }
        return Ok(());
    }
    let record = Record::read(&node)?.ok_or_else(|| Error::new(Exit::NoVerdict, "STARTING", "no evidence yet"))?;
    let standing = record.standing(true, now());
    if json {
        let object = json!({
            "schema": "blf.attest/v1", "name": node.name(), "running": true, "standing": standing, "record": record,
        });
        print(object);
    } else {
        for finding in &record.findings {
            print(&Notice::Check { node: node.name().into(), finding: finding.clone() });
        }
        print(format_args!("attested: {}", attestation(&record)));
        print(format_args!("admitted: {}", certificate(&record)));
    }
    let error = match standing {
        Standing::Ready | Standing::Stopping => return Ok(()),
        standing => unwell(node.name(), standing, Some(&record)),
    };
    match error {
        None => Ok(()),
        Some(error) if json => Err(error.said()),
        Some(error) => Err(error),
    }
}

/// Boots the node's guest until its evidence was appraised, with the tunnel closed, and stops it.
pub(super) fn appraise_once(
    settings: &Settings,
    node: &Node,
    journal: Show,
    json: bool,
) -> Result<std::sync::Arc<Recorder>, Error> {
    // In memory: what was known of the node's last run stays.
    let recorder = Recorder::new(Record::begin(node.name(), None, now()), None)?;
    let mut shows = vec![journal, recorder.show()];
    if !json {
        shows.push(stdout(false)?);
    }
    let order = Order { settings, nodes: vec![node.name().to_owned()], until: Until::Appraised, show: several(shows) };
    on_this_thread(carry_out(order))?;
    if recorder.record().measurement.is_none() {
        return Err(Error::new(Exit::NoVerdict, "INTERRUPTED", "stopped before the guest's evidence came"));
    }
    Ok(recorder)
}
