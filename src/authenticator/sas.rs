//! Signatures that expire, as Azure IoT Hub wants them over MQTT 5: method `SAS`.
//!
//! The signature is HMAC-SHA256 of five lines: host, client identifier, policy, time of signing, time of
//! expiry. CONNECT carries it, and a re-authentication carries a new one before the old one expires. The
//! hub proves nothing in return; its certificate does.

use std::fmt;
use std::time::Duration;

use data_encoding::BASE64;
use ring::hmac;

use super::{AuthFuture, Authenticator, Exchange, Occasion};
use crate::error::{Error, Result};
use crate::properties::PropertyList;
use crate::protocol::AuthStep;

/// The only version of the hub's interface that speaks MQTT 5.
const API_VERSION: &str = "2020-10-01-preview";

/// How long a signature is good for, unless the program says otherwise. The hub advises short lives.
const LIFETIME: Duration = Duration::from_secs(3600);

/// After this part of its lifetime a signature is replaced: the rest is for a link that is slow, and for
/// clocks that differ.
const RENEWED_AFTER: f64 = 0.8;

/// Authenticates by signatures that expire and are renewed on the live connection (HMAC-SHA256, method
/// `SAS`), as the MQTT 5 interface of Azure IoT Hub wants them.
///
/// The times in it are those of the wall clock of [`Clock::unix_time`](crate::Clock::unix_time): on a device
/// whose clock is not set the hub refuses.
///
/// ```
/// use coracle::{Options, SasToken};
///
/// # fn main() -> coracle::Result<()> {
/// let hub = "example.azure-devices.net";
/// let options = Options::new(&format!("mqtts://{hub}"), "pump-1")?
///     .authenticator(SasToken::new(hub, "c2VjcmV0")?.client_agent("pumps/1.0"));
/// # let _ = options; Ok(()) }
/// ```
#[derive(Clone)]
#[must_use = "it has an effect only as the authenticator of the options"]
pub struct SasToken {
    host: String,
    key: hmac::Key,
    policy: Option<String>,
    client_agent: Option<String>,
    lifetime: Duration,
}

impl SasToken {
    /// An authenticator for the hub of this name, with a key of the device in base64, as the hub shows it.
    ///
    /// # Errors
    /// A misuse if the key is not base64, or the name holds a control character.
    pub fn new(host: &str, key: &str) -> Result<Self> {
        let key = BASE64
            .decode(key.as_bytes())
            .ok()
            .filter(|key| !key.is_empty())
            // Not quoted: it is a secret.
            .ok_or_else(|| Error::misuse("the key of a SAS token is empty or not in base64"))?;
        Ok(Self {
            host: line(host)?,
            key: hmac::Key::new(hmac::HMAC_SHA256, &key),
            policy: None,
            client_agent: None,
            lifetime: LIFETIME,
        })
    }

    /// Sets the shared access policy that the key belongs to. Defaults to none: the key is the device's
    /// own.
    ///
    /// # Errors
    /// A misuse if the name holds a control character.
    pub fn policy(mut self, name: &str) -> Result<Self> {
        self.policy = Some(line(name)?);
        Ok(self)
    }

    /// Sets what the hub is told about this program. Defaults to nothing.
    pub fn client_agent(mut self, text: &str) -> Self {
        self.client_agent = Some(text.into());
        self
    }

    /// Sets how long a signature is good for, at least 1 s; it is renewed after four fifths of it, counted
    /// from when the hub has let us in. Below a minute that may be too late on a slow link. Defaults to one
    /// hour.
    pub fn lifetime(mut self, lifetime: Duration) -> Self {
        self.lifetime = lifetime.max(Duration::from_secs(1));
        self
    }

    fn sign(&self, occasion: &Occasion) -> AuthStep {
        let at = occasion.unix_time().as_millis().to_string();
        let expiry = occasion.unix_time().saturating_add(self.lifetime);
        let expiry = expiry.as_millis().to_string();
        let client_id = occasion.client_id();
        let policy = self.policy.as_deref().unwrap_or_default();
        let lines = format!("{}\n{client_id}\n{policy}\n{at}\n{expiry}\n", self.host);
        let signature = hmac::sign(&self.key, lines.as_bytes());
        let mut step = AuthStep::new().data(signature.as_ref());
        // What does not change stands in CONNECT alone.
        if !occasion.is_renewal() {
            step = step
                .user_property("api-version", API_VERSION)
                .user_property("host", &self.host);
            if let Some(policy) = &self.policy {
                step = step.user_property("sas-policy", policy);
            }
            if let Some(text) = &self.client_agent {
                step = step.user_property("client-agent", text);
            }
        }
        step.user_property("sas-at", &at)
            .user_property("sas-expiry", &expiry)
    }
}

impl Authenticator for SasToken {
    fn method(&self) -> &str {
        "SAS"
    }

    fn start<'a>(
        &'a self,
        occasion: &'a Occasion,
    ) -> AuthFuture<'a, (AuthStep, Box<dyn Exchange>)> {
        let renew_in = self.lifetime.mul_f64(RENEWED_AFTER);
        Box::pin(async move {
            let exchange: Box<dyn Exchange> = Box::new(Signed { renew_in });
            Ok((self.sign(occasion), exchange))
        })
    }

    /// The hub's documentation shows a CONNACK without a method.
    fn is_one_sided(&self) -> bool {
        true
    }
}

