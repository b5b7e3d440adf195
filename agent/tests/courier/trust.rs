//! Whom the courier believes: measured roots, TLS 1.3, the right name, and a clock that only ever moves forward.
//!
//! The machine that runs these tests has a clock of its own, which plays the RTC: no result depends on it.

use std::sync::Arc;
use std::time::Duration;

use blf_agent::courier::Limits;
use blf_agent::courier::https::{HttpError, Https};
use blf_agent::tls::{self, Clock, TlsError};
use blf_agent::tunnel::{Egress, Tunnel, TunnelError};
use blf_evidence::UnixTime;
use blf_evidence::profile::Host;
use rustls::ServerConfig;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

use crate::icl::{self, BLOBS, ICL};
use crate::net::Net;
use crate::pki::Authority;
use crate::world::{self, BUILT, NOW, World};

const FAR: u64 = NOW + 1_000_000_000;

/// Connects to a server with this certificate at a guest whose clock says `now`.
async fn connect(authority: &Authority, tls: Arc<ServerConfig>, now: u64) -> Result<(), HttpError> {
    let peer = Arc::new(icl::Double::new(NOW));
    let profile = world::profile(authority, peer.account());
    let https = https(Net::new(tls, peer), &profile, &Clock::new(UnixTime(now)));
    https.connect().await.map(drop)
}

fn https<T: Tunnel>(tunnel: T, profile: &blf_evidence::profile::NetworkProfile, clock: &Clock) -> Https<T> {
    let Limits { dial, https, .. } = Limits::default();
    let connector = tls::connector(&profile.tls_roots, clock.clone()).unwrap();
    Https::new(Arc::new(Egress::new(tunnel, profile, dial)), connector, profile.icl.clone(), https)
}

#[tokio::test(start_paused = true)]
async fn measured_roots_only() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    assert_eq!(connect(&ours, ours.server(&[ICL], BUILT, FAR), NOW).await, Ok(()));
    let error = connect(&ours, theirs.server(&[ICL], BUILT, FAR), NOW).await;
    assert_eq!(error, Err(HttpError::Tls("TLS_UNKNOWN_ROOT")));
    for none in ["", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        assert_eq!(tls::connector(none, Clock::new(UnixTime(NOW))).err(), Some(TlsError::Roots));
    }
}

#[tokio::test(start_paused = true)]
async fn the_right_name_only() {
    let authority = Authority::new();
    let error = connect(&authority, authority.server(&[BLOBS, "evil.test"], BUILT, FAR), NOW).await;
    assert_eq!(error, Err(HttpError::Tls("TLS_WRONG_NAME")));
}

#[tokio::test(start_paused = true)]
async fn a_certificate_that_ended_before_the_guest_was_built_is_refused_whatever_the_rtc_says() {
    let authority = Authority::new();
    // Ten years on by the RTC, which is this machine's clock, and not yet begun: neither matters.
    let rtc = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let decade = 10 * 365 * 86_400;
    let set_back = authority.server(&[ICL], rtc - 86_400, rtc + 86_400);
    let error = connect(&authority, set_back, rtc + decade).await;
    assert_eq!(error, Err(HttpError::Tls("TLS_CERTIFICATE_EXPIRED")), "good by the RTC, over by the bound");
    let long_ago = authority.server(&[ICL], rtc - 2 * decade, rtc - decade);
    assert_eq!(connect(&authority, long_ago, rtc - 2 * decade).await, Ok(()), "over by the RTC, good by the bound");
}

#[tokio::test(start_paused = true)]
async fn a_certificate_that_begins_after_the_bound_may_have_begun() {
    let authority = Authority::new();
    assert_eq!(connect(&authority, authority.server(&[ICL], NOW, FAR), BUILT).await, Ok(()));
    let error = connect(&authority, authority.server(&[ICL], NOW, NOW - 1), BUILT).await;
    assert!(matches!(error, Err(HttpError::Tls(_))), "but not one that ends before it begins: {error:?}");
}

