//! Asking someone else on the broker, and waiting for the answer.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::client::Client;
use crate::error::{Doing, Error, Result};
use crate::message::{Message, Payload, Qos};
use crate::protocol::Token;
use crate::shared::Shared;
use crate::version::Version;
use crate::waiter::AnswerProgress;

impl Client {
    /// Sends a request and waits for its answer, which comes back as a [`Message`]. The call itself sends;
    /// the future only waits, for `timeout` at most. Thousands may be under way at a time.
    ///
    /// The other side is [`Client::serve`], or whatever follows the same rules:
    ///
    /// - **MQTT 5**: the request has a Response Topic and Correlation Data. Who serves it publishes the
    ///   answer to that topic, with the same Correlation Data (MQTT 5, section 4.10).
    /// - **3.1.1 and 3.1**: the request goes to `topic/CLIENT/NUMBER`. Who serves it subscribes to
    ///   `topic/+/+` and publishes the answer to `PREFIX/CLIENT/NUMBER`, with those two levels as they came.
    ///   PREFIX is agreed upon: [`Options::response_prefix`].
    ///
    /// One subscription of this client brings all answers, on `PREFIX/CLIENT`. It is made at the first
    /// request, which leaves once the broker has confirmed it, and it stays. Answers that come too late,
    /// twice, or to nothing are dropped and counted: [`Statistics::unclaimed`].
    ///
    /// The request is sent at QoS 0, and its answer comes at QoS 0: the answer is the acknowledgement, and a
    /// PUBACK for each of the two would make the broker work twice as much for it, or wait (one that does not
    /// set TCP_NODELAY holds an answer behind the PUBACK for 40 ms). When the link is lost before the answer
    /// has come, the request is published again, so it may be served twice. With
    /// [`Client::request_message`] it can be sent at QoS 1.
    ///
    /// On MQTT 5 it expires with `timeout`, so that nobody serves what nobody waits for.
    ///
    /// # Errors
    /// As [`Client::publish`]; it waits for room in the queue. The end of `timeout`, counted from the driver's
    /// next turn on: [`Error::sent`] then says whether the request has left. A subscription for the answers
    /// that is refused.
    ///
    /// # Cancel safety
    /// Dropping the future forgets the request: its answer is dropped. One that has not left because there
    /// was no room for it, no link, or no subscription for its answer yet, is withdrawn.
    ///
    /// [`Options::response_prefix`]: crate::Options::response_prefix
    /// [`Statistics::unclaimed`]: crate::Statistics::unclaimed
    pub fn request<'a>(
        &self,
        topic: &str,
        payload: impl Into<Payload<'a>>,
        timeout: Duration,
    ) -> Requesting {
        let message = Message::new(topic, payload).qos(Qos::AtMostOnce);
        self.request_message(
            match self.version() {
                // An expiry of 0 would be the past already.
                Version::V5_0 => message.expiry(timeout.max(Duration::from_secs(1))),
                Version::V3_1 | Version::V3_1_1 => message,
            },
            timeout,
        )
    }

    /// Sends a request with a QoS and properties of your own. A Response Topic and Correlation Data among
    /// them are replaced; an expiry is not added.
    ///
    /// At QoS 1 and 2 the broker keeps the request for one who serves it and is away for a while, if that
    /// one has a session; and the answer comes at the same QoS, so the broker keeps it while we are away. The
    /// request survives a lost link as a publication does: when the broker has acknowledged it, it is not
    /// published again. If the broker then loses the session, an answer that was on its way is lost, and the
    /// time runs out.
    ///
    /// # Errors
    /// As [`Client::request`]. Above QoS 0 also a refusal by the broker, at once; that nobody subscribes to
    /// the topic counts as one (an MQTT 5 broker may say so). A misuse for a retained message, which would ask
    /// again for ever.
    ///
    /// # Cancel safety
    /// As [`Client::request`].
    pub fn request_message(&self, mut message: Message, timeout: Duration) -> Requesting {
        // A duty to acknowledge must not go into the state: its drop calls the client.
        let duty = message.take_duty();
        let begun = self.check_request(&message).and_then(|()| {
            self.shared.with(|state| {
                state.check_open(Doing::Requesting)?;
                state.request(message, timeout)
            })
        });
        drop(duty);
        Requesting {
            state: match begun {
                Ok(token) => Waiting::Answer(self.shared.clone(), token),
                Err(error) => Waiting::Known(error.while_doing(Doing::Requesting)),
            },
        }
    }

    fn check_request(&self, message: &Message) -> Result<()> {
        message.check()?;
        if message.is_retained() {
            return Err(Error::misuse("a request cannot be retained"));
        }
        self.settings.check(message.quality_of_service(), false)
    }
}

/// The wait of [`Client::request`]; gives the answer.
///
/// # Cancel safety
/// Dropping it forgets the request. What has left is served all the same, and the answer is dropped.
#[must_use = "the request is on its way, but its answer would go unseen"]
pub struct Requesting {
    state: Waiting,
}

enum Waiting {
    Known(Error),
    Answer(Shared, Token),
    Over,
}

impl Future for Requesting {
    type Output = Result<Message>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Waiting::Answer(shared, token) = &self.state {
            let progress = shared.with(|state| {
                let (progress, old) = state.waiters.poll_answer(*token, cx.waker());
                state.loose.drop_later(old);
                match progress {
                    AnswerProgress::Pending => Poll::Pending,
                    AnswerProgress::Ready(outcome) => {
                        Poll::Ready(outcome.map(|answer| state.take_answer(answer)))
                    }
                }
            });
            if progress.is_ready() {
                self.state = Waiting::Over;
            }
            return progress;
        }
        match std::mem::replace(&mut self.state, Waiting::Over) {
            Waiting::Known(error) => Poll::Ready(Err(error)),
            // Polled again after its end: a future may answer anything but a panic is unkind.
            Waiting::Answer(..) | Waiting::Over => {
                Poll::Ready(Err(Error::closed(Doing::Requesting)))
            }
        }
    }
}

impl Drop for Requesting {
    fn drop(&mut self) {
        if let Waiting::Answer(shared, token) = &self.state {
            shared.with(|state| state.abandon(*token));
        }
    }
}

impl fmt::Debug for Requesting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Requesting").finish_non_exhaustive()
    }
}
