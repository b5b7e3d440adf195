//! What verifying costs beside what else verifies, in one run: `measurements/appraisal/bench`.
//!
//! The clock is the CPU time of this thread. Everything is measured in turns, so that what disturbs the machine disturbs all.

#[path = "../tests/common/azure.rs"]
mod azure;
#[path = "../tests/common/collateral.rs"]
mod collateral;
#[path = "../tests/tdx/oracle.rs"]
#[allow(dead_code, unused_imports)] // its verdicts are compared in the tests
mod oracle;
#[path = "../tests/common/snp.rs"]
mod snp;

use std::hint::black_box;
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED, UnparsedPublicKey};
use blf_appraisal::aws_lc::AwsLc;
use blf_appraisal::rust_crypto::RustCrypto;
use blf_appraisal::snp::{Chain, Root};
use blf_appraisal::{Endorsers, authenticate, tdx};
use blf_evidence::azure::HclReport;
use blf_evidence::bundle::{Evidence, Platform, SCHEMA, SnpEvidence};
use blf_evidence::endorsements::{Endorsements, SnpEndorsements, TdxEndorsements};
use blf_evidence::snp::{Family, Report};
use blf_evidence::statement::{Binding, Statement};
use blf_evidence::tdx::Quote;
use blf_evidence::{Base64, Hex, UnixTime};
use rustix::time::{ClockId, clock_gettime};
use sev::certs::snp::Verifiable as _;
use sev::parser::ByteParser as _;
use sha2::{Digest as _, Sha256};
use x509_cert::der::Decode as _;

use collateral::collateral;

const ROUNDS: usize = 60;
/// How long one sample lasts at least.
const SAMPLE: Duration = Duration::from_millis(2);
const NOW: UnixTime = UnixTime(1_793_491_200);
const QUOTE_NOW: UnixTime = UnixTime(1_752_000_000);

/// One thing to measure, and what it is measured against.
struct Row<'a> {
    name: &'static str,
    run: Box<dyn Fn() + 'a>,
    /// Another row by its name, and the most that this one may take of its time.
    beside: Option<(&'static str, f64)>,
    /// The most microseconds it may take.
    limit: Option<f64>,
    repeat: u32,
    samples: Vec<f64>,
}

impl<'a> Row<'a> {
    fn new<T>(name: &'static str, run: impl Fn() -> T + 'a) -> Self {
        let run = Box::new(move || drop(black_box(run())));
        Self { name, run, beside: None, limit: None, repeat: 1, samples: Vec::new() }
    }

    fn beside(self, other: &'static str, most: f64) -> Self {
        Self { beside: Some((other, most)), ..self }
    }

    fn limit(self, microseconds: f64) -> Self {
        Self { limit: Some(microseconds), ..self }
    }

    /// Microseconds of one run, from one sample.
    fn sample(&self) -> f64 {
        let start = cpu();
        (0..self.repeat).for_each(|_| (self.run)());
        (cpu() - start).as_secs_f64() * 1e6 / f64::from(self.repeat)
    }

    fn calibrate(&mut self) {
        while self.sample() * f64::from(self.repeat) < SAMPLE.as_secs_f64() * 1e6 {
            self.repeat *= 2;
        }
    }

    fn min(&self) -> f64 {
        self.samples.iter().copied().fold(f64::INFINITY, f64::min)
    }

    fn median(&self) -> f64 {
        let mut sorted = self.samples.clone();
        sorted.sort_by(f64::total_cmp);
        sorted[sorted.len() / 2]
    }
}

fn main() {
    let evidence = Inputs::read();
    let mut rows = rows(&evidence);
    rows.iter_mut().for_each(Row::calibrate);
    for round in 0..ROUNDS {
        eprint!("\rround {} of {ROUNDS}", round + 1);
        for row in &mut rows {
            let sample = row.sample();
            row.samples.push(sample);
        }
    }
    eprintln!();
    print(&rows);
    throughput(&evidence);
}

/// CPU time of this thread so far.
fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap())
}

