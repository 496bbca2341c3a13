//! A client that is fed with arbitrary bytes in arbitrary pieces, while the program and the clock go on.

use super::application::{act, connect, rig};
use super::input::Input;

/// Input: settings, how the connection opens, then steps: a length below 64 and so many bytes from the
/// broker, or something that the program, the clock or the network does.
pub(crate) fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let mut rig = rig(&mut input);
    connect(&mut rig, &mut input);
    while !input.is_empty() {
        match input.u8() {
            length @ 0..0x40 => {
                if !rig.is_open {
                    connect(&mut rig, &mut input);
                }
                let bytes = input.take(length.into());
                rig.receive(bytes);
            }
            0x40.. => act(&mut rig, &mut input),
        }
    }
    rig.drain();
}
