//! SCRAM: both sides prove that they know the password, and neither sends it (RFC 5802, RFC 7677).
//!
//! ```text
//!     client                                      server
//!     n,,n=user,r=nonce         ── CONNECT ──►
//!                               ◄── AUTH ───      r=nonce+more,s=salt,i=iterations
//!     c=biws,r=nonce+more,p=proof ── AUTH ──►
//!                               ◄─ CONNACK ─      v=signature
//! ```
//!
//! Without channel binding: MQTT does not say to what it would bind.

use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use data_encoding::{BASE64, BASE64_NOPAD};
use futures_lite::future::yield_now;
use ring::rand::{SecureRandom, SystemRandom};
use ring::{digest, hmac};

use super::{AuthFuture, Authenticator, Exchange, Occasion};
use crate::error::{Error, Result};
use crate::properties::PropertyList;
use crate::protocol::AuthStep;

/// What stands in front of the first message: no channel binding, and no other identity to act as
/// (RFC 5802, section 7).
const GS2_HEADER: &str = "n,,";

/// [`GS2_HEADER`] in base64, as the last message of the client repeats it.
const CHANNEL: &str = "c=biws";

/// Random bytes of a nonce: 144 bits, so that none ever comes twice. They are 24 characters of base64.
const NONCE: usize = 18;

/// Fewer iterations than servers should ask for (RFC 5802, section 5.1; RFC 7677, section 4). Who asks for
/// less, and gets an answer, can guess the password from it at leisure.
const FEWEST_ITERATIONS: u32 = 4096;

/// More iterations than a server in use asks for: OWASP's advice of 2023 is 600,000 for SHA-256.
const MOST_ITERATIONS: u32 = 1_000_000;

/// Iterations between which the other tasks of the thread run: well below a millisecond.
const ITERATIONS_PER_TURN: u32 = 512;

/// The longest message of a server that is looked at, in bytes. Those in use have less than 200.
const LONGEST_MESSAGE: usize = 4096;

/// The hash that a [`Scram`] uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ScramHash {
    /// Method `SCRAM-SHA-1` (RFC 5802), for servers that have no better one.
    Sha1,
    /// Method `SCRAM-SHA-256` (RFC 7677).
    Sha256,
    /// Method `SCRAM-SHA-512`, made in the same way.
    Sha512,
}

impl ScramHash {
    fn method(self) -> &'static str {
        match self {
            Self::Sha1 => "SCRAM-SHA-1",
            Self::Sha256 => "SCRAM-SHA-256",
            Self::Sha512 => "SCRAM-SHA-512",
        }
    }

    fn hmac(self) -> hmac::Algorithm {
        match self {
            Self::Sha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            Self::Sha256 => hmac::HMAC_SHA256,
            Self::Sha512 => hmac::HMAC_SHA512,
        }
    }
}

/// Authenticates with a user name and a password by SCRAM, and lets no server in that does not know the
/// password's verifier.
///
/// The server names how many times the password is hashed. From 4,096 up to
/// [`Scram::maximum_iterations`] it gets its way; the work is done on the application's thread, in pieces
/// between which other tasks run. A million iterations of SHA-256 take about half a second on a desktop and
/// several on a small board: there a lower maximum keeps a hostile server from wasting the time.
///
/// ```
/// use coracle::{Options, Scram, ScramHash};
///
/// # fn main() -> coracle::Result<()> {
/// let options = Options::new("mqtts://broker.example", "pump-1")?
///     .authenticator(Scram::new(ScramHash::Sha256, "pump", "secret")?);
/// # let _ = options; Ok(()) }
/// ```
#[derive(Clone)]
#[must_use = "it has an effect only as the authenticator of the options"]
pub struct Scram {
    hash: ScramHash,
    user_name: String,
    password: Rc<[u8]>,
    maximum_iterations: u32,
    renew_every: Option<Duration>,
}

