//! The one door to time: what the clock says, and waiting until it says something else.
//!
//! All of Coracle goes by the monotonic clock. Beside it there is a narrow door to the wall clock, for
//! tokens that name a date and for what expires in a store; it may jump, and nothing waits for it.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, Instant, SystemTime};

/// A boxed future that stays on its thread.
pub type LocalBoxFuture<T> = Pin<Box<dyn Future<Output = T>>>;

/// Where the driver takes its time from. Defaults to the system's monotonic clock.
///
/// Replace it (with [`Options::clock`]) in tests and simulations; `testkit` has one that a test moves.
///
/// [`Options::clock`]: crate::Options::clock
pub trait Clock: fmt::Debug {
    /// The time now; never earlier than what an earlier call returned.
    fn now(&self) -> Instant;

    /// Ends when [`Clock::now`] has reached `deadline`.
    fn sleep_until(&self, deadline: Instant) -> LocalBoxFuture<()>;

    /// The wall clock, as the time since 1970-01-01T00:00:00Z. Authenticators see it, for tokens that name a
    /// date, and with a store it dates when what is kept expires. Defaults to the system's; a device whose
    /// clock is not set can put the time of its server in here.
    #[expect(
        clippy::disallowed_methods,
        reason = "the one door to the wall clock, which only dates in tokens and in a store need"
    )]
    fn unix_time(&self) -> Duration {
        // A clock before 1970 was never set.
        SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default()
    }
}

/// The system's monotonic clock, with the timers of async-io.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct SystemClock;

impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the door through which time comes in"
    )]
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn sleep_until(&self, deadline: Instant) -> LocalBoxFuture<()> {
        Box::pin(async move {
            async_io::Timer::at(deadline).await;
        })
    }
}
