//! One job and its quorum: claims, commits, reveals, replacements and deadlines, without I/O.
//!
//! ```text
//! Queued ─all claimed→ Committing ─all committed→ Revealing ─leader→ Verifying ─enough confirm→ Accepted
//!    ▲ └──── a member fails or is late before it committed: a spare of the user's list takes its seat ───┐
//!    └──────────────────────────────────────────────────────────────────────────────────────────────────┘ none left: Failed
//! ```
//!
//! Of n members, floor((2n + 2) / 3) must stand behind the leader's commitment, the leader included. Before it
//! reveals, nobody sees anybody's commitment, so agreeing means having computed (architecture decision 8).

use blf_evidence::eip191::Signature;
use blf_evidence::icl::{JobStatus, LeaderResult, NodeVerdict, Phase, RequestStatus, Submit, VerifierResult};
use blf_evidence::job::{Answer, JobContext, Role, Share, Verdict};
use blf_evidence::{Address, Hex, UnixTime};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::refusal::{Refused, Result};

/// Seconds that the parts of a job may take.
#[derive(Clone, Copy, Debug)]
pub struct Deadlines {
    /// From assignment to claim.
    pub claim: u64,
    /// From claim to commit.
    pub commit: u64,
    /// From the last commit to the leader's reveal, and from there to the verifiers'.
    pub reveal: u64,
}

/// A job as it is stored.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Job {
    pub(crate) submit: Submit,
    pub(crate) id: Hex<32>,
    pub(crate) user: Address,
    pub(crate) phase: Phase,
    pub(crate) reason: Option<String>,
    /// The quorum as it stands, leader first.
    pub(crate) members: Vec<Member>,
    /// Unused spares in the user's order.
    spares: Vec<Address>,
    not_after: UnixTime,
    reveal_by: Option<UnixTime>,
    answer: Option<(Answer, Signature)>,
}

/// One seat of the quorum.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Member {
    pub(crate) node: Address,
    pub(crate) role: Role,
    pub(crate) claim_by: UnixTime,
    /// Set by the claim.
    pub(crate) commit_by: Option<UnixTime>,
    commit: Option<Hex<32>>,
    verdict: Option<(Verdict, Signature)>,
    /// Handed back after it committed.
    withdrawn: bool,
}

/// A seat that changed hands.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Reassigned {
    pub(crate) from: Address,
    pub(crate) to: Address,
    pub(crate) reason: String,
}

/// How many of `members` must stand behind one commitment: floor((2n + 2) / 3), as in the existing network, which is
/// 2n / 3 rounded up.
pub fn quorum(members: usize) -> usize {
    (2 * members).div_ceil(3)
}

/// The commit of commit-then-reveal: SHA-256(`"blf.commit/v1"` ‖ 0x00 ‖ job ‖ node ‖ commitment ‖ salt).
pub fn commit(job: &Hex<32>, node: Address, commitment: &Hex<32>, salt: &Hex<32>) -> Hex<32> {
    let hash = Sha256::new()
        .chain_update(b"blf.commit/v1\0")
        .chain_update(job.0)
        .chain_update(node.0)
        .chain_update(commitment.0)
        .chain_update(salt.0);
    Hex(hash.finalize().into())
}

impl Job {
    /// A new job; the caller checked its members against their certificates.
    pub(crate) fn new(submit: Submit, context: &JobContext, now: UnixTime, deadlines: Deadlines) -> Self {
        let seat = |node: Address, role| Member::new(node, role, now, deadlines);
        let leader = seat(submit.leader, Role::Leader);
        let verifiers = submit.verifiers.iter().map(|node| seat(*node, Role::Verifier));
        Self {
            id: context.job_id,
            user: context.user,
            phase: Phase::Queued,
            reason: None,
            members: std::iter::once(leader).chain(verifiers).collect(),
            spares: submit.spares.clone(),
            not_after: context.not_after,
            reveal_by: None,
            answer: None,
            submit,
        }
    }

    /// True while something can still happen that matters.
    pub(crate) fn is_live(&self) -> bool {
        !matches!(self.phase, Phase::Accepted | Phase::Rejected | Phase::Failed)
    }

    /// Seats that wait for `node` to claim them: none or one.
    pub(crate) fn waits_for(&self, node: Address, now: UnixTime) -> Option<&Member> {
        self.members.iter().find(|m| m.node == node && self.is_live() && m.commit_by.is_none() && now <= m.claim_by)
    }

