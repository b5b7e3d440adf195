//! From the command line to the work: each command gathers its inputs, checks them, and calls one module.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use blf_evidence::Base64;
use blf_evidence::config::{CREDENTIALS_CAP, Credentials};
use blf_evidence::profile::{NetworkProfile, PROFILE_CAP};
use blf_evidence::statement::Model;
use clap::CommandFactory as _;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::appraise::Appraiser;
use crate::cli::{Cli, Command, LaunchArgs, ModelCommand};
use crate::devnet::Local;
use crate::error::{Error, Exit};
use crate::forward::{DialPolicy, Resolve};
use crate::isolation::{Isolation, KVM, PROBE, Probe, check_tee};
use crate::launch::{Launch, Wish};
use crate::model::{self, Pack, Packed};
use crate::notice::{Notice, Show, print, stdout};
use crate::programs::Programs;
use crate::release::{Image, read};
use crate::vm::Transport;
use crate::{devnet, doctor, folders, journal};

/// Longest endorsements document, in bytes.
const ENDORSEMENTS_CAP: u64 = 128 * 1024;

/// Runs a command line.
///
/// # Errors
/// [`Error`], whose [`Exit`] is the exit code.
pub fn run(cli: &Cli) -> Result<(), Error> {
    journal::start(cli.log)?;
    match &cli.command {
        Command::Launch(arguments) => on_this_thread(launch(arguments, stdout(cli.json))),
        Command::Model(command) => {
            let packed = match command.clone() {
                ModelCommand::Pack { id, dir, out, max_context, max_new_tokens, eos } => {
                    model::pack(&Pack { id, dir, out, max_context, max_new_tokens, eos })
                }
                ModelCommand::Show { file } => model::show(&file, true),
            }?;
            print_pack(cli.json, &packed);
            Ok(())
        }
        Command::Doctor { image } => {
            let report = on_this_thread(async { Ok(doctor::examine(image).await) })?;
            if cli.json {
                print(json!(report));
            } else {
                print(&report);
            }
            if report.ok { Ok(()) } else { Err(Error::environment("DOCTOR", "this host lacks what is listed above")) }
        }
        Command::Completions { shell } => {
            clap_complete::generate(*shell, &mut Cli::command(), "blf-host", &mut std::io::stdout());
            Ok(())
        }
        Command::Man => clap_mangen::Man::new(Cli::command())
            .render(&mut std::io::stdout())
            .map_err(|e| Error::failed("WRITE", format!("stdout: {e}"))),
    }
}

/// Says how a command ended that did not end well: one object on stdout, or lines on stderr.
pub fn report(json: bool, error: &Error) {
    if json {
        // A report that says so itself is the one object already.
        if error.code != "DOCTOR" {
            print(json!({ "schema": "blf.failure/v1", "failure": error }));
        }
        return;
    }
    anstream::eprintln!("blf-host: {error} ({})", error.code);
    if let Some(hint) = &error.hint {
        anstream::eprintln!("    next: {hint}");
    }
}

async fn launch(arguments: &LaunchArgs, show: Show) -> Result<(), Error> {
    check_tee(arguments.tee)?;
    let image = Image::check(&arguments.image)?;
    show(&Notice::Image {
        uki: image.uki.clone(),
        bytes: image.size,
        sha256: image.sha256,
        profile: image.release.profile.name.clone(),
        locked: image.release.locked,
    });
    let profile = profile(arguments, &image)?;
    let credentials = credentials(arguments.credentials.as_deref())?;
    let model = match &arguments.model {
        None => None,
        Some(file) => {
            let Packed { bytes, manifest_sha256, manifest, .. } = model::show(file, false)?;
            show(&Notice::Model { id: manifest.id.clone(), manifest_sha256, bytes });
            Some(Model { id: manifest.id, manifest_sha256 })
        }
    };
    let endorsements = match &arguments.endorsements {
        Some(file) => Some(Base64(read(file, ENDORSEMENTS_CAP, "ENDORSEMENTS")?)),
        None => None,
    };
    let mut resolve = Resolve::default();
    for entry in &arguments.resolve {
        resolve.add(entry).map_err(|e| Error::new(Exit::Usage, "RESOLVE", e))?;
    }

    let programs = Programs::find()?;
    let transport = Transport::find(&programs)?;
    let cache = folders::cache();
    let probe = Probe {
        programs: &programs,
        transport: &transport,
        image: &image.uki,
        image_sha256: image.sha256,
        device: Path::new(KVM),
        cache: &cache,
        run_base: arguments.run_dir.as_deref(),
        within: PROBE,
    };
    let (wishes, mut wish) = watch::channel(Wish::Run);
    tokio::spawn(listen_for_signals(wishes)?);
    let isolation = tokio::select! {
        isolation = Isolation::choose(arguments.accel, &probe) => isolation?,
        _ = wish.changed() => return Ok(()),
    };
    let sentence = isolation.sentence();
    show(&Notice::Isolation { isolation: isolation.clone(), tier: 0, sentence });

    let network = if arguments.devnet {
        let model = model.as_ref().map(|model| model.id.as_str());
        Some(Local::start(&image, model, arguments.nodes, &show).await?)
    } else {
        None
    };
    if let Some(network) = &network {
        network.resolve(&mut resolve);
    }
    let launch = Launch {
        programs,
        transport,
        accel: isolation.accel,
        image: image.uki,
        model: arguments.model.clone(),
        nodes: (1..=arguments.nodes).map(|number| format!("{}-{number}", arguments.name)).collect(),
        memory_mib: arguments.memory,
        cpus: arguments.cpus,
        max_jobs: arguments.max_jobs,
        credentials: network.as_ref().map_or(credentials, Local::credentials),
        endorsements,
        policy: DialPolicy::new(&profile, resolve),
        api: arguments.api,
        judge: Arc::new(Appraiser::new(image.release, model)),
        boot_within: Duration::from_secs(arguments.boot_timeout),
        stop_within: Duration::from_secs(arguments.stop_timeout),
        run_base: arguments.run_dir.clone(),
        show,
    };
    let ended = launch.run(wish).await;
    if let Some(network) = network {
        network.stop().await;
    }
    ended
}