fn print(rows: &[Row<'_>]) {
    let mut out = std::io::stdout().lock();
    let line = "| what | min us | median us | per second | beside | ratio | aim | met |";
    writeln!(out, "{line}\n|---|---|---|---|---|---|---|---|").unwrap();
    for row in rows {
        let other = row.beside.map(|(name, most)| (rows.iter().find(|other| other.name == name).unwrap(), most));
        let ratio = other.map(|(other, _)| row.min() / other.min());
        let (beside, shown) = match (other, ratio) {
            (Some((other, _)), Some(ratio)) => (other.name, format!("{ratio:.2}")),
            _ => ("", String::new()),
        };
        let (aim, met) = match (row.limit, other, ratio) {
            (Some(limit), ..) => (format!("<= {limit} us"), Some(row.min() <= limit)),
            (None, Some((_, most)), Some(ratio)) => (format!("<= {most:.2}"), Some(ratio <= most)),
            _ => (String::new(), None),
        };
        let met = met.map_or("", |met| if met { "yes" } else { "NO" });
        let (min, median) = (row.min(), row.median());
        let rate = 1e6 / median;
        let name = row.name;
        writeln!(out, "| {name} | {min:.1} | {median:.1} | {rate:.0} | {beside} | {shown} | {aim} | {met} |").unwrap();
    }
}

/// Cold verifications in a second on 1 to all cores.
fn throughput(evidence: &Inputs) {
    let cores = thread::available_parallelism().unwrap().get();
    let mut out = std::io::stdout().lock();
    writeln!(out, "\n| cores | SNP cold, per second of wall time | of n times one core |\n|---|---|---|").unwrap();
    let mut alone = 0.0;
    for count in 1..=cores {
        let (stop, done) = (AtomicBool::new(false), AtomicU64::new(0));
        let start = Instant::now();
        thread::scope(|scope| {
            for _ in 0..count {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        evidence.snp_cold();
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            thread::sleep(Duration::from_secs(3));
            stop.store(true, Ordering::Relaxed);
        });
        #[allow(clippy::cast_precision_loss)] // thousands
        let (rate, cores) = (done.into_inner() as f64 / start.elapsed().as_secs_f64(), count as f64);
        if count == 1 {
            alone = rate;
        }
        writeln!(out, "| {count} | {rate:.0} | {:.2} |", rate / alone / cores).unwrap();
    }
}

/// What is verified: genuine vectors, and a node of our own for the whole bundle.
struct Inputs {
    report: Vec<u8>,
    /// ARK, ASK, VCEK in DER.
    chain: [Vec<u8>; 3],
    endorsements: SnpEndorsements,
    roots: Vec<Root>,
    quote: Vec<u8>,
    collateral: TdxEndorsements,
    intel: tdx::Root,
    azure: blf_evidence::bundle::AzureEvidence,
    azure_endorsements: Endorsements,
    endorsers: Endorsers,
    /// A document, and whom to believe for it.
    bundle: (String, Endorsers),
}

impl Inputs {
    fn read() -> Self {
        let pem = azure::vector("snp/turin-v5-azure/vcek.pem");
        let vek = x509_cert::der::pem::decode_vec(&pem).unwrap().1;
        let root =
            |name: &str| std::fs::read(format!("{}/roots/amd/turin-{name}.der", env!("CARGO_MANIFEST_DIR"))).unwrap();
        let (azure_evidence, vcek) = azure::genuine("evidence-snp-v1.json");
        Self {
            report: azure::vector("snp/turin-v5-azure/report.bin"),
            endorsements: SnpEndorsements { vek: Some(Base64(vek.clone())), ..SnpEndorsements::default() },
            chain: [root("ark"), root("ask"), vek],
            roots: Root::pinned(),
            quote: azure::vector("tdx/v4-phala-uptodate/quote.bin"),
            collateral: collateral(&azure::vector("tdx/v4-phala-uptodate/collateral.json")).unwrap(),
            intel: tdx::Root::pinned(),
            azure: azure_evidence,
            azure_endorsements: azure::with_vcek(vcek),
            endorsers: Endorsers::default(),
            bundle: bundle(),
        }
    }

    fn snp_cold(&self) {
        let authentic = blf_appraisal::snp::authenticate(&self.report, &self.endorsements, &self.roots, NOW, &AwsLc);
        black_box(authentic.unwrap());
    }
}

fn rows(of: &Inputs) -> Vec<Row<'_>> {
    const P384: &str = "AWS-LC, one P-384 signature";
    const SEV: &str = "sev 8.0.0, the same chain and report";
    const DCAP: &str = "dcap-qvl 0.7.1 over AWS-LC, the same quote";
    let report = Report::parse(&of.report).unwrap();
    let vcek = x509_cert::Certificate::from_der(&of.chain[2]).unwrap();
    let point = vcek.tbs_certificate().subject_public_key_info().subject_public_key.raw_bytes().to_vec();
    let chain = Chain::verify(&of.endorsements, &of.roots, &AwsLc).unwrap();
    let snp = |crypto| blf_appraisal::snp::authenticate(&of.report, &of.endorsements, &of.roots, NOW, crypto).unwrap();
    let mut flipped = of.report.clone();
    flipped[0x90] ^= 1;
    let noise: Vec<u8> = (0..of.report.len()).map(|at| Sha256::digest(at.to_le_bytes())[0]).collect();
    let noise_text = noise.clone();
    let mut nearly = of.quote.clone();
    nearly[48 + 584] ^= 1;
    vec![
        Row::new(P384, move || {
            let signed = Report::signed_part(&of.report).unwrap();
            UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, &point).verify(signed, &report.signature.0).unwrap();
        }),
        Row::new("SNP, cold: chain and report", move || of.snp_cold()).beside(P384, 300.0 / 135.0),
        Row::new("SNP, warm: chain kept", move || chain.authenticate(&of.report, NOW, &AwsLc).unwrap())
            .beside(P384, 180.0 / 135.0),
        Row::new(SEV, move || {
            let [ark, ask, vek] = &of.chain;
            let chain = sev::certs::snp::Chain::from_der(ark, ask, vek).unwrap();
            let report = sev::firmware::guest::AttestationReport::from_bytes(&of.report).unwrap();
            (&chain, &report).verify().unwrap();
        }),
        Row::new("SNP, cold, beside sev", move || of.snp_cold()).beside(SEV, 1.0 / 7.0),
        Row::new("SNP, cold, RustCrypto", move || snp(&RustCrypto)),
        Row::new(DCAP, move || {
            oracle::verify(&of.quote, &of.collateral, INTEL, QUOTE_NOW.0).unwrap();
        }),
        Row::new("TDX: quote and collateral", move || {
            tdx::authenticate(&of.quote, &of.collateral, &of.intel, QUOTE_NOW, &AwsLc).unwrap()
        })
        .beside(DCAP, 1.15),
        Row::new("Azure: SNP, runtime data, vTPM", move || {
            blf_appraisal::azure::authenticate(
                &of.azure,
                azure::CHALLENGE,
                &of.azure_endorsements,
                &of.endorsers,
                snp::NOW,
                &AwsLc,
            )
            .unwrap()
        }),
        Row::new("whole bundle of SNP: JSON to Authentic", move || {
            let evidence = Evidence::parse(of.bundle.0.as_bytes()).unwrap();
            authenticate(&evidence, &of.bundle.1, snp::NOW, &AwsLc).unwrap()
        }),
        Row::new("junk: 1184 bytes as a report", {
            let noise = noise.clone();
            move || blf_appraisal::snp::authenticate(&noise, &of.endorsements, &of.roots, NOW, &AwsLc).unwrap_err()
        })
        .limit(5.0),
        Row::new("junk: 1184 bytes as a TD quote", {
            let noise = noise.clone();
            move || Quote::parse(&noise).unwrap_err()
        })
        .limit(5.0),
        Row::new("junk: 1184 bytes as an HCL report", {
            let noise = noise.clone();
            move || HclReport::parse(&noise).unwrap_err()
        })
        .limit(5.0),
        Row::new("junk: 1184 bytes as a bundle", move || Evidence::parse(&noise_text).unwrap_err()).limit(5.0),
        Row::new("junk: a quote with another length inside", move || Quote::parse(&nearly).unwrap_err()).limit(5.0),
        Row::new("one bit of a report flipped, chain kept", {
            let chain = Chain::verify(&of.endorsements, &of.roots, &AwsLc).unwrap();
            move || chain.authenticate(&flipped, NOW, &AwsLc).unwrap_err()
        }),
    ]
}

const INTEL: &[u8] = include_bytes!("../roots/intel/sgx-root-ca.der");

/// A node's document, by a chip of ours: as a real one, but with RSA keys of 2048 bits instead of 4096.
fn bundle() -> (String, Endorsers) {
    let mut case = snp::Case::vcek(Family::Turin);
    let binding = Binding {
        config_sha256: Hex(Sha256::digest(b"{}").into()),
        ..Binding::parse(include_bytes!("../../evidence/tests/vectors/binding.json")).unwrap()
    };
    let raw = binding.to_canonical().unwrap();
    case.report.report_data = Statement::new(binding.keys.node, raw.as_bytes()).0;
    let stapled = Endorsements { snp: Some(case.endorsements()), ..Endorsements::default() };
    let evidence = Evidence {
        schema: SCHEMA.into(),
        binding: raw,
        config: "{}".into(),
        platform: Platform::Snp(SnpEvidence { report: Base64(case.signed_report().to_vec()), certificates: None }),
        endorsements: Some(Base64(stapled.to_json().unwrap().into_bytes())),
    };
    (evidence.to_json().unwrap(), Endorsers { amd: case.roots, ..Endorsers::default() })
}
