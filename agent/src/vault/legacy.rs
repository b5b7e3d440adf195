//! What the vault does for the existing network. It writes what it signs itself, from the closed forms of
//! [`Request`], so that a courier in somebody else's hands can neither sign a second result nor anything else.

use blf_bridge::legacy::request_text;
use blf_contracts::transaction::Transaction;
use blf_evidence::job::{Role, Verdict};
use blf_evidence::profile::{CofheProfile, Inputs, Protocol};
use blf_evidence::{Hex, UnixTime};
use serde::Serialize;

use super::{Running, State, Vault, lock};
use crate::certificate::LIFETIME_CAP;
use crate::error::{IclError, InternalError, JobError, VaultError};
use crate::frames::FromVault;
use crate::legacy::frames::store_key_call;
use crate::legacy::frames::{Ask, Judge, Output, Request, Run, Signed, StoreKey, Told};
use crate::legacy::job::{Claim, Done, Led, Model, Part, Publisher};
use crate::legacy::mock;
use crate::legacy::wire::{AttestBody, ClaimBody, HeartbeatBody, ResultBody, VerdictBody};

/// Longest body that is signed, in bytes.
const BODY_CAP: usize = 64 * 1024;
/// Jobs between their answer and their end.
const DONE_CAP: usize = 16;
/// How long a job may take from its answer to its end, in seconds: the coordinator gives it five minutes in all.
const DONE_LIFETIME: u64 = 600;
/// Transactions for one job: a first one, and two more whose nonce or fee was overtaken.
const TRANSACTIONS: u8 = 3;
/// Most gas for one transaction; storing a key took under a million where it was measured.
const GAS_CAP: u64 = 10_000_000;
/// Most that one transaction may cost, in wei: a hundredth of an ether. Who gives prices could else spend the account.
const FEE_CAP: u128 = 10_000_000_000_000_000;

impl Vault {
    /// Answers the courier.
    pub(super) fn legacy(&self, ask: Ask) -> Result<FromVault, VaultError> {
        if self.profile.protocol != Protocol::Legacy {
            return Err(InternalError::Protocol.into());
        }
        let told = match ask {
            Ask::Time(time) => {
                self.clock.advance(time);
                return Ok(FromVault::Done);
            }
            Ask::Attested { expiry } => {
                self.attested(expiry)?;
                return Ok(FromVault::Done);
            }
            Ask::Sign(request) => Told::Signed(self.write(request)?),
            Ask::Run(run) => Told::Ran(self.run_legacy(run)?),
            Ask::StoreKey(store) => self.store_key(store)?,
            Ask::Result { job } => Told::Signed(self.result(&job)?),
            Ask::Judge(judge) => Told::Signed(self.judge(&judge)?),
        };
        Ok(FromVault::Legacy(told))
    }

    fn attested(&self, expiry: UnixTime) -> Result<(), VaultError> {
        let now = self.clock.now();
        if expiry <= now {
            return Err(IclError::NotCertified.into());
        }
        self.with_keys(|keys| Ok(keys.promote_unproved(expiry.min(now.plus(LIFETIME_CAP)))?))
    }

    fn write(&self, request: Request) -> Result<Signed, VaultError> {
        let node_address = self.facts.node;
        match request {
            Request::Get => self.sign_body(Vec::new()),
            Request::Attest { challenge, nonce } => {
                let held = self.facts.models.iter().map(|model| model.id.clone());
                self.sign(&AttestBody {
                    node_address,
                    backend_type: mock::BACKEND,
                    quote: mock::quote(&nonce),
                    runtime_hash: mock::runtime_hash(),
                    challenge_id: challenge,
                    supported_model_ids: held.chain([mock::MODEL.into()]).collect(),
                })
            }
            Request::Claim(job_id) => self.sign(&ClaimBody { job_id, node_address }),
            Request::Heartbeat => self.sign(&HeartbeatBody { node_address, timestamp: self.clock.now() }),
        }
    }

    fn run_legacy(&self, run: Run) -> Result<Option<Output>, VaultError> {
        let now = self.clock.now();
        let (role, blob) = (run.role, run.blob);
        let cofhe = self.cofhe()?;
        let publisher = Publisher { inputs: cofhe.inputs, account: self.facts.node, chain_id: self.profile.chain_id };
        if role == Role::Leader && publisher.inputs == Inputs::Tfhe {
            // Before inference, because the key could not be published afterwards.
            return Err(JobError::Publish(blf_bridge::cofhe::PublishError::NotBuilt).into());
        }
        let job = run.job.digest();
        let model = Model::named(&run.model, &self.facts.models).ok_or(JobError::UnknownModel)?;
        let claim = {
            let mut state = lock(&self.state);
            let State { keys, legacy, running, .. } = &mut *state;
            let keys = keys.as_mut().ok_or(InternalError::Wiped)?;
            keys.certified(now)?;
            legacy.retain(|_, done| now < done.until);
            if running.len() >= self.max_jobs || legacy.len() >= DONE_CAP {
                return Err(InternalError::Busy { max: self.max_jobs }.into());
            }
            let generation = keys.sealing(&run.boxes.sealing, now).ok_or(JobError::SealingKey)?;
            state.begin(job)?;
            Claim { job: run.job, user: run.user, model, boxes: run.boxes, generation }
        };
        let _running = Running { vault: self, job };
        let (part, output) = claim.run(role, &blob, &*self.engine, &publisher)?;
        let mut state = lock(&self.state);
        state.awaited(&job)?;
        state.legacy.insert(job, Done { until: self.clock.now().plus(DONE_LIFETIME), part });
        Ok(output)
    }

