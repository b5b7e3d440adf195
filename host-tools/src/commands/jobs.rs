//! `blf-host jobs`: what the network's payment service says of a node.

use blf_evidence::Address;
use serde_json::json;

use crate::cli::{JobsCommand, Whose};
use crate::error::{Error, Exit};
use crate::node::{Node, variable};
use crate::notice::print;
use crate::payment::{Earnings, Payment, plain};
use crate::record::Record;
use crate::settings::{Flags, Layers};

/// Earlier addresses that are asked for with `--all`.
const EARLIER: usize = 16;

/// Asks and prints.
pub(super) async fn jobs(command: &JobsCommand, json: bool) -> Result<(), Error> {
    match command {
        JobsCommand::List { whose, limit } => list(whose, *limit, json).await,
        JobsCommand::Earnings { whose } => earnings(whose, json).await,
    }
}

async fn list(whose: &Whose, limit: u8, json: bool) -> Result<(), Error> {
    let (payment, addresses) = ask_about(whose)?;
    let mut histories = Vec::new();
    for address in &addresses {
        histories.extend(known(payment.history(address, limit).await, addresses.len())?);
    }
    if json {
        print(json!({ "schema": "blf.jobs/v1", "nodes": histories }));
        return Ok(());
    }
    print(format_args!("{:<36}  {:<8}  {:<10}  BLIND earned", "Job ID", "Role", "Status"));
    for history in &histories {
        for job in &history.jobs {
            let earned = job.amount_blind_earned.map_or_else(|| "-".into(), amount);
            let [id, role, status] = [&job.job_id, &job.role, &job.status].map(|text| plain(text));
            print(format_args!("{id:<36}  {role:<8}  {status:<10}  {earned}"));
        }
    }
    if histories.iter().all(|history| history.jobs.is_empty()) {
        print("no jobs yet");
    }
    Ok(())
}

async fn earnings(whose: &Whose, json: bool) -> Result<(), Error> {
    let (payment, addresses) = ask_about(whose)?;
    let mut total = Earnings::default();
    let mut each = Vec::new();
    for address in &addresses {
        if let Some(earned) = known(payment.earnings(address).await, addresses.len())? {
            total.total_blind_earned += earned.total_blind_earned;
            total.jobs_count = total.jobs_count.saturating_add(earned.jobs_count);
            each.push(json!({ "address": address, "earnings": earned }));
        }
    }
    if json {
        print(json!({ "schema": "blf.earnings/v1", "total": total, "nodes": each }));
        return Ok(());
    }
    print(format_args!("{} BLIND for {} jobs", amount(total.total_blind_earned), total.jobs_count));
    Ok(())
}

/// The service and the addresses to ask about, the node's present one first.
fn ask_about(whose: &Whose) -> Result<(Payment, Vec<Address>), Error> {
    let flags = Flags {
        payment_service_url: whose.payment_service_url.clone(),
        payment_roots: whose.payment_roots.clone(),
        ..Flags::default()
    };
    let node = Node::named(&whose.node.name);
    let settings = if whose.address.is_some() && !node.config().is_file() {
        // Somebody else's jobs need no node here.
        let mut layers = Layers::new();
        layers.environment(variable)?;
        layers.flags(&flags, None)?;
        layers.settings()?
    } else {
        node.layers(&flags, None)?.settings()?
    };
    let addresses = match &whose.address {
        Some(text) => {
            vec![text.parse().map_err(|e| Error::new(Exit::Usage, "USAGE", format!("--address: {e}")))?]
        }
        None => addresses(&node, whose.all)?,
    };
    let Some(service) = settings.payment_service_url else {
        let error = "wanted payment_service_url, it is not set";
        return Err(Error::config("NO_PAYMENT_SERVICE", error).hint(format!(
            "payment_service_url = \"https://payment.blindference.xyz\" in {}, or BLF_PAYMENT_SERVICE_URL",
            node.config().display()
        )));
    };
    Ok((Payment::new(service, settings.payment_roots.as_deref())?, addresses))
}

fn addresses(node: &Node, all: bool) -> Result<Vec<Address>, Error> {
    let record = Record::read(node)?;
    let mut addresses: Vec<_> = record.iter().filter_map(|record| record.address).collect();
    if all || addresses.is_empty() {
        addresses.extend(record.iter().flat_map(|record| record.earlier.iter().copied()));
    }
    addresses.truncate(if all { 1 + EARLIER } else { 1 });
    if addresses.is_empty() {
        let error = format!("node {}: no address yet: the guest is born with one when it boots", node.name());
        return Err(Error::failed("NO_ADDRESS", error)
            .hint(format!("blf-host run --name {}, or ask about another with --address", node.name())));
    }
    Ok(addresses)
}

/// Where several addresses are asked about, one that the service does not know is none.
fn known<T>(answer: Result<T, Error>, of: usize) -> Result<Option<T>, Error> {
    match answer {
        Err(error) if of > 1 && error.code == "PAYMENT_UNKNOWN" => Ok(None),
        answer => answer.map(Some),
    }
}

/// With as many digits as it has, at most six behind the point.
fn amount(blind: f64) -> String {
    let text = format!("{blind:.6}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_short() {
        assert_eq!([amount(0.6), amount(1.0), amount(12.25), amount(0.0)], ["0.6", "1", "12.25", "0"]);
    }
}
