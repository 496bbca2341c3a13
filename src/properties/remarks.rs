//! What the broker says beside a reason.

use std::fmt;
use std::sync::Arc;

use super::{Properties, PropertyList};

/// The properties of an answer, kept for the caller: a reason string, user properties. Shared, because
/// one answer may be for several filters; none take no memory, so the usual answer costs nothing.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Remarks(Option<Arc<Properties>>);

impl Remarks {
    /// No properties.
    pub const NONE: Self = Self(None);

    /// What is in them, for reading.
    pub fn list(&self) -> PropertyList<'_> {
        self.0
            .as_ref()
            .map_or(PropertyList::EMPTY, |properties| properties.list())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// These, and behind them what another packet of the same exchange says.
    pub(crate) fn and(self, more: PropertyList<'_>) -> Self {
        if more.is_empty() {
            return self;
        }
        if self.0.is_none() {
            return more.into();
        }
        // Not by `with`: what stands in both packets is kept twice, in its order.
        let mut bytes = self.list().as_bytes().to_vec();
        bytes.extend_from_slice(more.as_bytes());
        PropertyList::from_checked(&bytes).into()
    }
}

impl From<PropertyList<'_>> for Remarks {
    fn from(list: PropertyList<'_>) -> Self {
        Self((!list.is_empty()).then(|| Arc::new(list.into())))
    }
}

impl fmt::Debug for Remarks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.list().fmt(f)
    }
}