/// The profile, which must be the one that the image was measured with.
fn profile(arguments: &LaunchArgs, image: &Image) -> Result<NetworkProfile, Error> {
    let (file, profile) = match &arguments.profile {
        Some(file) => {
            let bytes = read(file, PROFILE_CAP as u64, "PROFILE")?;
            let wrong = |e| Error::config("PROFILE", format!("{}: {e}", file.display()));
            (file.display().to_string(), NetworkProfile::parse(&bytes).map_err(wrong)?)
        }
        None if image.release.profile.name == "devnet" && (arguments.devnet || !arguments.resolve.is_empty()) => {
            ("the devnet profile of this program".into(), devnet::profile()?)
        }
        None if image.release.profile.name == "devnet" => {
            let error =
                "an image of the devnet profile: wanted --devnet, or --resolve for a devnet elsewhere, got neither";
            return Err(Error::new(Exit::Usage, "NETWORK", error).hint("blf-host launch --devnet"));
        }
        None => {
            let error = format!("an image of the profile {}: wanted --profile FILE", image.release.profile.name);
            return Err(Error::new(Exit::Usage, "NETWORK", error));
        }
    };
    let got = profile.id().map_err(|e| Error::config("PROFILE", format!("{file}: {e}")))?;
    let wanted = image.release.profile.id;
    if wanted != got {
        let error = format!("{file}: wanted the profile that the image was measured with, id {wanted}, got id {got}");
        return Err(Error::config("PROFILE", error));
    }
    Ok(profile)
}

/// Credentials from a file that nobody else can read.
fn credentials(file: Option<&Path>) -> Result<Credentials, Error> {
    let Some(file) = file else { return Ok(Credentials { pinning_token: String::new(), v: 1 }) };
    let wrong = |e: &dyn std::fmt::Display| Error::config("CREDENTIALS", format!("{}: {e}", file.display()));
    let opened = fs::OpenOptions::new()
        .read(true)
        .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
        .open(file)
        .map_err(|e| wrong(&e))?;
    let mode = opened.metadata().map_err(|e| wrong(&e))?.mode();
    if mode & 0o077 != 0 {
        let error = wrong(&format!("wanted mode 0600, got {:04o}", mode & 0o7777));
        return Err(error.hint(format!("chmod 600 {}", file.display())));
    }
    // Of the file that was judged, whatever the name means by now; the parser refuses what is longer.
    let mut bytes = Vec::with_capacity(CREDENTIALS_CAP + 1);
    opened.take(CREDENTIALS_CAP as u64 + 1).read_to_end(&mut bytes).map_err(|e| wrong(&e))?;
    Credentials::parse(&bytes).map_err(|e| wrong(&e))
}

/// The first Ctrl-C, or SIGTERM, asks to drain and stop; the second to stop at once.
fn listen_for_signals(wishes: watch::Sender<Wish>) -> Result<impl Future<Output = ()>, Error> {
    let listen = |kind| signal(kind).map_err(|e| Error::environment("SIGNALS", e));
    let (mut interrupt, mut terminate) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
    Ok(async move {
        for wish in [Wish::Stop, Wish::Kill] {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            wishes.send_replace(wish);
        }
        // A third changes nothing, but must not end this task and with it the channel.
        std::future::pending().await
    })
}

/// One thread for everything: processes that are started here end when this thread does.
fn on_this_thread<T>(work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|e| Error::environment("RUNTIME", e))?.block_on(work)
}

fn print_pack(json: bool, packed: &Packed) {
    if json {
        print(json!({ "schema": "blf.model/v1", "model": packed }));
        return;
    }
    let Packed { file, bytes, manifest_sha256, manifest } = packed;
    print(format_args!("{}: model {}, {bytes} bytes", file.display(), manifest.id));
    print(format_args!("manifest sha256 {manifest_sha256}"));
    print(format_args!(
        "{} with {}, {} tokens of context, answers of {} tokens, ending with {:?}",
        manifest.architecture, manifest.numeric_profile, manifest.max_context, manifest.max_new_tokens, manifest.eos
    ));
    for file in &manifest.files {
        print(format_args!("{:>12} bytes  {}  {}", file.size, file.sha256, file.name.as_str()));
    }
}
