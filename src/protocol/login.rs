//! What a client says in one step of an enhanced authentication, and how it begins one.

use std::fmt;
use std::rc::Rc;

use crate::error::Error;
use crate::properties::Properties;

/// What a client says in one step of an enhanced authentication: the Authentication Data of CONNECT or
/// AUTH, and beside it a reason string and user properties.
#[derive(Clone, Default)]
#[must_use = "a step has an effect only when it is returned"]
pub struct AuthStep {
    data: Option<Vec<u8>>,
    reason_string: Option<String>,
    user_properties: Properties,
}

impl AuthStep {
    /// A step without data.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the Authentication Data, up to 65,535 bytes. Defaults to none.
    pub fn data(mut self, data: impl Into<Vec<u8>>) -> Self {
        self.data = Some(data.into());
        self
    }

    /// Sets the reason string of an AUTH: a text for people. Defaults to none. CONNECT has none, so there it
    /// is left out; so it is where the broker takes no packet so large [MQTT-3.15.2-2].
    pub fn reason_string(mut self, reason: &str) -> Self {
        self.reason_string = Some(reason.into());
        self
    }

    /// Adds a user property to the packet. In CONNECT it stands behind those of the options. In AUTH it
    /// is left out where the broker takes no packet so large [MQTT-3.15.2-3].
    pub fn user_property(mut self, name: &str, value: &str) -> Self {
        self.user_properties = self.user_properties.user_property(name, value);
        self
    }

    /// What an AUTH with this step says, for tests.
    #[cfg(all(test, feature = "auth"))]
    pub(crate) fn properties(&self, method: &str) -> Result<Properties, Error> {
        self.to_auth(method)
    }

    /// What an AUTH with this step says.
    pub(super) fn to_auth(&self, method: &str) -> Result<Properties, Error> {
        let mut properties = self.add_to(Properties::new(), method)?;
        if let Some(reason) = &self.reason_string {
            properties = properties.reason_string(reason);
        }
        properties.check().map_err(Error::property)?;
        Ok(properties)
    }

    /// `properties` with the method and what CONNECT may say of this step.
    fn add_to(&self, properties: Properties, method: &str) -> Result<Properties, Error> {
        let mut properties = properties.authentication_method(method);
        if let Some(data) = &self.data {
            properties = properties.authentication_data(data);
        }
        self.user_properties.check().map_err(Error::property)?;
        for (name, value) in self.user_properties.list().user_properties() {
            properties = properties.user_property(name, value);
        }
        properties.check().map_err(Error::property)?;
        Ok(properties)
    }
}

impl fmt::Debug for AuthStep {
    /// Only how much there is: it may be a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthStep")
            .field("bytes", &self.data.as_ref().map(Vec::len))
            .finish_non_exhaustive()
    }
}

/// The authentication that CONNECT begins.
#[derive(Debug, Clone)]
pub struct Login {
    /// The Authentication Method.
    pub method: Rc<str>,
    /// What CONNECT says.
    pub step: AuthStep,
    /// Whether the server proves nothing: then success need not repeat the method.
    pub one_sided: bool,
}

impl Login {
    /// `properties` of CONNECT with the method and the first data.
    pub(super) fn add_to(&self, properties: Properties) -> Result<Properties, Error> {
        self.step.add_to(properties, &self.method)
    }
}
