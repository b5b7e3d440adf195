//! The verdict, as at most a dozen lines for people and as one JSON object.

use anstyle::AnsiColor;
use blf_appraisal::check::{Check, Rejected, Stage};
use blf_appraisal::result::{AttestationResult, TrustVector};
use blf_evidence::{Hex, UnixTime};
use serde::{Serialize, Serializer};

use crate::advice;
use crate::failure::{Exit, Failure};
use crate::nodes::refused;
use crate::terminal::{colour, escaped};
use crate::time::written;

/// How an appraisal ended. Its JSON has the same members for every verdict.
#[derive(Serialize)]
pub struct Report {
    /// `blf.verify/v1`.
    pub schema: &'static str,
    /// How it ended.
    pub verdict: Verdict,
    /// What was asked for on the command line.
    pub target: String,
    /// The time by which it was judged.
    pub at: UnixTime,
    /// The policy by which it was judged, a file or a name; null if it did not come to that.
    pub policy: Option<String>,
    /// What the tier means; null unless verified.
    pub meaning: Option<&'static str>,
    /// Why not; null if verified.
    pub failure: Option<Failure>,
    /// Every check that was made, in order; the one that failed is the last.
    pub checks: Vec<Check>,
    /// The attestation result; null unless verified. Its checks are those above.
    #[serde(serialize_with = "without_checks")]
    pub result: Option<AttestationResult>,
    /// The key in the evidence, with which the session ended that brought it; null where there was none.
    pub tls_spki_sha256: Option<Hex<32>>,
}

/// What was judged, and by what.
#[derive(Clone, Copy)]
pub(super) struct Case<'a> {
    pub(super) target: &'a str,
    pub(super) at: UnixTime,
    pub(super) policy: Option<&'a str>,
}

/// How an appraisal ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Genuine and wanted.
    Verified,
    /// Not genuine, or not wanted.
    Rejected,
    /// Neither: evidence or endorsements are missing or too old.
    NoVerdict,
}

/// What belongs together on one line.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Group {
    Genuine,
    Answer,
    Image,
    Platform,
    Tcb,
    Work,
    Trust,
}

impl Report {
    pub(super) fn verified(case: Case<'_>, result: AttestationResult, tls: Option<Hex<32>>) -> Self {
        Self {
            schema: "blf.verify/v1",
            verdict: Verdict::Verified,
            target: case.target.into(),
            at: case.at,
            policy: case.policy.map(Into::into),
            meaning: Some(result.meaning()),
            failure: None,
            checks: result.checks.clone(),
            result: Some(result),
            tls_spki_sha256: tls,
        }
    }

    /// For a failure that is a verdict, with the checks that were made before.
    pub(super) fn failed(case: Case<'_>, failure: Failure, checks: Vec<Check>) -> Self {
        let verdict = if failure.exit == Exit::Rejected { Verdict::Rejected } else { Verdict::NoVerdict };
        let mut failure = advice::with_hint(failure);
        failure.hint.get_or_insert_with(|| advice::ASK_AGAIN.into());
        Self {
            schema: "blf.verify/v1",
            verdict,
            target: case.target.into(),
            at: case.at,
            policy: case.policy.map(Into::into),
            meaning: None,
            failure: Some(failure),
            checks,
            result: None,
            tls_spki_sha256: None,
        }
    }

    pub(super) fn refused(case: Case<'_>, rejected: &Rejected) -> Self {
        let checks = rejected.passed.iter().chain(std::iter::once(&rejected.failed)).cloned().collect();
        Self::failed(case, refused(rejected, case.target), checks)
    }

    /// The result, or why there is none.
    ///
    /// # Errors
    /// [`Exit::Rejected`] and [`Exit::NoVerdict`].
    pub fn into_result(self) -> Result<AttestationResult, Failure> {
        match (self.result, self.failure) {
            (Some(result), _) => Ok(result),
            (None, Some(failure)) => Err(failure),
            (None, None) => Err(Failure::new(Exit::NoVerdict, "NO_VERDICT", "no verdict")),
        }
    }

