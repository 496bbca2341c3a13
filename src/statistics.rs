//! Counters of one client.

/// What a client has done so far, counted over its whole life, and where a field says so what is the case now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Statistics {
    /// Messages given to the client for publishing, those in line for room and those withdrawn from it
    /// included.
    pub published: u64,
    /// Calls to publish that failed because the queue was full ([`WhenFull::Fail`](crate::WhenFull::Fail)). Also
    /// messages that were accepted before the store was read, if its messages left no room for them; those count
    /// as published too.
    pub queue_full: u64,
    /// Published messages that were dropped for newer ones while they waited to be sent
    /// ([`WhenFull::DropOldest`](crate::WhenFull::DropOldest)). They count as published too.
    pub dropped_oldest: u64,
    /// Messages that were dropped by the call that published them, because the queue was full. They do not
    /// count as published, but for those that were accepted before the store was read.
    pub dropped_newest: u64,
    /// Published messages that expired before they could be sent.
    pub expired: u64,
    /// Messages received, repeated ones included.
    pub received: u64,
    /// Received messages that matched no subscription.
    pub unmatched: u64,
    /// Messages that streams have lost because they were not read.
    pub dropped: u64,
    /// Messages that were acknowledged before they were taken.
    pub overdue: u64,
    /// Messages above the inbound limit that were skipped.
    pub skipped: u64,
    /// Answers that belonged to no request that waits: late ones, repeated ones, foreign ones.
    pub unclaimed: u64,
    /// Acknowledgements from the broker that belonged to nothing.
    pub stray: u64,
    /// Connections opened, up to CONNACK.
    pub connected: u64,
    /// Attempts to connect that failed.
    pub failed: u64,
    /// Bytes handed to the transport.
    pub bytes_out: u64,
    /// Bytes received.
    pub bytes_in: u64,
    /// Writes to the transport.
    pub writes: u64,
    /// Reads from the transport that brought bytes.
    pub reads: u64,
    /// QoS 1 and 2 messages that are not finished now.
    pub unfinished: usize,
    /// QoS 0 messages that wait for room or for the link now.
    pub pending: usize,
    /// Calls that are waited for now, or whose answer is still to come although nobody waits.
    pub waits: usize,
}
