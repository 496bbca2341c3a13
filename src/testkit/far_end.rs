//! The broker's or the test's end of a connection of the in-memory network.

use std::cell::RefCell;
use std::rc::Rc;

use super::network::{Cut, Drain, Wires};
use super::pipe::{End, Holder, wake_all};

/// The broker's or the test's end.
pub(super) struct FarEnd {
    wires: Rc<RefCell<Wires>>,
    id: usize,
}

impl FarEnd {
    pub(super) fn new(wires: Rc<RefCell<Wires>>, id: usize) -> Self {
        Self { wires, id }
    }

    /// Takes what has arrived from the client.
    pub(super) fn take(&self) -> Vec<u8> {
        let mut wires = self.wires.borrow_mut();
        let drain = wires.weather.drain;
        let Some(pipe) = wires.pipes.get_mut(&self.id) else {
            return Vec::new();
        };
        match drain {
            Drain::Stalls => return Vec::new(),
            Drain::Flows => {}
        }
        let bytes: Vec<u8> = pipe.to_far.bytes.drain(..).collect();
        let writer = if bytes.is_empty() {
            None
        } else {
            pipe.writer.take()
        };
        drop(wires);
        wake_all(writer.into_iter().collect());
        bytes
    }

    /// Sends to the client. What goes into a broken connection is lost.
    pub(super) fn send(&self, bytes: &[u8]) {
        let mut wires = self.wires.borrow_mut();
        let mut reader = None;
        if let Some(pipe) = wires.pipes.get_mut(&self.id)
            && pipe.to_near.end == End::Open
        {
            pipe.to_near.bytes.extend(bytes);
            reader = pipe.reader.take();
        }
        drop(wires);
        wake_all(reader.into_iter().collect());
    }

    pub(super) fn cut(&self, cut: Cut) {
        let mut wires = self.wires.borrow_mut();
        let pipe = wires.pipes.get_mut(&self.id);
        let wakers = pipe.map(|pipe| pipe.cut(cut)).unwrap_or_default();
        drop(wires);
        wake_all(wakers);
    }

    /// Whether the client has ended the stream, or the network has, and everything before was taken.
    pub(super) fn is_closed(&self) -> bool {
        let wires = self.wires.borrow();
        let Some(pipe) = wires.pipes.get(&self.id) else {
            return true;
        };
        match pipe.to_far.end {
            End::Open | End::Lost => false,
            End::Closed | End::Reset => pipe.to_far.bytes.is_empty(),
        }
    }
}

impl Drop for FarEnd {
    fn drop(&mut self) {
        let mut wires = self.wires.borrow_mut();
        let mut wakers = Vec::new();
        if let Some(pipe) = wires.pipes.get_mut(&self.id) {
            pipe.far = Holder::Dropped;
            wakers = pipe.cut(Cut::Close);
        }
        wires.tidy(self.id);
        drop(wires);
        wake_all(wakers);
    }
}
