//! What a caller of subscribe wants, filter by filter.

use std::rc::Rc;

use crate::codec::subscribe::FilterOptions;

/// One filter of a call.
#[derive(Debug, Clone)]
pub struct Wish {
    /// The filter.
    pub filter: Rc<str>,
    /// How its messages are wanted.
    pub options: FilterOptions,
    /// The number that comes back with them.
    pub identifier: Identifier,
}

/// A subscription identifier (MQTT 5, section 3.8.2.1.2), and whose it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Identifier {
    /// None.
    None,
    /// Ours, left out where the broker does not know identifiers.
    Automatic(u32),
    /// The user's. Without it the filter fails: something of the program may depend on it.
    Given(u32),
}

impl Identifier {
    /// The number, whoever chose it.
    pub fn number(self) -> Option<u32> {
        match self {
            Self::None => None,
            Self::Automatic(number) | Self::Given(number) => Some(number),
        }
    }

    /// The number that the user gave.
    pub fn given(self) -> Option<u32> {
        match self {
            Self::None | Self::Automatic(_) => None,
            Self::Given(number) => Some(number),
        }
    }
}
