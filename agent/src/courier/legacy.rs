//! The existing network as the courier sees it: opaque jobs, sealed halves, a coordinator that is asked every few seconds.

pub(crate) mod admission;
pub(crate) mod chain;
pub(crate) mod icl;
pub(crate) mod job;

use blf_evidence::profile::{Host, NetworkProfile, Protocol};

use crate::courier::https::Https;
use crate::courier::vault::Vault;
use crate::frames::Identity;
use crate::tunnel::Tunnel;

/// Its services, for a profile of protocol `legacy`.
pub struct Network<T> {
    /// The coordinator.
    pub(crate) icl: icl::Icl<T>,
    /// Where keys of answers are stored; none while the profile does not know it.
    pub(crate) chain: Option<chain::Chain<T>>,
}

impl<T: Tunnel> Network<T> {
    /// The services that `profile` names, each reached by what `server` makes, spoken to in the name of this node.
    pub(crate) fn new(
        profile: &NetworkProfile,
        vault: Vault,
        identity: &Identity,
        server: impl Fn(Host) -> Https<T>,
    ) -> Option<Self> {
        let node = identity.node;
        let icl = match profile.protocol {
            Protocol::Legacy => icl::Icl::new(server(profile.icl.clone()), vault, node),
            Protocol::Strict => return None,
        };
        Some(Self { icl, chain: chain::Chain::new(profile, node, identity.rpc_path.clone(), server) })
    }

    /// Uses no connection made before.
    pub(crate) fn renew(&self) {
        self.icl.renew();
        if let Some(chain) = &self.chain {
            chain.renew();
        }
    }
}
