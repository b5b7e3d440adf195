//! From settings to running guests: what `launch`, `run`, `attest` and `models test` have in common.

use std::env;
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use blf_evidence::Base64;
use blf_evidence::config::{CREDENTIALS_CAP, Credentials};
use blf_evidence::profile::{NetworkProfile, PROFILE_CAP};
use blf_evidence::statement::Model;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::{on_this_thread, warn_of_variables};
use crate::appraise::Appraiser;
use crate::cli::LaunchArgs;
use crate::devnet::{self, Local};
use crate::error::{Error, Exit};
use crate::existing;
use crate::forward::DialPolicy;
use crate::isolation::{Isolation, Probe, check_tee};
use crate::journal::{self, Log};
use crate::launch::{Launch, Until, Wish};
use crate::model::{self, Packed};
use crate::node::variable;
use crate::notice::{Notice, Show, several, stdout};
use crate::programs::Programs;
use crate::release::{Image, read};
use crate::settings::{Layers, Settings};
use crate::vm::Transport;

/// Longest endorsements document, in bytes.
const ENDORSEMENTS_CAP: u64 = 128 * 1024;

/// What to launch.
pub(super) struct Order<'a> {
    pub(super) settings: &'a Settings,
    /// What the guests are called.
    pub(super) nodes: Vec<String>,
    pub(super) until: Until,
    pub(super) show: Show,
}

/// `blf-host launch`: everything from the command line and the environment.
pub(super) fn launch(arguments: &LaunchArgs, json: bool, log: Option<Log>) -> Result<(), Error> {
    let mut layers = Layers::new();
    layers.environment(variable)?;
    layers.flags(&arguments.flags, log)?;
    let settings = layers.settings()?;
    let journal = journal::start(settings.log, settings.log_level)?;
    warn_of_variables();
    let order = Order {
        settings: &settings,
        nodes: (1..=arguments.nodes).map(|number| format!("{}-{number}", arguments.name)).collect(),
        until: Until::Stopped,
        show: several(vec![stdout(json)?, journal]),
    };
    on_this_thread(carry_out(order))
}

/// What was found and checked before anything starts.
pub(super) struct Prepared {
    image: Image,
    profile: NetworkProfile,
    credentials: Credentials,
    model: Model,
    pack: PathBuf,
    endorsements: Option<Base64>,
    programs: Programs,
}

/// Checks everything that settings name; `run` and `config check` say the same.
pub(super) fn prepare(settings: &Settings, show: &dyn Fn(&Notice)) -> Result<Prepared, Error> {
    check_tee(settings.tee)?;
    let image = Image::check(&settings.image)?;
    show(&Notice::Image {
        uki: image.uki.clone(),
        bytes: image.size,
        sha256: image.sha256,
        profile: image.release.profile.name.clone(),
        locked: image.release.locked,
    });
    let profile = profile(settings, &image)?;
    existing::contradicts(&profile, variable)?;
    show(&Notice::Network { profile: profile.name.clone(), icl: profile.icl.clone() });
    let credentials = credentials(settings.credentials.as_deref())?;
    let Packed { file: pack, bytes, manifest_sha256, manifest } = model::show(settings.model_pack()?, false)?;
    show(&Notice::Model { id: manifest.id.clone(), manifest_sha256, bytes });
    let model = Model { id: manifest.id, manifest_sha256 };
    let endorsements = match &settings.endorsements {
        Some(file) => Some(Base64(read(file, ENDORSEMENTS_CAP, "ENDORSEMENTS")?)),
        None => None,
    };
    Ok(Prepared { image, profile, credentials, model, pack, endorsements, programs: Programs::find()? })
}

/// Checks everything that was ordered, then launches it.
pub(super) async fn carry_out(order: Order<'_>) -> Result<(), Error> {
    let Order { settings, nodes, until, show } = order;
    let Prepared { image, profile, credentials, model, pack, endorsements, programs } = prepare(settings, &*show)?;
    let transport = Transport::find(&programs)?;
    let probe = Probe::of_this_machine(&programs, &transport, &image, settings.run_dir.as_deref());
    let (wishes, mut wish) = watch::channel(Wish::Run);
    let outlives = ignores_hangup(&fs::read_to_string("/proc/self/status").unwrap_or_default());
    tokio::spawn(listen_for_signals(wishes, outlives)?);
    let isolation = tokio::select! {
        isolation = Isolation::choose(settings.accel, &probe) => isolation?,
        _ = wish.changed() => return Ok(()),
    };
    let sentence = isolation.sentence();
    show(&Notice::Isolation { isolation: isolation.clone(), tier: 0, sentence });

    // A guest whose evidence is all that is wanted reaches no network.
    let network = if settings.devnet && until == Until::Stopped {
        Some(Local::start(&image, &model, u8::try_from(nodes.len()).unwrap_or(u8::MAX), &show).await?)
    } else {
        None
    };
    let mut resolve = settings.resolve.clone();
    if let Some(network) = &network {
        network.resolve(&mut resolve);
    }
    let launch = Launch {
        programs,
        transport,
        accel: isolation.accel,
        image: image.boots().to_owned(),
        until,
        model: pack,
        nodes,
        memory_mib: settings.memory,
        cpus: settings.cpus,
        max_jobs: settings.max_jobs,
        credentials: network.as_ref().map_or(credentials, Local::credentials),
        endorsements,
        policy: DialPolicy::new(&profile, resolve),
        api: settings.api,
        judge: Arc::new(Appraiser::new(&image.release, model)?),
        boot_within: settings.boot_timeout,
        stop_within: settings.stop_timeout,
        run_base: settings.run_dir.clone(),
        show,
    };
    let ended = launch.run(wish).await;
    if let Some(network) = network {
        network.stop().await;
    }
    ended
}

