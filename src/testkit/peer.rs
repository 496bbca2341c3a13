//! The far end of one connection, played by a test.

use std::fmt;
use std::rc::Rc;

use super::far_end::FarEnd;
use super::network::{Cut, Network};

/// A broker that does exactly what a test says: bytes are expected and sent by hand.
///
/// ```
/// use coracle::testkit::World;
/// use futures_lite::{AsyncReadExt, AsyncWriteExt};
///
/// let world = World::with_peers();
/// let network = world.network();
/// world.spawn(async move {
///     let mut transport = network.open().await?;
///     transport.write_all(b"\xc0\x00").await?;
///     let mut answer = [0; 2];
///     transport.read_exact(&mut answer).await
/// }).detach();
///
/// let mut peer = world.peer();
/// peer.expect(b"\xc0\x00");
/// peer.send(b"\xd0\x00");
/// assert!(peer.is_closed());
/// ```
pub struct Peer {
    end: FarEnd,
    /// Lets everything else run until nothing moves.
    settle: Rc<dyn Fn()>,
}

impl Peer {
    pub(super) fn new(end: FarEnd, settle: Rc<dyn Fn()>) -> Self {
        Self { end, settle }
    }

    /// The next connection of a bare network, where the test itself runs the other side.
    ///
    /// # Panics
    /// If nobody has connected.
    #[track_caller]
    pub fn accept(network: &Network) -> Self {
        match network.accept() {
            Some(end) => Self::new(end, Rc::new(|| {})),
            None => panic!("nobody has connected"),
        }
    }

    /// Checks that exactly these bytes have come since the last look.
    ///
    /// # Panics
    /// If other bytes have come, or more, or fewer; the message shows both side by side.
    #[track_caller]
    pub fn expect(&mut self, expected: &[u8]) {
        let actual = self.received();
        if actual != expected {
            panic!(
                "{}",
                Difference {
                    expected,
                    actual: &actual
                }
            );
        }
    }

    /// Checks that no byte has come since the last look.
    ///
    /// # Panics
    /// If one has.
    #[track_caller]
    pub fn expect_nothing(&mut self) {
        self.expect(b"");
    }

    /// Takes the bytes that have come since the last look.
    pub fn received(&mut self) -> Vec<u8> {
        (self.settle)();
        self.end.take()
    }

    /// Sends bytes and lets the other side do what it does with them.
    pub fn send(&mut self, bytes: &[u8]) {
        self.end.send(bytes);
        (self.settle)();
    }

    /// Ends the connection in order.
    pub fn close(&mut self) {
        self.end.cut(Cut::Close);
        (self.settle)();
    }

    /// Breaks the connection with a reset.
    pub fn reset(&mut self) {
        self.end.cut(Cut::Reset);
        (self.settle)();
    }

    /// Lets the connection fall silent: nothing arrives any more in either direction.
    pub fn vanish(&mut self) {
        self.end.cut(Cut::Hole);
        (self.settle)();
    }

    /// Whether the other side, or the network, has ended the connection and nothing it sent before is
    /// left to look at.
    pub fn is_closed(&self) -> bool {
        (self.settle)();
        self.end.is_closed()
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peer").finish_non_exhaustive()
    }
}

/// Expected and actual bytes, as hex and text, with the first difference.
struct Difference<'a> {
    expected: &'a [u8],
    actual: &'a [u8],
}

impl fmt::Display for Difference<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first = self
            .expected
            .iter()
            .zip(self.actual)
            .position(|(expected, actual)| expected != actual)
            .unwrap_or_else(|| self.expected.len().min(self.actual.len()));
        writeln!(f, "other bytes than expected, from byte {first} on")?;
        writeln!(f, "expected {}", Hex(self.expected, first))?;
        write!(f, "  actual {}", Hex(self.actual, first))
    }
}

/// Bytes in hex with a mark before the one at an index, then as text.
struct Hex<'a>(&'a [u8], usize);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(bytes, mark) = self;
        write!(f, "{:3} bytes:", bytes.len())?;
        for (index, byte) in bytes.iter().enumerate() {
            let gap = if index == *mark { '>' } else { ' ' };
            write!(f, "{gap}{byte:02x}")?;
        }
        write!(f, "  \"{}\"", bytes.escape_ascii())
    }
}
