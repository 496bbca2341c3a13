//! What the caller of a publish, subscribe or unsubscribe waits for.

/// What a call waits for. The call itself is what sends; the future only waits.
///
/// | call | `None` | `Sent` | `Ack` |
/// |---|---|---|---|
/// | publish, QoS 0 | accepted | every byte handed to the system | as `Sent` |
/// | publish, QoS 1 | accepted | first time flushed | PUBACK, with its reason |
/// | publish, QoS 2 | accepted | first time flushed | PUBCOMP, with its reason |
/// | subscribe | accepted | flushed | SUBACK: a refusal is an error naming the filter |
/// | unsubscribe | accepted | flushed | UNSUBACK, with its reasons |
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(
    clippy::exhaustive_enums,
    reason = "the three waits are what this crate is about"
)]
pub enum Wait {
    /// Return at once. With no room in the queue the call fails at once. What fails later is an event:
    /// [`Event::Unpublished`](crate::Event::Unpublished).
    None,
    /// Return when every byte was handed to the system, through TLS if there is any.
    Sent,
    /// Return when the broker has acknowledged it.
    Ack,
}