    /// What the process ends with.
    pub fn exit(&self) -> u8 {
        self.failure.as_ref().map_or(0, |failure| failure.exit as u8)
    }

    /// At most a dozen lines that end in the verdict; with `verbose` every check has one of its own.
    pub fn lines(&self, verbose: bool) -> Vec<String> {
        let mut lines: Vec<String> = if verbose {
            self.checks.iter().map(|check| line(check.ok, check.id.names().0, &compared(check))).collect()
        } else {
            self.groups()
        };
        if let Some(key) = self.tls_spki_sha256 {
            lines.push(line(true, "session", &format!("ended with the guest's own key {key}")));
        }
        if let Some(result) = &self.result {
            lines.push(line(
                true,
                "keys",
                &format!("node {}, until {}", result.binding.keys.node, written(result.expires_at)),
            ));
        }
        if let Some(policy) = &self.policy {
            let text = format!("as of {}, by the policy {}", written(self.at), escaped(policy));
            lines.push(format!("      {:<8}  {text}", "judged"));
        }
        lines.extend(self.last_lines());
        lines
    }

    /// One line for each group whose checks all passed, and one for the check that did not.
    fn groups(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for group in Group::ALL {
            let checks: Vec<&Check> = self.checks.iter().filter(|check| Group::of(check) == group).collect();
            let passed = checks.iter().filter(|check| check.ok).count();
            if passed > 0 {
                let detail = escaped(&self.detail(group, &checks));
                let plural = if passed == 1 { "" } else { "s" };
                lines.push(line(true, group.name(), &format!("{passed} check{plural}{detail}")));
            }
            if let Some(failed) = checks.iter().find(|check| !check.ok) {
                lines.push(line(false, group.name(), &format!("{}: {}", failed.id, compared(failed))));
            }
        }
        lines
    }

    /// What the checks of a group were about.
    fn detail(&self, group: Group, checks: &[&Check]) -> String {
        let got = |names: &[&str]| {
            let check = checks.iter().find(|check| check.ok && names.contains(&check.id.names().0));
            check.map(|check| format!(": {}", shortened(&check.got)))
        };
        let text = match group {
            Group::Genuine => Some(format!(": {}", self.platform())),
            Group::Answer => got(&["nonce"]).map(|nonce| format!("{nonce} answered")),
            Group::Image => match &self.result {
                Some(result) => Some(format!(": {} {}, {}", result.image_id, result.version, result.measurement_id)),
                None => got(&["measurement"]),
            },
            Group::Platform => got(&["chip.family", "tdx.attributes", "platform"]),
            Group::Tcb => got(&["snp.tcb", "tdx.tcb_status"]),
            Group::Work => got(&["models"]),
            Group::Trust => self.result.as_ref().map(|result| format!(": {}", trust(&result.trust))),
        };
        text.unwrap_or_default()
    }

    /// By the checks of whose formats the evidence was taken apart.
    fn platform(&self) -> String {
        let made = |prefix: &str| self.checks.iter().any(|check| check.id.names().0.starts_with(prefix));
        let names = [("azure.", "Azure"), ("snp.", "SEV-SNP"), ("tdx.", "TDX"), ("quote", "TPM 2.0")];
        let names: Vec<&str> = names.iter().filter(|(prefix, _)| made(prefix)).map(|(_, name)| *name).collect();
        if names.is_empty() { "no platform yet".into() } else { names.join(", ") }
    }