    /// `node` takes its seat. Asking again before the commit gives the same share again: a reply may get lost.
    pub(crate) fn claim(&mut self, node: Address, now: UnixTime, deadlines: Deadlines) -> Result<(Share, UnixTime)> {
        let (live, phase) = (self.is_live(), self.phase);
        let member = self.member(node)?;
        if !live {
            return Err(ended(phase));
        }
        if member.commit.is_some() {
            return Err(Refused::conflict("ALREADY_COMMITTED", format!("job: {node} committed before")));
        }
        if member.commit_by.is_none() && now > member.claim_by {
            let by = member.claim_by;
            return Err(Refused::conflict("CLAIM_TOO_LATE", format!("claim: wanted by {by}, got {now}")));
        }
        let commit_by = *member.commit_by.get_or_insert_with(|| now.plus(deadlines.commit));
        let share = self.submit.shares.iter().find(|s| s.node == node).cloned();
        let share = share.ok_or_else(|| Refused::internal("state: a member without a share"))?;
        self.settle(now, deadlines);
        Ok((share, commit_by))
    }

    /// The first half of commit-then-reveal.
    pub(crate) fn commit(&mut self, node: Address, commit: Hex<32>, now: UnixTime, deadlines: Deadlines) -> Result<()> {
        let (live, phase) = (self.is_live(), self.phase);
        let member = self.member(node)?;
        if member.commit.is_some() {
            return Err(Refused::conflict("ALREADY_COMMITTED", format!("job: {node} committed before")));
        }
        if !live {
            return Err(ended(phase));
        }
        match member.commit_by {
            None => return Err(Refused::conflict("NOT_CLAIMED", "commit: wanted a claim before it")),
            Some(by) if now > by => {
                return Err(Refused::conflict("COMMIT_TOO_LATE", format!("commit: wanted by {by}, got {now}")));
            }
            Some(_) => member.commit = Some(commit),
        }
        self.settle(now, deadlines);
        Ok(())
    }

    /// The leader reveals; the caller checked the answer's signature.
    pub(crate) fn lead(&mut self, result: &LeaderResult, now: UnixTime, deadlines: Deadlines) -> Result<()> {
        let (phase, answered) = (self.phase, self.answer.is_some());
        let member = self.member(result.node_address)?;
        if member.role != Role::Leader {
            return Err(Refused::forbidden("NOT_THE_LEADER", "result: wanted the leader, got a verifier"));
        }
        if answered {
            return Err(Refused::conflict("ALREADY_REVEALED", "result: the leader revealed before"));
        }
        match phase {
            Phase::Revealing => {}
            Phase::Queued | Phase::Committing => {
                return Err(Refused::conflict("NOT_ALL_COMMITTED", "result: wanted every member's commit before it"));
            }
            _ => return Err(ended(phase)),
        }
        member.open(&result.job_id, &result.answer.commitment, &result.salt)?;
        self.answer = Some((result.answer.clone(), result.signature));
        self.phase = Phase::Verifying;
        self.reveal_by = Some(now.plus(deadlines.reveal));
        self.settle(now, deadlines);
        Ok(())
    }

    /// The commitment that a verifier judges, once the leader revealed it.
    pub(crate) fn judged(&self) -> Option<Hex<32>> {
        self.answer.as_ref().map(|(answer, _)| answer.commitment)
    }

    /// A verifier reveals and judges; the caller checks the verdict's signature before it keeps the job. One who does so after the quorum was reached is recorded and changes nothing.
    pub(crate) fn verify(&mut self, result: &VerifierResult, now: UnixTime, deadlines: Deadlines) -> Result<()> {
        let (phase, leads) = (self.phase, self.judged());
        let member = self.member(result.node_address)?;
        if member.role != Role::Verifier {
            return Err(Refused::forbidden("NOT_A_VERIFIER", "verdict: wanted a verifier, got the leader"));
        }
        if member.verdict.is_some() {
            return Err(Refused::conflict("ALREADY_REVEALED", "verdict: this verifier revealed before"));
        }
        let Some(leads) = leads else {
            return Err(match phase {
                Phase::Failed => ended(phase),
                _ => Refused::conflict("LEADER_NOT_REVEALED", "verdict: wanted the leader's result before it"),
            });
        };
        member.open(&result.job_id, &result.commitment, &result.salt)?;
        let wanted = if result.commitment == leads { Verdict::Confirm } else { Verdict::Reject };
        if result.verdict != wanted {
            let detail = format!("verdict: wanted {wanted:?} for this commitment, got {:?}", result.verdict);
            return Err(Refused::unprocessable("VERDICT_CONTRADICTS", detail));
        }
        member.verdict = Some((result.verdict, result.signature));
        self.settle(now, deadlines);
        Ok(())
    }