#[tokio::test(start_paused = true)]
async fn an_authenticated_time_ends_connections_to_expired_servers() {
    let world = World::new();
    let clock = Clock::new(UnixTime(BUILT));
    world.net.set_tls(world.authority.server(&[ICL], BUILT - 10, BUILT + 100));
    let https = https(world.net.clone(), &world.profile, &clock);
    https.connect().await.unwrap();
    clock.advance(UnixTime(NOW));
    clock.advance(UnixTime(BUILT)); // an older one changes nothing
    https.renew();
    assert_eq!(https.connect().await.err(), Some(HttpError::Tls("TLS_CERTIFICATE_EXPIRED")));
}

/// The whole: the ICL tells the time over a connection that this very time shows to be no good.
#[tokio::test(start_paused = true)]
async fn a_node_is_not_admitted_over_an_expired_certificate() {
    let world = World::new();
    world.net.set_tls(world.authority.server(&[ICL, BLOBS], BUILT - 10, BUILT + 100));
    let _courier = world.start();
    world.until("the refusal", |w| w.troubles().contains(&"TLS_CERTIFICATE_EXPIRED".into())).await;
    assert_eq!(world.vault.count("SetTime"), 1, "the time itself is signed, and taken");
    assert_eq!(world.icl.count("/challenge/"), 0);
    world.net.set_tls(world.authority.server(&[ICL, BLOBS], NOW - 10, FAR));
    world.until("admission", |w| w.icl.with(|s| s.attested.len()) == 1).await;
}

/// Says whatever it was given, in clear.
struct Talker(Vec<u8>);

impl Tunnel for Talker {
    type Stream = DuplexStream;

    async fn dial(&self, _: &Host) -> Result<DuplexStream, TunnelError> {
        let (near, mut far) = duplex(16 * 1024);
        let words = self.0.clone();
        tokio::spawn(async move {
            let mut hello = [0; 1024];
            let _ = far.read(&mut hello).await;
            far.write_all(&words).await.unwrap();
            std::future::pending::<()>().await
        });
        Ok(near)
    }

    async fn telemetry(&self) -> Result<DuplexStream, TunnelError> {
        Err(TunnelError::Io(std::io::ErrorKind::ConnectionRefused))
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_below_tls_1_3() {
    let authority = Authority::new();
    let profile = world::profile(&authority, icl::Double::new(NOW).account());
    // A ServerHello of TLS 1.2 (RFC 5246, section 7.4.1.3): no supported_versions, ECDHE_RSA_WITH_AES_128_GCM_SHA256.
    let mut hello = vec![0x03, 0x03];
    hello.extend_from_slice(&[7; 32]);
    hello.extend_from_slice(&[0x00, 0xc0, 0x2f, 0x00]);
    let mut record = vec![0x16, 0x03, 0x03, 0x00, u8::try_from(hello.len() + 4).unwrap()];
    record.extend_from_slice(&[0x02, 0x00, 0x00, u8::try_from(hello.len()).unwrap()]);
    record.extend_from_slice(&hello);
    for (words, wanted) in [
        (record, HttpError::Tls("TLS_VERSION")),
        (b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), HttpError::Tls("TLS_PROTOCOL")),
        (vec![], HttpError::Silent { stage: "tls handshake", within: Duration::from_secs(15) }),
    ] {
        let https = https(Talker(words), &profile, &Clock::new(UnixTime(NOW)));
        assert_eq!(https.connect().await.err(), Some(wanted));
    }
}

#[tokio::test(start_paused = true)]
async fn no_byte_leaves_for_a_name_outside_the_list() {
    let world = World::new();
    let connector = tls::connector(&world.profile.tls_roots, Clock::new(UnixTime(NOW))).unwrap();
    let Limits { dial, https, .. } = world.limits;
    let egress = Arc::new(Egress::new(world.net.clone(), &world.profile, dial));
    let stranger = Host { name: "evil.test".into(), port: 443 };
    let https = Https::new(egress, connector, stranger, https);
    let error = https.connect().await.err().unwrap();
    assert_eq!(error.code(), "EGRESS_FORBIDDEN");
    assert_eq!(world.net.dials(), 0);
}