impl Scram {
    /// An authenticator for this user name and password, which are of printable ASCII.
    ///
    /// # Errors
    /// A misuse if one of them is empty or holds anything else. Such texts have to be prepared first
    /// (SASLprep, RFC 4013), for which Coracle carries no tables: see [`Scram::prepared`].
    pub fn new(hash: ScramHash, user_name: &str, password: &str) -> Result<Self> {
        let is_plain = |text: &str| {
            let printable = |byte: u8| byte == b' ' || byte.is_ascii_graphic();
            !text.is_empty() && text.bytes().all(printable)
        };
        // Neither is quoted: one of them is a secret, and people mix them up.
        if !is_plain(user_name) || !is_plain(password) {
            return Err(Error::misuse(
                "SCRAM wants a user name and a password of printable ASCII, or prepared ones (RFC 4013)",
            ));
        }
        Ok(Self::prepared(hash, user_name, password))
    }

    /// An authenticator for a user name and a password that went through SASLprep (RFC 4013), or that the
    /// server takes as they are: many servers compare UTF-8 without preparing it.
    pub fn prepared(hash: ScramHash, user_name: &str, password: &str) -> Self {
        Self {
            hash,
            user_name: user_name.into(),
            password: password.as_bytes().into(),
            maximum_iterations: MOST_ITERATIONS,
            renew_every: None,
        }
    }

    /// Sets how many iterations a server may ask for, at least 4,096. Defaults to 1,000,000.
    pub fn maximum_iterations(mut self, iterations: u32) -> Self {
        self.maximum_iterations = iterations.max(FEWEST_ITERATIONS);
        self
    }

    /// Sets after which time the connection is authenticated again, for servers that let an authentication
    /// expire. Defaults to never.
    pub fn renew_every(mut self, span: Duration) -> Self {
        self.renew_every = Some(span);
        self
    }

    /// The first message, and who goes on from there.
    fn begin(&self, nonce: &str) -> (AuthStep, Box<dyn Exchange>) {
        // RFC 5802, section 5.1: the characters that separate attributes are escaped.
        let user_name = self.user_name.replace('=', "=3D").replace(',', "=2C");
        let first = format!("n={user_name},r={nonce}");
        let step = AuthStep::new().data(format!("{GS2_HEADER}{first}"));
        let exchange = Conversation {
            scram: self.clone(),
            turn: Turn::Challenge {
                nonce: nonce.into(),
                first,
            },
        };
        (step, Box::new(exchange))
    }
}

impl Authenticator for Scram {
    fn method(&self) -> &str {
        self.hash.method()
    }

    fn start<'a>(&'a self, _: &'a Occasion) -> AuthFuture<'a, (AuthStep, Box<dyn Exchange>)> {
        Box::pin(async {
            let mut random = [0; NONCE];
            SystemRandom::new()
                .fill(&mut random)
                .map_err(|_| Error::no_credential("the system has no random numbers"))?;
            Ok(self.begin(&BASE64_NOPAD.encode(&random)))
        })
    }
}

impl fmt::Debug for Scram {
    /// Without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scram")
            .field("hash", &self.hash)
            .field("user_name", &self.user_name)
            .finish_non_exhaustive()
    }
}

/// One exchange.
struct Conversation {
    scram: Scram,
    turn: Turn,
}

/// ```text
///     Challenge ── r=,s=,i= ──► Signature ── v= ──► Over
/// ```
enum Turn {
    /// The server's first message is due.
    Challenge { nonce: String, first: String },
    /// Its signature is due: of this message by this key.
    Signature { key: hmac::Key, message: String },
    /// It is done, or has failed.
    Over,
}

impl Exchange for Conversation {
    fn proceed<'a>(&'a mut self, server: PropertyList<'a>) -> AuthFuture<'a, AuthStep> {
        Box::pin(async move {
            let Turn::Challenge { nonce, first } = std::mem::replace(&mut self.turn, Turn::Over)
            else {
                return Err(Error::unproven("it sent a second challenge in SCRAM"));
            };
            let message = message(server)?;
            let challenge = Challenge::parse(message, &nonce, self.scram.maximum_iterations)?;
            let last = format!("{CHANNEL},r={}", challenge.nonce);
            let signed = format!("{first},{message},{last}");
            let (proof, key) = self.scram.prove(&challenge, &signed).await;
            self.turn = Turn::Signature {
                key,
                message: signed,
            };
            Ok(AuthStep::new().data(format!("{last},p={}", BASE64.encode(&proof))))
        })
    }