    /// Stores the output key of a job that this node led, for the job's user and nobody else, in the measured contract.
    fn store_key(&self, store: StoreKey) -> Result<Told, VaultError> {
        let StoreKey { job, inputs, nonce, max_fee, max_priority_fee, gas } = store;
        if gas > GAS_CAP || max_fee.saturating_mul(gas.into()) > FEE_CAP {
            return Err(JobError::Fee.into());
        }
        let contract = self.cofhe()?.prompt_key_store;
        self.with_job(&job, |keys, done| {
            let Part::Led(led) = &mut done.part else { return Err(JobError::NotCommitted.into()) };
            if led.transactions == TRANSACTIONS {
                return Err(JobError::Fee.into());
            }
            led.transactions += 1;
            let transaction = Transaction {
                chain_id: self.profile.chain_id,
                nonce,
                max_priority_fee_per_gas: max_priority_fee,
                max_fee_per_gas: max_fee,
                gas_limit: gas,
                to: contract,
                input: store_key_call(&led.job, &inputs, led.user),
            };
            let signed = transaction.signed(&keys.node().sign_digest(&transaction.digest()));
            let hash = Hex(signed.hash);
            led.stored = Some((inputs, hash));
            Ok(Told::Transaction { raw: signed.raw, hash })
        })
    }

    /// The leader's result, once.
    fn result(&self, job: &Hex<32>) -> Result<Signed, VaultError> {
        let led = self.end(job, |part| matches!(part, Part::Led(led) if led.stored.is_some()))?;
        let Part::Led(led) = led else { return Err(JobError::NotCommitted.into()) };
        let Led { job, cid, commitment, stored, .. } = *led;
        let ([high, low], transaction) = stored.ok_or(JobError::NotCommitted)?;
        let [high, low] = [high.into(), low.into()];
        self.sign(&ResultBody::new(job, cid, commitment, [high, low], transaction))
    }

    /// The verifier's verdict, once.
    fn judge(&self, judge: &Judge) -> Result<Signed, VaultError> {
        let Part::Verified(verified) = self.end(&judge.job, |part| matches!(part, Part::Verified(_)))? else {
            return Err(JobError::NotCommitted.into());
        };
        let node = self.facts.node;
        let judged = verified.judge(node, &judge.cid, judge.stored, &judge.commitment);
        let (verdict, commitment_hash) =
            judged.map_or_else(|other| (Verdict::Reject, other), |same| (Verdict::Confirm, same));
        self.sign(&VerdictBody {
            job_id: verified.job,
            verifier_address: node,
            commitment_hash,
            verdict,
            confidence: 100,
        })
    }

    fn cofhe(&self) -> Result<&CofheProfile, JobError> {
        self.profile.cofhe.as_ref().ok_or(JobError::NoCofhe)
    }

    /// Takes a job out, if it is `wanted`.
    fn end(&self, job: &Hex<32>, wanted: impl FnOnce(&Part) -> bool) -> Result<Part, VaultError> {
        let mut state = lock(&self.state);
        if state.keys.is_none() {
            return Err(InternalError::Wiped.into());
        }
        if !state.legacy.get(job).is_some_and(|done| wanted(&done.part)) {
            return Err(JobError::NotCommitted.into());
        }
        Ok(state.legacy.remove(job).ok_or(JobError::NotCommitted)?.part)
    }

    fn with_job<R>(
        &self,
        job: &Hex<32>,
        work: impl FnOnce(&crate::keys::Keys, &mut Done) -> Result<R, VaultError>,
    ) -> Result<R, VaultError> {
        let mut state = lock(&self.state);
        let State { keys, legacy, .. } = &mut *state;
        let keys = keys.as_ref().ok_or(InternalError::Wiped)?;
        work(keys, legacy.get_mut(job).ok_or(JobError::NotCommitted)?)
    }

    fn sign(&self, body: &impl Serialize) -> Result<Signed, VaultError> {
        self.sign_body(serde_json::to_vec(body).map_err(|_| InternalError::Body)?)
    }

    fn sign_body(&self, body: Vec<u8>) -> Result<Signed, VaultError> {
        if body.len() > BODY_CAP {
            return Err(InternalError::Body.into());
        }
        let time = self.clock.now();
        let signature = self.with_keys(|keys| Ok(keys.node().sign(request_text(&body, time.0))))?;
        Ok(Signed { body, time, signature })
    }
}
