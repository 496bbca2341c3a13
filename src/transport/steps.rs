//! The time that the steps of an attempt may take, each and together.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::time::{Duration, Instant};

use futures_lite::future;

use crate::clock::Clock;
use crate::obstacle::{Cause, Obstacle, Step};

/// One attempt to connect: its steps share what is left of its time.
pub(super) struct Steps {
    clock: Rc<dyn Clock>,
    each: Duration,
    /// None if it lies beyond the end of time.
    end: Option<Instant>,
}

impl Steps {
    /// Begins an attempt of which each step may take `each`, and all together `whole`.
    pub(super) fn new(clock: Rc<dyn Clock>, each: Duration, whole: Duration) -> Self {
        let end = clock.now().checked_add(whole);
        Self { clock, each, end }
    }

    pub(super) fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    /// Takes a step `with` this name or address; what goes wrong says so.
    pub(super) async fn take<T>(
        &self,
        step: Step,
        with: &str,
        future: impl Future<Output = io::Result<T>>,
    ) -> io::Result<T> {
        let now = self.clock.now();
        let left = match self.end {
            Some(end) => self.each.min(end.saturating_duration_since(now)),
            None => self.each,
        };
        let result = match now.checked_add(left) {
            Some(deadline) => {
                let late = async {
                    self.clock.sleep_until(deadline).await;
                    Err(Obstacle::new(step, with, Cause::TimedOut(left)).into())
                };
                // The step first: what has come in time counts, however late it is looked at.
                future::or(pin!(future), late).await
            }
            None => future.await,
        };
        result.map_err(|error| {
            let inner = error.get_ref();
            if inner.is_some_and(|inner| inner.is::<crate::Error>()) {
                // What a callback of the user failed with is told as it is.
                return error;
            }
            Obstacle::io(step, with, &error).while_agreeing().into()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;
    use crate::error::{Doing, Error, ErrorKind};

    fn fails(error: io::Error) -> Error {
        let minute = Duration::from_secs(60);
        let steps = Steps::new(Rc::new(SystemClock), minute, minute);
        let step = steps.take::<()>(Step::WebSocket, "broker", async { Err(error) });
        let error = smol::block_on(step).expect_err("it failed");
        Error::io(error, Doing::Connecting)
    }

    #[test]
    fn an_error_of_the_system_names_the_step() {
        let error = fails(io::Error::other("no room"));
        assert_eq!(error.to_string(), "connect: WebSocket with broker: no room");
    }

    #[test]
    fn the_error_of_a_callback_stays_what_it_is() {
        let error = fails(io::Error::other(Error::misuse("no token")));
        assert!(matches!(error.kind(), ErrorKind::Misuse(_)), "{error:?}");
        assert!(error.is_permanent());
    }
}
