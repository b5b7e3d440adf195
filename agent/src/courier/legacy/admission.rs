//! Admission to the existing network: a challenge that nobody remembers, a quote that proves nothing, an expiry.

use std::time::Duration;

use blf_evidence::UnixTime;

use super::icl::Icl;
use crate::certificate::LIFETIME_CAP;
use crate::courier::admission::{AdmissionError, QUICK};
use crate::daemon::{Admitted, Node};
use crate::frames::ToVault;
use crate::legacy::frames::Ask;
use crate::tunnel::Tunnel;

/// How long the coordinator is trusted to remember the node: one that lost its state says so to nobody, it has no work.
const REMEMBERED: Duration = Duration::from_secs(60 * 60);

/// Attests once; `attesting` is called before the coordinator sees a quote. Gives the tier, and how long it lasts.
pub(crate) async fn admit<T: Tunnel>(
    node: &Node<T>,
    icl: &Icl<T>,
    attesting: impl FnOnce(),
) -> Result<(u8, Admitted, Duration), AdmissionError> {
    let challenge = icl.challenge().await?;
    // It came through TLS from a measured name: the only time that this network authenticates. What was connected before is
    // judged again by it.
    node.vault.done(ToVault::Legacy(Ask::Time(challenge.made_at)), QUICK).await?;
    node.clock.advance(challenge.made_at);
    node.renew();
    attesting();
    let attested = icl.attest(challenge).await?;
    node.vault.done(ToVault::Legacy(Ask::Attested { expiry: attested.expiry }), QUICK).await?;
    let now = node.clock.now();
    let until: UnixTime = attested.expiry.min(now.plus(LIFETIME_CAP));
    let life = Duration::from_secs(until.0.saturating_sub(now.0));
    Ok((attested.tier, Admitted { until }, life.min(REMEMBERED)))
}
