//! `blf-host run`: a configured node until it is asked to stop, for people and for the service manager.

use std::sync::Arc;

use super::launch::{Order, carry_out};
use super::{on_this_thread, warn_of_variables};
use crate::cli::NodeArgs;
use crate::error::Error;
use crate::journal::{self, Log};
use crate::launch::Until;
use crate::node::Node;
use crate::notice::{several, stdout};
use crate::record::{Record, Recorder, now};
use crate::systemd::Notifier;

/// Runs the node; nothing is asked, whatever the terminal.
pub(super) fn run(arguments: &NodeArgs, json: bool, log: Option<Log>) -> Result<(), Error> {
    let node = Node::named(&arguments.node.name);
    let settings = node.layers(&arguments.flags, log)?.settings()?;
    let journal = journal::start(settings.log, settings.log_level)?;
    warn_of_variables();
    if settings.stops_early() {
        anstream::eprintln!(
            "blf-host: warning: stop_timeout is shorter than a guest may drain: running jobs may be ended by force"
        );
    }
    let _running = node.lock()?;
    // What was known before is only a memory; a record that cannot be read must not keep a node from running.
    let before = Record::read(&node).unwrap_or_default();
    let recorder = Recorder::new(Record::begin(node.name(), before, now()), Some(node.record()))?;
    let notifier = Notifier::of_process();

    let mut shows = vec![stdout(json)?, journal, recorder.show()];
    shows.extend(notifier.as_ref().map(|notifier| notifier.show(settings.boot_timeout, settings.stop_timeout)));
    let order =
        Order { settings: &settings, nodes: vec![node.name().to_owned()], until: Until::Stopped, show: several(shows) };
    let ended = on_this_thread(async {
        let watch = async {
            match &notifier {
                Some(notifier) => Arc::clone(notifier).watch().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            ended = carry_out(order) => ended,
            () = watch => Ok(()),
        }
    });
    recorder.end(&ended);
    if let (Some(notifier), Err(error)) = (&notifier, &ended) {
        notifier.stopping(&error.message);
    }
    ended
}
