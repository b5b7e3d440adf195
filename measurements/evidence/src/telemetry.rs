//! The only things a guest says about itself (architecture decision 16): typed, allow-listed, one JSON line each.
//!
//! No event has a member that could carry a prompt, an answer or a key: members are numbers, closed words, public
//! ids, and codes in capitals.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::job::Role;
use crate::json::{self, JsonError};
use crate::{Address, Hex, UnixTime};

/// Longest event line, in bytes, without its newline.
pub const EVENT_CAP: usize = 512;

/// One event.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case", tag = "event")]
pub enum Event {
    /// A boot stage ended well.
    BootStage {
        /// Position in the boot list, from 1.
        number: u8,
        /// Length of the boot list.
        of: u8,
        /// Name of the stage.
        stage: Code,
        /// How long it took, in milliseconds.
        millis: u64,
    },
    /// A boot stage failed; the guest stops.
    BootFailed {
        /// Name of the stage.
        stage: Code,
        /// Code of the error.
        code: Code,
    },
    /// The keys are born and the models are loaded; the guest will now seek admission.
    Booted {
        /// The node's address.
        node: Address,
        /// Milliseconds since the kernel started.
        millis: u64,
        /// Memory the kernel can use, in KiB.
        memory_total_kib: u64,
        /// Memory still free, in KiB.
        memory_available_kib: u64,
    },
    /// The ICL certified the keys.
    Certified {
        /// Tier 0, 1 or 2.
        tier: u8,
        /// End of the certificate.
        not_after: UnixTime,
    },
    /// The ICL certified the keys that follow those certified before.
    Renewed {
        /// Tier 0, 1 or 2.
        tier: u8,
        /// End of the certificate.
        not_after: UnixTime,
    },
    /// The ICL acknowledged a heartbeat.
    Heartbeat {
        /// Jobs running now.
        jobs: u8,
    },
    /// The ICL showed jobs that this node has not seen before.
    Assignments {
        /// How many.
        count: u32,
    },
    /// The ICL showed no such job for a while.
    NoAssignments {
        /// How long, in seconds.
        seconds: u64,
    },
    /// The ICL assigned a job.
    Assigned {
        /// The job.
        job: Hex<32>,
        /// The node's part.
        role: Role,
    },
    /// A job entered a state.
    Job {
        /// The job.
        job: Hex<32>,
        /// The state.
        state: JobState,
        /// Milliseconds since it was assigned.
        millis: u64,
    },
    /// A job ended without a result.
    JobFailed {
        /// The job.
        job: Hex<32>,
        /// Code of the error.
        code: Code,
    },
    /// Fresh evidence was given to a user.
    EvidenceGiven {},
    /// Something outside a job went wrong and is retried.
    Trouble {
        /// Code of the error.
        code: Code,
        /// Seconds until the next attempt.
        retry_in: u64,
    },
    /// No more assignments are taken; running jobs end.
    Stopping {
        /// Jobs still running.
        jobs: u8,
    },
    /// The last event.
    Stopped {},
}

/// States of a job, in order.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// The ICL has the claim, and where it gives a key share, the share is here.
    Claimed,
    /// CoFHE sealed both halves of its share to this guest.
    KeyReceived,
    /// The sealed prompt is here and matches its CID.
    PromptFetched,
    /// The prompt is open and meant for this node; the engine runs.
    Running,
    /// The ICL has the commitment's hash.
    Committed,
    /// The sealed answer is stored (leader).
    AnswerStored,
    /// The answer's key is stored with the chain's contract (leader, where CoFHE alone carries keys).
    KeyPublished,
    /// The leader's result, or the verifier's verdict, is with the ICL.
    Revealed,
    /// The quorum accepted.
    Accepted,
}

/// 1 to 48 characters of `[A-Z0-9_]`: words of the program, never words of a user.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Code(String);

impl Code {
    /// The code.
    ///
    /// # Errors
    /// The text, if it is not a code.
    pub fn new(text: &str) -> Result<Self, String> {
        let good =
            (1..=48).contains(&text.len()) && text.bytes().all(|b| matches!(b, b'A'..=b'Z' | b'0'..=b'9' | b'_'));
        if good { Ok(Self(text.into())) } else { Err("code: wanted 1 to 48 characters of [A-Z0-9_]".into()) }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Code {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(&String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

impl Event {
    /// Parses one line without its newline.
    ///
    /// # Errors
    /// [`JsonError`].
    pub fn parse(line: &[u8]) -> Result<Self, JsonError> {
        json::parse_whole("telemetry event", line, EVENT_CAP)
    }

    /// The line, without its newline.
    ///
    /// # Errors
    /// [`JsonError::Malformed`] for numbers that JSON cannot carry.
    pub fn to_line(&self) -> Result<String, JsonError> {
        json::canonical("telemetry event", self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closed() {
        let event = Event::JobFailed { job: Hex([1; 32]), code: Code::new("PROMPT_TAG").unwrap() };
        let line = event.to_line().unwrap();
        assert_eq!(Event::parse(line.as_bytes()).unwrap(), event);
        for bad in [
            line.replace("PROMPT_TAG", "what is 2+2"),
            line.replace("\"code\"", "\"text\":\"x\",\"code\""),
            line.replace("job_failed", "free_text"),
            format!("{line}{}", " ".repeat(EVENT_CAP)),
        ] {
            assert_ne!(bad, line);
            assert!(Event::parse(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(Event::parse(br#"{"event":"evidence_given","note":"x"}"#).is_err());
    }
}