    /// The verdict, and before it what to do if it is not the wanted one.
    fn last_lines(&self) -> Vec<String> {
        let development = self.result.as_ref().is_some_and(|result| result.tier == 0);
        let (style, word) = match self.verdict {
            // Genuine, and no reason to be at ease.
            Verdict::Verified if development => (colour(AnsiColor::Yellow), "VERIFIED"),
            Verdict::Verified => (colour(AnsiColor::Green), "VERIFIED"),
            Verdict::Rejected => (colour(AnsiColor::Red), "REJECTED"),
            Verdict::NoVerdict => (colour(AnsiColor::Yellow), "NO VERDICT"),
        };
        let Some(failure) = &self.failure else {
            return vec![format!("{style}{word}{style:#} {}", self.meaning.unwrap_or_default())];
        };
        let next = failure.hint.as_deref().unwrap_or(advice::ASK_AGAIN);
        let see = advice::documented(&failure.code);
        let message = escaped(&failure.message);
        // What failed has a line of its own above, if it was a check.
        let message = if self.checks.iter().any(|check| !check.ok) { escaped(&self.target) } else { message };
        let verdict = format!("{style}{word}{style:#} {}: {message}", failure.code);
        vec![format!("next  {next}"), format!("see   {see}"), verdict]
    }
}

impl Group {
    const ALL: [Self; 7] =
        [Self::Genuine, Self::Answer, Self::Image, Self::Platform, Self::Tcb, Self::Work, Self::Trust];

    fn of(check: &Check) -> Self {
        let name = check.id.names().0;
        let begins = |prefixes: &[&str]| prefixes.iter().any(|prefix| name.starts_with(prefix));
        match check.id.stage() {
            Stage::Genuine => Self::Genuine,
            Stage::Wanted if begins(&["nonce", "audience", "purpose", "not_after", "validity", "anchor"]) => {
                Self::Answer
            }
            Stage::Wanted if begins(&["measurement", "reference", "release", "profile", "pcr", "tdx.rtmr"]) => {
                Self::Image
            }
            Stage::Wanted if begins(&["snp.tcb", "snp.mitigations", "snp.crl", "tdx.tcb", "tdx.collateral"]) => {
                Self::Tcb
            }
            Stage::Wanted if begins(&["models", "numeric_profile", "gpu"]) => Self::Work,
            Stage::Wanted if begins(&["ak", "event_log", "tier"]) => Self::Trust,
            Stage::Wanted => Self::Platform,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Genuine => "genuine",
            Self::Answer => "answer",
            Self::Image => "image",
            Self::Platform => "platform",
            Self::Tcb => "TCB",
            Self::Work => "work",
            Self::Trust => "trust",
        }
    }
}

fn line(good: bool, name: &str, text: &str) -> String {
    let (style, mark) = if good { (colour(AnsiColor::Green), "ok  ") } else { (colour(AnsiColor::Red), "FAIL") };
    format!("{style}{mark}{style:#}  {name:<8}  {text}")
}

fn compared(check: &Check) -> String {
    let text = if check.ok { check.got.clone() } else { format!("wanted {}, got {}", check.expected, check.got) };
    escaped(&text)
}

/// So much of a value that a line stays one.
fn shortened(text: &str) -> String {
    const MOST: usize = 100;
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.into(),
    }
}

/// The five answers in words.
fn trust(trust: &TrustVector) -> String {
    let tcb: Vec<String> = trust.tcb.iter().map(word).collect();
    let tcb = if tcb.is_empty() { "nobody".into() } else { tcb.join(", ") };
    let (memory, image, roots) = (word(&trust.memory), word(&trust.image), word(&trust.roots));
    format!("memory {memory}; image by {image}; believing {tcb}; roots {roots}; GPU {}", word(&trust.gpu))
}

/// A word of the JSON, as people write it.
fn word(value: &impl Serialize) -> String {
    let word = serde_json::to_value(value).unwrap_or_default();
    word.as_str().unwrap_or_default().replace('_', " ")
}

fn without_checks<S: Serializer>(result: &Option<AttestationResult>, serializer: S) -> Result<S::Ok, S::Error> {
    let mut value = serde_json::to_value(result).map_err(serde::ser::Error::custom)?;
    if let Some(members) = value.as_object_mut() {
        members.remove("checks");
    }
    value.serialize(serializer)
}
