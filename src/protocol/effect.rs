//! What the machines tell the client: waits that end, and things it has to know.

use std::rc::Rc;
use std::time::Duration;

use super::auth::Ask;
use super::connect::Continuity;
use super::publish_in::Receipt;
use crate::error::{Doing, Error};
use crate::message::Message;
use crate::properties::Remarks;
use crate::reason::Reason;

/// A wait, as the client knows it. The protocol only hands it back.
pub type Token = usize;

/// How a wait ended well.
#[derive(Debug, Clone)]
pub enum Done {
    /// It was handed to the system.
    Sent,
    /// The broker acknowledged the message, with this reason and these properties.
    Acknowledged(Reason, Remarks),
    /// All filters of a subscribe were granted.
    Granted(Vec<Grant>),
    /// The broker answered an unsubscribe: one reason per filter, and the properties of all answers.
    Unsubscribed(Vec<Reason>, Remarks),
    /// The broker answered a ping.
    Pong,
    /// A re-authentication was successful on both sides.
    Authenticated,
}

/// What became of one filter of a subscribe.
#[derive(Debug, Clone)]
pub struct Grant {
    /// The filter.
    pub filter: Rc<str>,
    /// What became of it.
    pub answer: Asked,
}

impl Grant {
    /// Why the filter is not subscribed to, if it is not.
    pub fn error(&self) -> Option<Error> {
        match &self.answer {
            Asked::Failed(error) => Some(error.clone()),
            Asked::Answered(reason, remarks) if reason.is_error() => Some(Error::refused(
                *reason,
                Some(&self.filter),
                remarks.clone(),
                Doing::Subscribing,
            )),
            Asked::Answered(..) => None,
        }
    }
}

/// The answer for one filter.
#[derive(Debug, Clone)]
pub enum Asked {
    /// The broker's reason, with the properties of its answer.
    Answered(Reason, Remarks),
    /// It was never asked for.
    Failed(Error),
}

/// Something that the client has to know.
#[derive(Debug)]
pub enum Effect {
    /// CONNACK came: the connection is open.
    Connected(Continuity),
    /// DISCONNECT is among the bytes to write; after it, connect again at once.
    Again,
    /// This wait is over.
    Done(Token, Result<Done, Error>),
    /// A message for which nobody waits will not be published; without its content if the broker had
    /// confirmed that, or if it was QoS 0.
    Unpublished(Option<Box<Message>>, Error),
    /// What became of the filters of this subscriber.
    Subscribed(usize, Vec<Grant>),
    /// A subscription that the broker had lost was refused now.
    Unrestored(Grant),
    /// All subscriptions that the broker had lost were answered for.
    Restored,
    /// A message was not taken in time and is acknowledged all the same; with a store only once the client
    /// says that it is kept there.
    Overdue(Receipt),
    /// The time is over in which the subscriptions of an earlier process could be made again.
    Disinherited,
    /// A message above the inbound limit was skipped; its size in bytes.
    Skipped(usize),
    /// The authenticator has something to do.
    Authenticate(Ask),
    /// A re-authentication was successful on both sides, whoever began it.
    Reauthenticated,
    /// The credential should have been renewed, but that could not begin. After this time it is tried
    /// again.
    NotRenewed(Error, Duration),
    /// An acknowledgement for something unknown was ignored.
    Stray,
}