    /// `node` hands the job back. `may_replace` says of a spare whether it can take a seat now.
    pub(crate) fn hand_back(
        &mut self,
        node: Address,
        reason: &str,
        now: UnixTime,
        deadlines: Deadlines,
        may_replace: impl Fn(Address) -> bool,
    ) -> Result<Option<Reassigned>> {
        let (live, phase) = (self.is_live(), self.phase);
        let member = self.member(node)?;
        if !live {
            return Err(ended(phase));
        }
        if member.verdict.is_some() || (member.role == Role::Leader && phase == Phase::Verifying) {
            return Err(Refused::conflict("ALREADY_REVEALED", "hand back: wanted before the reveal"));
        }
        let reason = format!("handed back: {reason}");
        if member.commit.is_none() {
            let reassigned = self.replace(node, &reason, now, deadlines, may_replace);
            self.settle(now, deadlines);
            return Ok(reassigned);
        }
        member.withdrawn = true;
        if member.role == Role::Leader {
            self.end(Phase::Failed, format!("leader {node} {reason}"));
        }
        self.settle(now, deadlines);
        Ok(None)
    }

    /// Applies every deadline that has passed.
    pub(crate) fn tick(
        &mut self,
        now: UnixTime,
        deadlines: Deadlines,
        may_replace: impl Fn(Address) -> bool,
    ) -> Vec<Reassigned> {
        let mut reassigned = Vec::new();
        if self.is_live() && now > self.not_after {
            self.end(Phase::Failed, format!("expired: the user wanted it by {}", self.not_after));
        }
        while let Some((node, reason)) = self.late(now) {
            reassigned.extend(self.replace(node, reason, now, deadlines, &may_replace));
        }
        if self.reveal_by.is_some_and(|by| now > by) {
            match self.phase {
                Phase::Revealing => self.end(Phase::Failed, "leader did not reveal in time".into()),
                Phase::Verifying => {
                    let needed = quorum(self.members.len());
                    let got = self.confirmations();
                    self.end(
                        Phase::Rejected,
                        format!("quorum: wanted {needed} of {}, got {got} in time", self.members.len()),
                    );
                }
                _ => {}
            }
        }
        self.settle(now, deadlines);
        reassigned
    }

    /// What `node` may know; spares not yet needed, members that were replaced and strangers may not.
    pub(crate) fn status(&self, node: Address) -> Result<JobStatus> {
        if !self.members.iter().any(|m| m.node == node) {
            return Err(Refused::forbidden("NOT_A_MEMBER", "job: wanted a node of its quorum"));
        }
        Ok(JobStatus {
            job_id: self.id,
            phase: self.phase,
            leader_commitment: self.judged(),
            reason: self.reason.clone(),
        })
    }

    /// What the user may know.
    pub(crate) fn request_status(&self) -> RequestStatus {
        let answer = self.answer.clone().filter(|_| self.phase == Phase::Accepted);
        let (answer, signature) = answer.unzip();
        let verdicts = self
            .members
            .iter()
            .filter_map(|m| m.verdict.map(|(verdict, signature)| NodeVerdict { node: m.node, verdict, signature }));
        RequestStatus {
            job_id: self.id,
            phase: self.phase,
            answer,
            signature,
            verdicts: verdicts.collect(),
            quorum: self.members.iter().map(|m| m.node).collect(),
            reason: self.reason.clone(),
        }
    }

    fn member(&mut self, node: Address) -> Result<&mut Member> {
        self.members
            .iter_mut()
            .find(|m| m.node == node)
            .ok_or_else(|| Refused::forbidden("NOT_A_MEMBER", format!("job: {node} has no seat in its quorum")))
    }

    /// A member whose time to claim or to commit is over.
    fn late(&self, now: UnixTime) -> Option<(Address, &'static str)> {
        if !self.is_live() {
            return None;
        }
        self.members.iter().find_map(|m| match m.commit_by {
            None if now > m.claim_by => Some((m.node, "did not claim in time")),
            Some(by) if m.commit.is_none() && now > by => Some((m.node, "did not commit in time")),
            _ => None,
        })
    }

    /// Gives the seat of `node` to the next spare that can take it; without one the job has failed.
    fn replace(
        &mut self,
        node: Address,
        reason: &str,
        now: UnixTime,
        deadlines: Deadlines,
        may_replace: impl Fn(Address) -> bool,
    ) -> Option<Reassigned> {
        while !self.spares.is_empty() {
            let spare = self.spares.remove(0);
            if !may_replace(spare) {
                continue;
            }
            let seat = self.members.iter_mut().find(|m| m.node == node)?;
            *seat = Member::new(spare, seat.role, now, deadlines);
            return Some(Reassigned { from: node, to: spare, reason: reason.to_owned() });
        }
        self.end(Phase::Failed, format!("{node} {reason}, and no spare is left"));
        None
    }

