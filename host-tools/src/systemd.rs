//! The service manager's side of a launch: sd_notify(3), as far as a service needs it.

use std::env;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use blf_evidence::telemetry::Event;
use tokio::time::interval;

use crate::notice::{Notice, Show};

/// The socket of a service manager that wants to hear.
pub struct Notifier {
    socket: UnixDatagram,
    ready: AtomicBool,
    watchdog: Option<Duration>,
}

/// For the appraisal, or for QEMU and its helpers to end.
const BESIDES: Duration = Duration::from_secs(30);

impl Notifier {
    /// The one of the environment, if this process was started as a service of type `notify`.
    ///
    /// # Errors
    /// Those of connecting.
    pub fn find(variable: impl Fn(&str) -> Option<String>) -> io::Result<Option<Arc<Self>>> {
        let Some(path) = variable("NOTIFY_SOCKET") else { return Ok(None) };
        let address = match path.strip_prefix('@') {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None => SocketAddr::from_pathname(&path)?,
        };
        let socket = UnixDatagram::unbound()?;
        socket.connect_addr(&address)?;
        // A manager that does not read must not hold up a node.
        socket.set_nonblocking(true)?;
        let ours = variable("WATCHDOG_PID").is_none_or(|pid| pid == std::process::id().to_string());
        let micros = variable("WATCHDOG_USEC").and_then(|text| text.parse().ok()).filter(|micros| *micros > 0);
        let watchdog = micros.filter(|_| ours).map(Duration::from_micros);
        Ok(Some(Arc::new(Self { socket, ready: AtomicBool::new(false), watchdog })))
    }

    /// The one of this process's environment.
    pub fn of_process() -> Option<Arc<Self>> {
        match Self::find(|name| env::var(name).ok()) {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(%error, "cannot reach the service manager");
                None
            }
        }
    }

    /// Tells how a launch with these deadlines goes: ready when the guest's evidence was accepted, not when the coordinator
    /// was reached, which the guest tries again by itself. The manager's own deadlines are made longer where these are.
    pub fn show(self: &Arc<Self>, boot_within: Duration, stop_within: Duration) -> Show {
        let notifier = Arc::clone(self);
        Arc::new(move |notice| match notice {
            Notice::Started { .. } => notifier.say(&format!("STATUS=the VM boots\n{}", extend(boot_within))),
            Notice::TunnelOpen { .. } if !notifier.ready.swap(true, Ordering::Relaxed) => {
                notifier.say("READY=1\nSTATUS=evidence accepted, seeking admission");
            }
            Notice::Guest {
                event: Event::Certified { tier, not_after } | Event::Renewed { tier, not_after }, ..
            } => {
                notifier.say(&format!("STATUS=certified by the ICL, tier {tier}, until {}", not_after.0));
            }
            Notice::Guest { event: Event::Trouble { code, retry_in }, .. } => {
                notifier.say(&format!("STATUS=trouble: {code}, next attempt in {retry_in} s"));
            }
            Notice::Stopping { .. } => {
                notifier.say(&format!("STOPPING=1\nSTATUS=draining\n{}", extend(stop_within)));
            }
            _ => {}
        })
    }

    /// Tells that the service ends, and why.
    pub fn stopping(&self, why: &str) {
        self.say(&format!("STOPPING=1\nSTATUS={}", why.replace('\n', " ")));
    }

    /// Says that this process still turns its wheel, twice as often as the manager wants to hear it. To be driven by
    /// the thread that drives everything else.
    pub async fn watch(self: Arc<Self>) {
        let Some(within) = self.watchdog else { return std::future::pending().await };
        let mut tick = interval(within / 2);
        loop {
            tick.tick().await;
            self.say("WATCHDOG=1");
        }
    }

    fn say(&self, text: &str) {
        if let Err(error) = self.socket.send(text.as_bytes()) {
            tracing::debug!(%error, "the service manager did not take a notification");
        }
    }
}

/// Asks for this time from now on, and some for what comes after; less than what the unit allows changes nothing.
fn extend(within: Duration) -> String {
    format!("EXTEND_TIMEOUT_USEC={}", (within + BESIDES).as_micros())
}

#[cfg(test)]
mod tests {
    use blf_evidence::UnixTime;

    use super::*;

    fn heard(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 512];
        let read = socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..read].to_vec()).unwrap()
    }

    #[tokio::test]
    async fn a_life_as_the_service_manager_hears_it() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        manager.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let variables = |usec: &'static str, pid: &'static str| {
            let path = path.display().to_string();
            move |name: &str| match name {
                "NOTIFY_SOCKET" => Some(path.clone()),
                "WATCHDOG_USEC" => Some(usec.into()),
                "WATCHDOG_PID" if !pid.is_empty() => Some(pid.into()),
                _ => None,
            }
        };
        let notifier = Notifier::find(variables("20000", "")).unwrap().unwrap();
        let show = notifier.show(Duration::from_secs(600), Duration::from_secs(390));
        let node = String::from("a");
        show(&Notice::Started { node: node.clone(), memory_mib: 1, cpus: 1 });
        assert_eq!(heard(&manager), "STATUS=the VM boots\nEXTEND_TIMEOUT_USEC=630000000");
        show(&Notice::TunnelOpen { node: node.clone() });
        assert!(heard(&manager).starts_with("READY=1\n"));
        let certified = Event::Certified { tier: 0, not_after: UnixTime(9) };
        show(&Notice::Guest { node: node.clone(), event: certified });
        assert_eq!(heard(&manager), "STATUS=certified by the ICL, tier 0, until 9");
        show(&Notice::Stopping { node });
        assert_eq!(heard(&manager), "STOPPING=1\nSTATUS=draining\nEXTEND_TIMEOUT_USEC=420000000");
        notifier.stopping("a reason\nof two lines");
        assert_eq!(heard(&manager), "STOPPING=1\nSTATUS=a reason of two lines");

        let watch = tokio::spawn(Arc::clone(&notifier).watch());
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_millis(15)).await;
            assert_eq!(heard(&manager), "WATCHDOG=1");
        }
        watch.abort();

        // Somebody else's watchdog, and no manager at all.
        assert_eq!(Notifier::find(variables("20000", "1")).unwrap().unwrap().watchdog, None);
        assert!(Notifier::find(|_| None).unwrap().is_none());
        assert!(Notifier::find(|name| (name == "NOTIFY_SOCKET").then(|| "/nowhere".into())).is_err());
    }
}
