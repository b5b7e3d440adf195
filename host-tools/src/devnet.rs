//! A local network in this process, for `launch --devnet`: its ICL admits what the release says, and forgets everything
//! when the launch ends, like the nodes it admitted.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use blf_devnet::{Appraisal, Devnet, EventKind, Options, Running, development};
use blf_evidence::config::Credentials;
use blf_evidence::json;
use blf_evidence::network::ModelName;
use blf_evidence::profile::NetworkProfile;
use blf_evidence::statement::Model;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::error::Error;
use crate::folders;
use crate::forward::Resolve;
use crate::node;
use crate::notice::{Notice, Show};
use crate::release::Image;

/// A running network.
pub struct Local {
    address: SocketAddr,
    profile: NetworkProfile,
    pinning_token: String,
    stop: oneshot::Sender<()>,
    running: Running,
    shown: JoinHandle<()>,
    /// The document by which `blf` finds it, and the two that it names.
    files: [PathBuf; 3],
    document: String,
}

/// The profile that devnet images carry.
///
/// # Errors
/// A failure never for the committed file.
pub fn profile() -> Result<NetworkProfile, Error> {
    development::profile().map_err(|e| Error::failed("DEVNET", e))
}

impl Local {
    /// Starts a network of `nodes` nodes that admits `image`, and writes down for `blf` how to reach it and that users who
    /// name no model ask for `model`: its weights, not whatever a node calls by its id.
    ///
    /// # Errors
    /// An environment error where it cannot listen or write.
    pub async fn start(image: &Image, model: &Model, nodes: u8, show: &Show) -> Result<Self, Error> {
        let wrong = |e: blf_devnet::Error| Error::environment("DEVNET", e);
        let appraisal = Appraisal::development(image.release.clone()).map_err(wrong)?;
        let mut options = Options::new(Arc::new(appraisal)).map_err(wrong)?;
        // A leader and at most two verifiers; one node alone is a quorum of one, and labelled so.
        options.verifier_count = usize::from(nodes.clamp(1, 3)) - 1;
        let (profile, pinning_token) = (options.profile.clone(), options.pinning_token.clone());
        let (stop, stopped) = oneshot::channel();
        let running = Devnet::start(options, async move { drop(stopped.await) }).await.map_err(wrong)?;

        let folder = folders::state();
        let files = ["network.json", "devnet-profile.json", "devnet-release.json"].map(|name| folder.join(name));
        let [network, beside, release] = &files;
        let model = ModelName { id: model.id.clone(), manifest_sha256: Some(model.manifest_sha256) };
        let document = running.network("devnet-profile.json", "devnet-release.json", model);
        let document = json::canonical("network", &document).map_err(|e| Error::failed("DEVNET", e))? + "\n";
        let write = || -> io::Result<()> {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
            // What names the others comes last, and each appears whole: `blf` may read at any time.
            node::write(beside, development::PROFILE.as_bytes(), 0o600, true)?;
            node::write(release, &image.manifest, 0o600, true)?;
            node::write(network, document.as_bytes(), 0o600, true)
        };
        write().map_err(|e| Error::environment("STATE_FOLDER", format!("{}: {e}", folder.display())))?;

        let address = running.address;
        let shown = tokio::spawn(watch(running.events(), Arc::clone(show)));
        show(&Notice::Devnet { address, network: network.clone() });
        Ok(Self { address, profile, pinning_token, stop, running, shown, files, document })
    }

    /// Where the names of the profile answer.
    pub fn resolve(&self, resolve: &mut Resolve) {
        for host in self.profile.hosts() {
            resolve.insert(&host.name, host.port, self.address);
        }
    }

    /// What a node needs to pin blobs here.
    pub fn credentials(&self) -> Credentials {
        Credentials { pinning_token: self.pinning_token.clone(), rpc_path: None, v: 1 }
    }

    /// Stops it and removes what described it.
    pub async fn stop(self) {
        forget(&self.files, &self.document);
        // Gone already only if it ended by itself.
        let _ = self.stop.send(());
        self.running.stopped().await;
        self.shown.abort();
    }
}

/// Removes the files where they still describe this network: one of the same user that was started later has put its own
/// there.
fn forget(files: &[PathBuf; 3], document: &str) {
    if fs::read(&files[0]).is_ok_and(|there| there == document.as_bytes()) {
        for file in files {
            drop(fs::remove_file(file));
        }
    }
}

/// Shows what happens there. Heartbeats are shown by the guests already.
async fn watch(mut events: tokio::sync::broadcast::Receiver<blf_devnet::Event>, show: Show) {
    loop {
        match events.recv().await {
            Ok(event) if matches!(event.kind, EventKind::Heartbeat { .. }) => {}
            Ok(event) => show(&Notice::DevnetEvent { event }),
            // Too fast to show; what is left is still worth showing.
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_that_ends_forgets_itself_and_no_other() {
        let folder = tempfile::TempDir::new().unwrap();
        let files = ["network.json", "profile.json", "release.json"].map(|name| folder.path().join(name));
        for file in &files {
            fs::write(file, "the later one's\n").unwrap();
        }
        let left = || fs::read_dir(folder.path()).unwrap().count();
        forget(&files, "the earlier one's\n");
        assert_eq!(left(), 3);
        forget(&files, "the later one's\n");
        assert_eq!(left(), 0);
    }
}