    fn finish<'a>(&'a mut self, server: PropertyList<'a>) -> AuthFuture<'a, Option<Duration>> {
        Box::pin(async move {
            let Turn::Signature {
                key,
                message: signed,
            } = std::mem::replace(&mut self.turn, Turn::Over)
            else {
                return Err(Error::unproven("it skipped the challenge of SCRAM"));
            };
            let signature = message(server)?
                .strip_prefix("v=")
                .ok_or_else(|| Error::unproven("its last message has no signature"))?;
            // Behind it there may be extensions (RFC 5802, section 7).
            let signature = signature.split(',').next().unwrap_or_default();
            let signature = BASE64
                .decode(signature.as_bytes())
                .map_err(|_| Error::unproven("its signature is not in base64"))?;
            // Compares in constant time.
            hmac::verify(&key, signed.as_bytes(), &signature)
                .map_err(|_| Error::unproven("its signature is wrong"))?;
            Ok(self.scram.renew_every)
        })
    }
}

impl Scram {
    /// The client's proof, and the key of the server's signature (RFC 5802, section 3).
    async fn prove(&self, challenge: &Challenge<'_>, signed: &str) -> (Vec<u8>, hmac::Key) {
        let algorithm = self.hash.hmac();
        let salted = self.salted_password(challenge).await;
        let salted = hmac::Key::new(algorithm, &salted);
        let client_key = hmac::sign(&salted, b"Client Key");
        let stored_key = digest::digest(algorithm.digest_algorithm(), client_key.as_ref());
        let stored_key = hmac::Key::new(algorithm, stored_key.as_ref());
        let mut proof = client_key.as_ref().to_vec();
        xor(
            &mut proof,
            hmac::sign(&stored_key, signed.as_bytes()).as_ref(),
        );
        let server_key = hmac::sign(&salted, b"Server Key");
        (proof, hmac::Key::new(algorithm, server_key.as_ref()))
    }

    /// `Hi` of RFC 5802, section 2.2. That is PBKDF2 for one block, done here and not by ring, so that the
    /// other tasks have their turns in between.
    async fn salted_password(&self, challenge: &Challenge<'_>) -> Vec<u8> {
        let key = hmac::Key::new(self.hash.hmac(), &self.password);
        let mut first = challenge.salt.clone();
        first.extend_from_slice(&1_u32.to_be_bytes());
        let mut last = hmac::sign(&key, &first);
        let mut salted = last.as_ref().to_vec();
        for iteration in 1..challenge.iterations {
            last = hmac::sign(&key, last.as_ref());
            xor(&mut salted, last.as_ref());
            if iteration.is_multiple_of(ITERATIONS_PER_TURN) {
                yield_now().await;
            }
        }
        salted
    }
}

/// The server's first message.
struct Challenge<'a> {
    nonce: &'a str,
    salt: Vec<u8>,
    iterations: u32,
}

impl<'a> Challenge<'a> {
    /// `r=` the nonce, `s=` the salt, `i=` the iterations, in this order, then extensions that may be
    /// ignored (RFC 5802, section 7). A mandatory extension `m=` would stand in front.
    fn parse(message: &'a str, own: &str, most: u32) -> Result<Self> {
        let bad = |text: &'static str| Error::unproven(text);
        let mut attributes = message.split(',');
        let mut attribute = |name: &str| {
            let attribute = attributes.next()?;
            attribute.strip_prefix(name)?.strip_prefix('=')
        };
        let nonce = attribute("r").ok_or_else(|| bad("its challenge has no nonce"))?;
        let salt = attribute("s").ok_or_else(|| bad("its challenge has no salt"))?;
        let iterations = attribute("i").ok_or_else(|| bad("its challenge has no iterations"))?;
        // Else the challenge is one of another exchange (RFC 5802, section 5.1).
        let added = nonce
            .strip_prefix(own)
            .ok_or_else(|| bad("the nonce of its challenge does not begin with ours"))?;
        if added.is_empty() || !nonce.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(bad("it added nothing of its own to the nonce, or no text"));
        }
        let salt = BASE64
            .decode(salt.as_bytes())
            .ok()
            .filter(|salt| !salt.is_empty())
            .ok_or_else(|| bad("the salt of its challenge is empty or not in base64"))?;
        let iterations = Some(iterations)
            .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))
            .and_then(|digits| digits.parse().ok())
            .ok_or_else(|| bad("the number of iterations of its challenge is none"))?;
        if iterations < FEWEST_ITERATIONS {
            return Err(bad("it asks for less than 4096 iterations"));
        }
        if iterations > most {
            return Err(bad("it asks for more iterations than the options allow"));
        }
        Ok(Self {
            nonce,
            salt,
            iterations,
        })
    }
}

