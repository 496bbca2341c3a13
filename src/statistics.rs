//! Counters of one client.

/// What a client has done so far. Counts over its whole life.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Statistics {
    /// Messages accepted for publishing.
    pub published: u64,
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
