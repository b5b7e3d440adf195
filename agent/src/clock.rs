//! What time it is, as far as a guest can know (architecture decision 14):
//!
//! ```text
//! now = max(build date, last authenticated time) + time passed since, by CLOCK_BOOTTIME
//! ```
//!
//! The real-time clock belongs to the host and is never read. A host can delay an authenticated time, and so make the
//! guest's clock slow, but cannot set it forward or back.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use blf_evidence::eip191::SignatureError;
use blf_evidence::icl::Time;
use blf_evidence::{Address, Hex, UnixTime};

/// How long the ICL may take to answer with its time; so much at most the clock can be made slow by one answer.
pub const TIME_DEADLINE: Duration = Duration::from_secs(60);

/// Time since the kernel started, time asleep included.
pub type Monotonic = fn() -> Duration;

/// The guest's clock.
pub struct Clock {
    monotonic: Monotonic,
    state: Mutex<State>,
}

struct State {
    base: UnixTime,
    /// The monotonic time at which it was `base`.
    at: Duration,
    authenticated: bool,
    /// The nonce of `/internal/time` that is out, and since when.
    nonce: Option<(Hex<32>, Duration)>,
}

/// Why a time is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TimeError {
    /// It came too late after its nonce.
    #[error("icl time: wanted within {} s", TIME_DEADLINE.as_secs())]
    Late,
    /// It answers a nonce that is not out: never made, or used before.
    #[error("icl time: wanted the nonce that is out")]
    Nonce,
    /// Somebody else signed it.
    #[error("icl time: {0}")]
    Signature(#[from] SignatureError),
}

impl Clock {
    /// A clock that starts at the build date.
    pub fn new(build_date: UnixTime, monotonic: Monotonic) -> Self {
        let state = State { base: build_date, at: monotonic(), authenticated: false, nonce: None };
        Self { monotonic, state: Mutex::new(state) }
    }

    /// Now, at the earliest.
    pub fn now(&self) -> UnixTime {
        self.with(|state, monotonic| state.now(monotonic))
    }

    /// Whether some time was authenticated in this boot.
    pub fn is_authenticated(&self) -> bool {
        self.with(|state, _| state.authenticated)
    }

    /// Puts `nonce` out, to be answered once; one that was out before is void.
    pub fn ask(&self, nonce: Hex<32>) {
        self.with(|state, monotonic| state.nonce = Some((nonce, monotonic)));
    }

    /// Takes the ICL's answer.
    ///
    /// # Errors
    /// [`TimeError`]; the nonce is used up unless another was answered.
    pub fn answer(&self, time: &Time, icl: Address) -> Result<(), TimeError> {
        self.with(|state, monotonic| {
            let (_, since) = state.nonce.take_if(|(nonce, _)| *nonce == time.nonce).ok_or(TimeError::Nonce)?;
            if monotonic.saturating_sub(since) > TIME_DEADLINE {
                return Err(TimeError::Late);
            }
            time.signature.verify(Time::signed_text(&time.nonce, time.time).as_bytes(), icl)?;
            state.advance(time.time, monotonic);
            Ok(())
        })
    }

    /// Takes a time that was authenticated elsewhere. An earlier one than now changes nothing.
    pub fn advance(&self, time: UnixTime) {
        self.with(|state, monotonic| state.advance(time, monotonic));
    }

    fn with<T>(&self, work: impl FnOnce(&mut State, Duration) -> T) -> T {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        work(&mut state, (self.monotonic)())
    }
}

impl State {
    fn now(&self, monotonic: Duration) -> UnixTime {
        UnixTime(self.base.0.saturating_add(monotonic.saturating_sub(self.at).as_secs()))
    }

    fn advance(&mut self, time: UnixTime, monotonic: Duration) {
        self.authenticated = true;
        if time > self.now(monotonic) {
            (self.base, self.at) = (time, monotonic);
        }
    }
}

impl TimeError {
    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Late => "TIME_LATE",
            Self::Nonce => "TIME_NONCE",
            Self::Signature(_) => "TIME_SIGNATURE",
        }
    }
}

/// When this program was built: SOURCE_DATE_EPOCH of the build.
pub fn build_date() -> UnixTime {
    UnixTime(env!("BLF_BUILD_DATE").parse().unwrap_or_default())
}

/// CLOCK_BOOTTIME.
pub fn boottime() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or_default(), u32::try_from(time.tv_nsec).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use blf_evidence::eip191::{Signature, address};
    use k256::ecdsa::SigningKey;

    use super::*;

    thread_local! {
        static MONOTONIC: Cell<u64> = const { Cell::new(100) };
    }

    fn clock() -> Clock {
        Clock::new(UnixTime(1_000_000), || Duration::from_secs(MONOTONIC.get()))
    }

    fn pass(seconds: u64) {
        MONOTONIC.set(MONOTONIC.get() + seconds);
    }

    fn key(byte: u8) -> SigningKey {
        SigningKey::from_slice(&[byte; 32]).unwrap()
    }

    fn signed(key: &SigningKey, nonce: Hex<32>, time: u64) -> Time {
        let time = UnixTime(time);
        Time { nonce, time, signature: Signature::sign(key, Time::signed_text(&nonce, time).as_bytes()) }
    }

    #[test]
    fn starts_at_the_build_date_and_only_goes_forward() {
        let clock = clock();
        pass(5);
        assert_eq!(clock.now(), UnixTime(1_000_005));
        assert!(!clock.is_authenticated());
        clock.advance(UnixTime(2_000_000));
        pass(7);
        assert_eq!(clock.now(), UnixTime(2_000_007));
        clock.advance(UnixTime(1_500_000));
        assert_eq!(clock.now(), UnixTime(2_000_007));
        assert!(clock.is_authenticated());
    }

    #[test]
    fn a_time_answers_its_nonce_once_and_soon() {
        let (clock, icl) = (clock(), key(1));
        let account = address(icl.verifying_key());
        let nonce = Hex([9; 32]);
        let time = signed(&icl, nonce, 3_000_000);
        assert_eq!(clock.answer(&time, account), Err(TimeError::Nonce));
        clock.ask(nonce);
        assert_eq!(clock.answer(&signed(&icl, Hex([8; 32]), 4_000_000), account), Err(TimeError::Nonce));
        assert_eq!(clock.answer(&time, account), Ok(()));
        assert_eq!(clock.now(), UnixTime(3_000_000));
        assert_eq!(clock.answer(&time, account), Err(TimeError::Nonce), "single use");

        clock.ask(nonce);
        pass(61);
        assert_eq!(clock.answer(&signed(&icl, nonce, 5_000_000), account), Err(TimeError::Late));
        clock.ask(nonce);
        let stranger = signed(&key(2), nonce, 5_000_000);
        assert!(matches!(clock.answer(&stranger, account), Err(TimeError::Signature(_))));
        clock.ask(nonce);
        let mut altered = signed(&icl, nonce, 5_000_000);
        altered.time = UnixTime(6_000_000);
        assert!(matches!(clock.answer(&altered, account), Err(TimeError::Signature(_))));
        assert_eq!(clock.now(), UnixTime(3_000_061));
    }
}
