//! What the broker says beside a reason.

use std::fmt;
use std::sync::Arc;

use super::{Properties, PropertyList};

/// Bytes of what a broker says that are kept at most with an error, which may be in an event that nobody
/// reads; with a PUBREC, until its PUBCOMP; and with a subscription. There may be a thousand of each, and a
/// packet may have a MiB.
const KEPT: usize = 4096;

/// The properties of an answer, kept for the caller: a reason string, user properties. Shared, because
/// one answer may be for several filters; none take no memory, so the usual answer costs nothing.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Remarks(Option<Arc<Properties>>);

impl Remarks {
    /// No properties.
    pub const NONE: Self = Self(None);

    /// For what may be kept for long: at most [`KEPT`] bytes; of more what a program acts upon, the reason
    /// string and the Server Reference, each if it is shorter.
    pub(crate) fn kept(list: PropertyList<'_>) -> Self {
        if list.as_bytes().len() <= KEPT {
            return list.into();
        }
        let mut kept = Properties::new();
        if let Some(text) = short_text(list) {
            kept = kept.reason_string(text);
        }
        if let Some(place) = list.server_reference().filter(|text| text.len() < KEPT) {
            kept = kept.server_reference(place);
        }
        kept.list().into()
    }

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

/// The reason string in them, unless it is too long to be kept.
pub(crate) fn short_text(list: PropertyList<'_>) -> Option<&str> {
    list.reason_string().filter(|text| text.len() < KEPT)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_too_many_words_the_reason_string_and_the_reference_stay() {
        let few = Properties::new()
            .reason_string("elsewhere")
            .server_reference("other:1883")
            .user_property("a", "b");
        assert_eq!(Remarks::kept(few.list()).list(), few.list());
        let many = few.user_property("c", &"d".repeat(KEPT));
        let kept = Remarks::kept(many.list());
        assert_eq!(kept.list().reason_string(), Some("elsewhere"));
        assert_eq!(kept.list().server_reference(), Some("other:1883"));
        assert_eq!(kept.list().user_properties().count(), 0);
        let long = Properties::new().reason_string(&"e".repeat(KEPT));
        assert_eq!(Remarks::kept(long.list()), Remarks::NONE);
    }
}