impl fmt::Debug for SasToken {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SasToken")
            .field("host", &self.host)
            .field("policy", &self.policy)
            .field("lifetime", &self.lifetime)
            .finish_non_exhaustive()
    }
}

/// A signature that was sent.
struct Signed {
    renew_in: Duration,
}

impl Exchange for Signed {
    fn finish<'a>(&'a mut self, _: PropertyList<'a>) -> AuthFuture<'a, Option<Duration>> {
        Box::pin(async { Ok(Some(self.renew_in)) })
    }
}

/// A text that is one line of what is signed: with a line end in it, it could pass for two.
fn line(text: &str) -> Result<String> {
    if text.is_empty() || text.contains(char::is_control) {
        return Err(Error::misuse(
            "a name in a SAS token is empty or holds a control character",
        ));
    }
    Ok(text.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use data_encoding::HEXLOWER;
    use futures_lite::future::block_on;

    /// The base64 of "secret key of a device".
    const KEY: &str = "c2VjcmV0IGtleSBvZiBhIGRldmljZQ==";

    fn occasion(seconds: u64) -> Occasion {
        let mut occasion = Occasion::of("c", "mqtt://hub.example");
        occasion.unix_time = Duration::from_secs(seconds);
        occasion
    }

    /// The signature in hex, and the user properties.
    fn signed(token: &SasToken, occasion: &Occasion) -> (String, Vec<(String, String)>) {
        let (step, _) = block_on(token.start(occasion)).expect("it is signed");
        let properties = step.properties("SAS").expect("it can be sent");
        let list = properties.list();
        let data = list.authentication_data().expect("it has data");
        let pairs = list
            .user_properties()
            .map(|(name, value)| (name.into(), value.into()));
        (HEXLOWER.encode(data), pairs.collect())
    }

    fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        expected
            .iter()
            .map(|(name, value)| ((*name).into(), (*value).into()))
            .collect()
    }

    // The signatures were computed with Python's `hmac`.

    #[test]
    fn a_lifetime_beyond_the_end_of_time_is_signed_too() {
        let token = SasToken::new("hub.example", KEY).expect("a key");
        let (_, pairs) = signed(&token.lifetime(Duration::MAX), &occasion(1));
        let (_, expiry) = pairs.last().expect("it has an expiry");
        assert_eq!(*expiry, Duration::MAX.as_millis().to_string());
    }

    #[test]
    fn connect_says_everything_that_is_signed() {
        let token = SasToken::new("hub.example", KEY)
            .expect("the key is base64")
            .client_agent("test");
        let (signature, properties) = signed(&token, &occasion(1_767_225_600));
        let expected = "2727b3484cd6457d9968a94a7707dff20075379bf5ac26cd0375df98ddb2ab05";
        assert_eq!(signature, expected);
        let expected = pairs(&[
            ("api-version", "2020-10-01-preview"),
            ("host", "hub.example"),
            ("client-agent", "test"),
            ("sas-at", "1767225600000"),
            ("sas-expiry", "1767229200000"),
        ]);
        assert_eq!(properties, expected);
    }

    #[test]
    fn a_policy_is_signed_and_named() {
        let token = SasToken::new("hub.example", KEY)
            .and_then(|token| token.policy("devices"))
            .expect("key and name are good")
            .lifetime(Duration::from_secs(600));
        let (signature, properties) = signed(&token, &occasion(1_767_225_600));
        let expected = "6c11a307dc9229ef6a25c9a8b1f1fdec88d31380b20e3db28623a554b0ce54d0";
        assert_eq!(signature, expected);
        assert!(properties.contains(&("sas-policy".into(), "devices".into())));
        assert!(properties.contains(&("sas-expiry".into(), "1767226200000".into())));
    }

    #[test]
    fn a_renewal_says_what_has_changed_and_is_due_before_the_end() {
        let token = SasToken::new("hub.example", KEY).expect("the key is base64");
        let mut occasion = occasion(1_767_225_600 + 2880);
        occasion.purpose = super::super::Purpose::Renewal;
        let (signature, properties) = signed(&token, &occasion);
        let expected = "1a5614eea4b6b1c539decfe96790942486f9308274d3660049ec321ddf67dcdd";
        assert_eq!(signature, expected);
        let expected = pairs(&[("sas-at", "1767228480000"), ("sas-expiry", "1767232080000")]);
        assert_eq!(properties, expected);
        let (_, mut exchange) = block_on(token.start(&occasion)).expect("it is signed");
        let renew_in = block_on(exchange.finish(PropertyList::EMPTY)).expect("it is good");
        assert_eq!(renew_in, Some(Duration::from_secs(2880)));
    }

    #[test]
    fn a_bad_key_or_name_is_refused_and_the_key_is_not_shown() {
        for key in ["", "not base64!", "c2VjcmV0IGtleSBvZiBhIGRldmljZQ"] {
            let error = SasToken::new("hub.example", key).expect_err("the key is bad");
            assert!(key.is_empty() || !error.to_string().contains(key));
        }
        for name in ["", "hub\nexample"] {
            assert!(SasToken::new(name, KEY).is_err());
        }
        let token = SasToken::new("hub.example", KEY).expect("the key is base64");
        assert!(token.clone().policy("a\nb").is_err());
        let shown = format!("{token:?}");
        assert!(!shown.contains("c2Vj") && !shown.contains("115"), "{shown}");
    }
}