    /// Moves a live job to the phase that its members have reached.
    fn settle(&mut self, now: UnixTime, deadlines: Deadlines) {
        match self.phase {
            Phase::Queued | Phase::Committing => {
                if self.members.iter().any(|m| m.commit_by.is_none()) {
                    self.phase = Phase::Queued;
                } else if self.members.iter().any(|m| m.commit.is_none()) {
                    self.phase = Phase::Committing;
                } else {
                    self.phase = Phase::Revealing;
                    self.reveal_by = Some(now.plus(deadlines.reveal));
                }
            }
            Phase::Verifying => {
                let (needed, got) = (quorum(self.members.len()), self.confirmations());
                let open = |m: &&Member| m.role == Role::Verifier && m.verdict.is_none() && !m.withdrawn;
                let open = self.members.iter().filter(open).count();
                if got >= needed {
                    self.phase = Phase::Accepted;
                } else if got + open < needed {
                    let n = self.members.len();
                    self.end(Phase::Rejected, format!("quorum: wanted {needed} of {n}, got {got}"));
                }
            }
            _ => {}
        }
    }

    /// Members that stand behind the leader's commitment, the leader included.
    fn confirmations(&self) -> usize {
        1 + self.members.iter().filter(|m| matches!(m.verdict, Some((Verdict::Confirm, _)))).count()
    }

    fn end(&mut self, phase: Phase, reason: String) {
        self.phase = phase;
        self.reason = Some(reason);
    }
}

impl Member {
    fn new(node: Address, role: Role, now: UnixTime, deadlines: Deadlines) -> Self {
        let claim_by = now.plus(deadlines.claim);
        Self { node, role, claim_by, commit_by: None, commit: None, verdict: None, withdrawn: false }
    }

    /// Checks that `salt` opens this member's commit.
    fn open(&self, job: &Hex<32>, commitment: &Hex<32>, salt: &Hex<32>) -> Result<()> {
        let wanted =
            self.commit.ok_or_else(|| Refused::conflict("NOT_COMMITTED", "reveal: wanted a commit before it"))?;
        let got = commit(job, self.node, commitment, salt);
        if got != wanted {
            let detail = format!("reveal: wanted commitment and salt that hash to {wanted}, got {got}");
            return Err(Refused::unprocessable("SALT_MISMATCH", detail));
        }
        Ok(())
    }
}

fn ended(phase: Phase) -> Refused {
    Refused::conflict("JOB_ENDED", format!("job: wanted a live one, got {phase:?}"))
}

#[cfg(test)]
mod tests {
    use blf_evidence::job::SealedKey;

    use super::*;

    const LEADER: Address = Address([1; 20]);
    const DEADLINES: Deadlines = Deadlines { claim: 20, commit: 40, reveal: 30 };

    /// A job of one node, submitted at time 0.
    fn job() -> Job {
        let context = JobContext {
            cofhe: None,
            job_id: Hex([2; 32]),
            measurements: vec![],
            max_new_tokens: 1,
            model_manifest_sha256: Hex([3; 32]),
            not_after: UnixTime(1000),
            reply_hpke: Hex([4; 32]),
            user: Address([5; 20]),
            v: 1,
        };
        let key = SealedKey { enc: Hex([6; 32]), ct: Hex([7; 48]) };
        let submit = Submit {
            context: String::new(),
            leader: LEADER,
            model_id: String::new(),
            prompt_cid: String::new(),
            shares: vec![Share { node: LEADER, hpke: Hex([8; 32]), key }],
            spares: vec![],
            verifiers: vec![],
        };
        Job::new(submit, &context, UnixTime(0), DEADLINES)
    }

    /// Here, where no ticker takes the seat away first.
    #[test]
    fn claims_and_commits_end_with_their_deadlines() {
        let mut job = job();
        let claim = |job: &mut Job, now| job.claim(LEADER, UnixTime(now), DEADLINES);
        let commit = |job: &mut Job, now| job.commit(LEADER, Hex([9; 32]), UnixTime(now), DEADLINES);
        let late = claim(&mut job, 21).unwrap_err();
        assert_eq!((late.status.as_u16(), &*late.code), (409, "CLAIM_TOO_LATE"));
        assert_eq!(claim(&mut job, 20).unwrap().1, UnixTime(60));
        assert_eq!(claim(&mut job, 21).unwrap().1, UnixTime(60), "it is claimed");
        let late = commit(&mut job, 61).unwrap_err();
        assert_eq!((late.status.as_u16(), &*late.code), (409, "COMMIT_TOO_LATE"));
        commit(&mut job, 60).unwrap();
    }
}