/// The profile, which must be the one that the image was measured with.
fn profile(settings: &Settings, image: &Image) -> Result<NetworkProfile, Error> {
    let (file, profile) = match &settings.profile {
        Some(file) => (file.display().to_string(), profile_of(file)?),
        None if image.release.profile.name == "devnet" && (settings.devnet || !settings.resolve.is_empty()) => {
            ("the devnet profile of this program".into(), devnet::profile()?)
        }
        None if image.release.profile.name == "devnet" => {
            let error =
                "an image of the devnet profile: wanted --devnet, or --resolve for a devnet elsewhere, got neither";
            return Err(Error::new(Exit::Usage, "NETWORK", error)
                .hint("--devnet, or devnet = true in the node's configuration"));
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

/// The profile in a file.
fn profile_of(file: &Path) -> Result<NetworkProfile, Error> {
    let bytes = read(file, PROFILE_CAP as u64, "PROFILE")?;
    NetworkProfile::parse(&bytes).map_err(|e| Error::config("PROFILE", format!("{}: {e}", file.display())))
}

/// Credentials from a file that nobody else can read.
fn credentials(file: Option<&Path>) -> Result<Credentials, Error> {
    let Some(file) = file else { return Ok(Credentials { pinning_token: String::new(), rpc_path: None, v: 1 }) };
    let wrong = |e: &dyn std::fmt::Display| Error::config("CREDENTIALS", format!("{}: {e}", file.display()));
    let opened = fs::OpenOptions::new()
        .read(true)
        .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
        .open(file)
        .map_err(|e| wrong(&e))?;
    let mode = opened.metadata().map_err(|e| wrong(&e))?.mode();
    // The service manager gives its credentials to the service's user by an access list, whose mask shows as the group's.
    let theirs = env::var_os("CREDENTIALS_DIRECTORY").is_some_and(|folder| file.starts_with(folder));
    let others = if theirs { 0o037 } else { 0o077 };
    if mode & others != 0 {
        let error = wrong(&format!("wanted mode 0600, got {:04o}", mode & 0o7777));
        return Err(error.hint(format!("chmod 600 {}", file.display())));
    }
    // Of the file that was judged, whatever the name means by now; the parser refuses what is longer.
    let mut bytes = Vec::with_capacity(CREDENTIALS_CAP + 1);
    opened.take(CREDENTIALS_CAP as u64 + 1).read_to_end(&mut bytes).map_err(|e| wrong(&e))?;
    Credentials::parse(&bytes).map_err(|e| wrong(&e))
}

/// The first Ctrl-C, or SIGTERM, asks to drain and stop; the second to stop at once. A terminal that closes asks to drain too,
/// unless this process is to outlive it (nohup(1)).
fn listen_for_signals(wishes: watch::Sender<Wish>, outlives: bool) -> Result<impl Future<Output = ()>, Error> {
    let listen = |kind| signal(kind).map_err(|e| Error::environment("SIGNALS", e));
    let (mut interrupt, mut terminate) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
    let mut hangup = if outlives { None } else { Some(listen(SignalKind::hangup())?) };
    Ok(async move {
        // To the end: with this task the channel would end.
        loop {
            let hung_up = async {
                match &mut hangup {
                    Some(hangup) => hangup.recv().await,
                    None => std::future::pending().await,
                }
            };
            let most = tokio::select! {
                _ = interrupt.recv() => Wish::Kill,
                _ = terminate.recv() => Wish::Kill,
                // The kernel and the shell may each say so: the second time means no more than the first.
                _ = hung_up => Wish::Stop,
            };
            wishes.send_modify(|now| *now = if *now == Wish::Run { Wish::Stop } else { most.max(*now) });
        }
    })
}

/// Whether `status`, that of proc(5), says that a process ignores SIGHUP.
fn ignores_hangup(status: &str) -> bool {
    let ignored = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok());
    ignored.is_some_and(|signals| signals & (1 << (SignalKind::hangup().as_raw_value() - 1)) != 0)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustix::process::{Signal, getpid, kill_process};
    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn a_closed_terminal_drains_however_often_it_says_so() {
        let (wishes, mut wish) = watch::channel(Wish::Run);
        let (others, other) = watch::channel(Wish::Run);
        tokio::spawn(listen_for_signals(wishes, false).unwrap());
        tokio::spawn(listen_for_signals(others, true).unwrap());
        for (signal, wanted) in [
            (Signal::HUP, Wish::Stop),
            (Signal::HUP, Wish::Stop),
            (Signal::TERM, Wish::Kill),
            (Signal::HUP, Wish::Kill),
        ] {
            kill_process(getpid(), signal).unwrap();
            timeout(Duration::from_secs(10), wish.changed()).await.unwrap().unwrap();
            assert_eq!(*wish.borrow_and_update(), wanted, "{signal:?}");
        }
        // Of all that, one that outlives the terminal heard the SIGTERM alone.
        assert_eq!(*other.borrow(), Wish::Stop);
    }

    #[test]
    fn nohup_is_seen() {
        let status =
            |signals: &str| format!("SigBlk:\t0000000000000001\nSigIgn:\t{signals}\nSigCgt:\t0000000000000001\n");
        assert!(ignores_hangup(&status("0000000000001001")));
        assert!(!ignores_hangup(&status("0000000000001000")) && !ignores_hangup(""));
    }
}