/// What the server says, as text.
fn message(server: PropertyList<'_>) -> Result<&str> {
    let data = server
        .authentication_data()
        .ok_or_else(|| Error::unproven("it sent no Authentication Data"))?;
    if data.len() > LONGEST_MESSAGE {
        return Err(Error::unproven("its message is too long"));
    }
    let message =
        std::str::from_utf8(data).map_err(|_| Error::unproven("its message is not UTF-8"))?;
    match message.strip_prefix("e=") {
        // The words of RFC 5802, section 7, or others: shown as what they are, and not all of them.
        Some(text) => {
            let shown: String = text.chars().take(64).collect();
            Err(Error::unproven(format!("it reports {shown:?}")))
        }
        None => Ok(message),
    }
}

fn xor(into: &mut [u8], other: &[u8]) {
    for (byte, other) in into.iter_mut().zip(other) {
        *byte ^= other;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::properties::Properties;
    use futures_lite::future::{block_on, poll_once};

    /// An exchange whose messages are known: those of a standard, or made by another implementation.
    struct Known {
        hash: ScramHash,
        nonce: &'static str,
        first: &'static str,
        challenge: &'static str,
        last: &'static str,
        signature: &'static str,
    }

    /// RFC 5802, section 5; RFC 7677, section 3; and one for SHA-512 that was computed with `pbkdf2_hmac`
    /// of Python's `hashlib` and with its `hmac`.
    const KNOWN: [Known; 3] = [
        Known {
            hash: ScramHash::Sha1,
            nonce: "fyko+d2lbbFgONRv9qkxdawL",
            first: "n,,n=user,r=fyko+d2lbbFgONRv9qkxdawL",
            challenge: "r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096",
            last: "c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,\
                   p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=",
            signature: "v=rmF9pqV8S7suAoZWja4dJRkFsKQ=",
        },
        Known {
            hash: ScramHash::Sha256,
            nonce: "rOprNGfwEbeRWgbNEkqO",
            first: "n,,n=user,r=rOprNGfwEbeRWgbNEkqO",
            challenge: "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                        s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
            last: "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                   p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
            signature: "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
        },
        Known {
            hash: ScramHash::Sha512,
            nonce: "rOprNGfwEbeRWgbNEkqO",
            first: "n,,n=user,r=rOprNGfwEbeRWgbNEkqO",
            challenge: "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                        s=W22ZaJ0SNY7soEsUEjb6gQ==,i=5000",
            last: "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                   p=r9PmkiwMk6CX4UPOf73Zv4jYMI+aK2UeFupyzIkdD4+kdXuQeeApPD09SXC7DzEThm6ov3MH7j+\
                   cwNKXVj8eMA==",
            signature: "v=lMRFhFdlxQ1FyB2Q7dvOXevq1X3MFIeNGi9axlK5botQ4GOgCAYiWWtBC5OPELqHX5uJw2E\
                        zrt/8lVrP90RA/A==",
        },
    ];

    fn scram(hash: ScramHash) -> Scram {
        Scram::new(hash, "user", "pencil").expect("both are ASCII")
    }

    fn said(step: &AuthStep) -> String {
        let list = step.properties("M").expect("it can be sent");
        let data = list.list().authentication_data().expect("it has data");
        String::from_utf8(data.to_vec()).expect("it is text")
    }

    fn data(text: &str) -> Properties {
        Properties::new().authentication_data(text.as_bytes())
    }

    fn proceed(exchange: &mut dyn Exchange, text: &str) -> Result<AuthStep> {
        block_on(exchange.proceed(data(text).list()))
    }

    fn finish(exchange: &mut dyn Exchange, text: &str) -> Result<Option<Duration>> {
        block_on(exchange.finish(data(text).list()))
    }

    /// Up to the signature of the server.
    fn challenged(known: &Known) -> Box<dyn Exchange> {
        let (_, mut exchange) = scram(known.hash).begin(known.nonce);
        let _ = proceed(&mut *exchange, known.challenge).expect("the challenge is good");
        exchange
    }

    #[track_caller]
    fn unproven<T: fmt::Debug>(outcome: Result<T>, words: &str) {
        let error = outcome.expect_err("the server is wrong");
        let text = error.to_string();
        assert!(text.contains(words), "{text}");
        assert!(text.contains("did not prove who it is"), "{text}");
    }

    #[test]
    fn the_exchanges_of_the_standards_come_out() {
        for known in &KNOWN {
            let (step, mut exchange) = scram(known.hash).begin(known.nonce);
            assert_eq!(said(&step), known.first);
            let step = proceed(&mut *exchange, known.challenge).expect("the challenge is good");
            assert_eq!(said(&step), known.last);
            let verdict = finish(&mut *exchange, known.signature);
            assert_eq!(verdict.expect("the signature is good"), None);
        }
    }

    #[test]
    fn commas_and_equals_signs_of_a_user_name_are_escaped() {
        // The same exchange with Python's `hashlib`, of the user "a=b,c" with the password "p w".
        let scram = Scram::new(ScramHash::Sha256, "a=b,c", "p w").expect("both are ASCII");
        let (step, mut exchange) = scram.begin("n0");
        assert_eq!(said(&step), "n,,n=a=3Db=2Cc,r=n0");
        let step = proceed(&mut *exchange, "r=n0x,s=c2FsdA==,i=4096").expect("it is good");
        let proof = "c=biws,r=n0x,p=V299CxNK/I8KwDsi1uanUbywzmNwkrRmehRe8BzNhJ8=";
        assert_eq!(said(&step), proof);
        let signature = "v=1eUdKp7byZhvUnOyz5GFc7g9L+gtko8wSiXS00R9i3A=";
        finish(&mut *exchange, signature).expect("it is good");
    }

    #[test]
    fn any_other_signature_is_wrong() {
        for known in &KNOWN {
            for tampered in [
                known.signature.replace('r', "s"),
                known.signature.replace('=', ""),
                known.signature.replace("v=", "w="),
                "v=".into(),
                "v=AAAA".into(),
                String::new(),
                known.last.into(),
            ] {
                assert_ne!(tampered, known.signature);
                let mut exchange = challenged(known);
                let error = finish(&mut *exchange, &tampered).expect_err("it is wrong");
                assert!(matches!(error.kind(), crate::ErrorKind::Unproven(_)));
                // There is no second try.
                unproven(finish(&mut *exchange, known.signature), "skipped");
            }
        }
    }

    #[test]
    fn success_without_a_signature_or_without_a_challenge_proves_nothing() {
        let known = &KNOWN[1];
        let mut exchange = challenged(known);
        let outcome = block_on(exchange.finish(PropertyList::EMPTY));
        unproven(outcome, "no Authentication Data");
        let (_, mut exchange) = scram(known.hash).begin(known.nonce);
        unproven(finish(&mut *exchange, known.signature), "skipped");
    }

    #[test]
    fn extensions_that_are_not_mandatory_are_ignored() {
        let known = &KNOWN[1];
        let (_, mut exchange) = scram(known.hash).begin(known.nonce);
        // They are signed with the rest, so the proof is another one.
        let challenge = format!("{},x=1,y=2", known.challenge);
        let step = proceed(&mut *exchange, &challenge).expect("it is good");
        assert_ne!(said(&step), known.last);
        let mut exchange = challenged(known);
        finish(&mut *exchange, &format!("{},x=1", known.signature)).expect("it is good");
    }

    #[test]
    fn a_challenge_that_is_none_is_not_answered() {
        for (challenge, words) in [
            ("", "no nonce"),
            ("r=other,s=c2FsdA==,i=4096", "does not begin with ours"),
            ("r=n0,s=c2FsdA==,i=4096", "nothing of its own"),
            ("r=n0x\u{e4},s=c2FsdA==,i=4096", "nothing of its own"),
            ("s=c2FsdA==,r=n0x,i=4096", "no nonce"),
            ("r=n0x", "no salt"),
            ("r=n0x,i=4096", "no salt"),
            ("r=n0x,s=c2FsdA==", "no iterations"),
            ("r=n0x,s=,i=4096", "empty or not in base64"),
            ("r=n0x,s=c2FsdA,i=4096", "empty or not in base64"),
            ("r=n0x,s=c2FsdA==,i=", "is none"),
            ("r=n0x,s=c2FsdA==,i=+5000", "is none"),
            ("r=n0x,s=c2FsdA==,i=99999999999", "is none"),
            ("r=n0x,s=c2FsdA==,i=0", "less than 4096"),
            ("r=n0x,s=c2FsdA==,i=4095", "less than 4096"),
            ("r=n0x,s=c2FsdA==,i=1000001", "more iterations"),
            ("m=x,r=n0x,s=c2FsdA==,i=4096", "no nonce"),
            ("e=unknown-user", "\"unknown-user\""),
            ("e=\u{7}bell", "\"\\u{7}bell\""),
        ] {
            let (_, mut exchange) = scram(ScramHash::Sha256).begin("n0");
            unproven(proceed(&mut *exchange, challenge), words);
            // It is over.
            let again = proceed(&mut *exchange, "r=n0x,s=c2FsdA==,i=4096");
            unproven(again, "second challenge");
        }
        let (_, mut exchange) = scram(ScramHash::Sha256).begin("n0");
        unproven(proceed(&mut *exchange, &"x".repeat(5000)), "too long");
        let (_, mut exchange) = scram(ScramHash::Sha256).begin("n0");
        let bytes = Properties::new().authentication_data(b"\xFF");
        unproven(block_on(exchange.proceed(bytes.list())), "not UTF-8");
    }

    #[test]
    fn the_maximum_of_iterations_is_a_setting() {
        let scram = scram(ScramHash::Sha256).maximum_iterations(5000);
        for (iterations, good) in [(5000, true), (5001, false)] {
            let (_, mut exchange) = scram.begin("n0");
            let challenge = format!("r=n0x,s=c2FsdA==,i={iterations}");
            assert_eq!(proceed(&mut *exchange, &challenge).is_ok(), good);
        }
        // Not below what every server may ask for.
        let (_, mut exchange) = scram.maximum_iterations(1).begin("n0");
        let _ = proceed(&mut *exchange, "r=n0x,s=c2FsdA==,i=4096").expect("it is good");
    }

    #[test]
    fn other_tasks_run_between_the_iterations() {
        let (_, mut exchange) = scram(ScramHash::Sha256).begin("n0");
        let challenge = data("r=n0x,s=c2FsdA==,i=4096");
        let mut step = exchange.proceed(challenge.list());
        let mut turns = 1;
        while block_on(poll_once(&mut step)).is_none() {
            turns += 1;
        }
        assert_eq!(turns, 8);
    }

    #[test]
    fn a_nonce_never_comes_twice() {
        let occasion = Occasion::of("c", "mqtt://broker");
        let scram = scram(ScramHash::Sha256);
        let first = || said(&block_on(scram.start(&occasion)).expect("there is one").0);
        let (one, other) = (first(), first());
        assert_ne!(one, other);
        let nonce = one.strip_prefix("n,,n=user,r=").expect("it has a nonce");
        assert_eq!(nonce.len(), 24);
        assert!(!nonce.contains(','));
    }

    #[test]
    fn texts_that_have_to_be_prepared_are_refused_and_not_shown() {
        for (user_name, password) in [
            ("user", "\u{fc}ml\u{e4}ut"),
            ("\u{fc}ml\u{e4}ut", "pencil"),
            ("user", "tab\t"),
            ("", "pencil"),
            ("user", ""),
        ] {
            let error = Scram::new(ScramHash::Sha256, user_name, password)
                .expect_err("it is not plain ASCII");
            let text = error.to_string();
            assert!(text.contains("printable ASCII"), "{text}");
            assert!(!text.contains("ml\u{e4}ut"), "{text}");
        }
        let shown = format!("{:?}", scram(ScramHash::Sha256));
        assert!(
            !shown.contains("pencil") && shown.contains("user"),
            "{shown}"
        );
    }
}
