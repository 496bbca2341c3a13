//! SUBSCRIBE and UNSUBSCRIBE.

use std::rc::Rc;
use std::time::Instant;

use crate::codec::subscribe::{FilterOptions, ReasonList};
use crate::codec::{Packet, Suback, Subscribe, Unsuback, Unsubscribe};
use crate::error::Violation;
use crate::properties::PropertyList;
use crate::reason::Reason;
use crate::topic::{has_wildcard, is_shared};
use crate::version::Version;

use super::broker::{Broker, LinkId};
use super::options::BrokerOptions;
use super::session::Delivery;
use super::subscriptions::Subscription;

/// Retain Handling 1: retained messages only for a new subscription; 2: never.
const ONLY_IF_NEW: u8 = 1;
const NEVER: u8 = 2;

impl Broker {
    pub(super) fn handle_subscribe(
        &mut self,
        id: LinkId,
        now: Instant,
        version: Version,
        subscribe: Subscribe<'_>,
    ) -> Result<(), Violation> {
        let Some(client) = self
            .links
            .get(&id)
            .and_then(|link| link.client())
            .map(Rc::clone)
        else {
            return Ok(());
        };
        let identifier = subscribe.properties.subscription_identifier();
        if version == Version::V5_0 {
            check_offer(&self.options, identifier)?;
        }
        let mut codes = Vec::new();
        let mut retained = Vec::new();
        for (filter, options) in subscribe.filters.iter() {
            if version == Version::V5_0 {
                check_filter_offer(&self.options, filter, options)?;
            }
            if self.options.denied.iter().any(|denied| **denied == *filter) {
                codes.push(refusal(version, options));
                continue;
            }
            let qos = options.qos.min(self.options.maximum_qos);
            codes.push(qos.bits());
            let granted = Subscription {
                filter: filter.into(),
                options: FilterOptions { qos, ..options },
                identifier,
            };
            let is_new = self.subscriptions.insert(&client, granted);
            let wanted = match options.retain_handling {
                NEVER => false,
                ONLY_IF_NEW => is_new,
                _ => true,
            };
            // A shared subscription gets no retained messages (section 4.8.2).
            if wanted && !is_shared(filter) {
                for message in self.retained.matching(filter, now) {
                    retained.push(Delivery {
                        qos: message.qos.min(qos),
                        message,
                        retain: true,
                        identifiers: identifier.into_iter().collect(),
                    });
                }
            }
        }
        let suback = Packet::Suback(Suback {
            id: subscribe.id,
            properties: PropertyList::EMPTY,
            reasons: ReasonList(&codes),
        });
        self.answer_packet(id, now, version, suback);
        for delivery in retained {
            self.send(now, &client, delivery);
        }
        Ok(())
    }

    pub(super) fn handle_unsubscribe(
        &mut self,
        id: LinkId,
        now: Instant,
        version: Version,
        unsubscribe: Unsubscribe<'_>,
    ) -> Result<(), Violation> {
        let Some(client) = self
            .links
            .get(&id)
            .and_then(|link| link.client())
            .map(Rc::clone)
        else {
            return Ok(());
        };
        let mut codes = Vec::new();
        for filter in unsubscribe.filters.iter() {
            let reason = if self.subscriptions.remove(&client, filter) {
                Reason::SUCCESS
            } else {
                Reason::NO_SUBSCRIPTION_EXISTED
            };
            codes.push(reason.code());
        }
        let unsuback = Packet::Unsuback(Unsuback {
            id: unsubscribe.id,
            properties: PropertyList::EMPTY,
            reasons: ReasonList(&codes),
        });
        self.answer_packet(id, now, version, unsuback);
        Ok(())
    }
}

/// What SUBACK says of a filter that is not allowed.
fn refusal(version: Version, options: FilterOptions) -> u8 {
    match version {
        Version::V5_0 => Reason::NOT_AUTHORIZED.code(),
        Version::V3_1_1 => Reason::UNSPECIFIED_ERROR.code(),
        // 3.1 has no code for a failure: the client is told what it wants to hear.
        Version::V3_1 => options.qos.bits(),
    }
}

fn check_offer(options: &BrokerOptions, identifier: Option<u32>) -> Result<(), Violation> {
    if identifier.is_some() && !options.subscription_identifiers {
        return Err(
            Violation::protocol("MQTT5 3.2.2.3.12", "a Subscription Identifier")
                .with_reason(Reason::SUBSCRIPTION_IDENTIFIERS_NOT_SUPPORTED),
        );
    }
    Ok(())
}

fn check_filter_offer(
    options: &BrokerOptions,
    filter: &str,
    wanted: FilterOptions,
) -> Result<(), Violation> {
    if has_wildcard(filter) && !options.wildcards {
        return Err(
            Violation::protocol("MQTT5 3.2.2.3.11", "a filter with a wildcard")
                .with_reason(Reason::WILDCARD_SUBSCRIPTIONS_NOT_SUPPORTED),
        );
    }
    if is_shared(filter) && !options.shared_subscriptions {
        return Err(
            Violation::protocol("MQTT5 3.2.2.3.13", "a shared subscription")
                .with_reason(Reason::SHARED_SUBSCRIPTIONS_NOT_SUPPORTED),
        );
    }
    if is_shared(filter) && wanted.no_local {
        return Err(Violation::protocol(
            "MQTT-3.8.3-4",
            "No Local on a shared subscription",
        ));
    }
    Ok(())
}
