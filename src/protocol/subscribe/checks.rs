//! What the version and the broker's limits do not let through of a request.

use crate::codec::subscribe::FilterOptions;
use crate::error::{Doing, Error, ErrorKind};
use crate::protocol::limits::Limits;
use crate::reason::Reason;
use crate::topic;
use crate::version::Version;

/// A call may have been accepted when it was not known yet that the broker speaks an older version.
pub(super) fn check_options(
    version: Version,
    filter: &str,
    options: FilterOptions,
) -> Result<(), Error> {
    let text = match version {
        Version::V5_0 => return Ok(()),
        // It was a filter when it was accepted, and has got the two levels of requests since.
        Version::V3_1 | Version::V3_1_1 if topic::check_filter(filter).is_err() => {
            "before MQTT 5 a filter of requests cannot end with #"
        }
        Version::V3_1 | Version::V3_1_1 if options.bits() == options.qos.bits() => return Ok(()),
        Version::V3_1 | Version::V3_1_1 => {
            "No Local, Retain As Published and Retain Handling need MQTT 5"
        }
    };
    Err(Error::new(
        ErrorKind::Misuse(text.into()),
        Doing::Subscribing,
    ))
}

/// What the broker said at CONNACK that it does not offer (MQTT 5, sections 3.2.2.3.11 to .13).
pub(super) fn check(filter: &str, identifier: Option<u32>, limits: &Limits) -> Result<(), Error> {
    let refuse = |reason| {
        Err(Error::new(
            ErrorKind::NotOffered(reason),
            Doing::Subscribing,
        ))
    };
    if !limits.wildcards_available && topic::has_wildcard(filter) {
        return refuse(Reason::WILDCARD_SUBSCRIPTIONS_NOT_SUPPORTED);
    }
    if !limits.shared_available && topic::is_shared(filter) {
        return refuse(Reason::SHARED_SUBSCRIPTIONS_NOT_SUPPORTED);
    }
    if !limits.identifiers_available && identifier.is_some() {
        return refuse(Reason::SUBSCRIPTION_IDENTIFIERS_NOT_SUPPORTED);
    }
    Ok(())
}
