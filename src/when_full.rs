//! What a full queue means for a publish.

/// What becomes of a message for which its queue has no room.
///
/// The queue is that of [`Options::queue_bytes`](crate::Options::queue_bytes). A message of which bytes
/// may have left is never dropped: it counts until it is acknowledged, and only then makes room.
///
/// With a policy that drops, nobody stands in line: a full queue decides within the call. A call that
/// waits learns that its message was dropped from [`ErrorKind::Dropped`](crate::ErrorKind::Dropped), with
/// `sent: No`; without a wait the call succeeds, there is no event, and
/// [`Statistics`](crate::Statistics) count it.
///
/// A store is read when the driver first runs, and what an earlier process left in it counts. What was published
/// before comes to the policy then: it stands in line (and is sent also if its future is dropped, because it was
/// accepted), is dropped, or without a wait is an [`Event::Unpublished`](crate::Event::Unpublished) with [`ErrorKind::QueueFull`](crate::ErrorKind::QueueFull).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum WhenFull {
    /// The call fails with [`ErrorKind::QueueFull`](crate::ErrorKind::QueueFull), or with a wait stands in
    /// line until there is room. For messages of which none may be missing unnoticed.
    #[default]
    Fail,
    /// The oldest messages that were never sent make room for the new one. For measurements, where the
    /// newest matters most. If what was sent and is unacknowledged fills the queue alone, the new one is dropped.
    DropOldest,
    /// The new message is dropped. For records, where the beginning matters most.
    DropNewest,
}
