//! A private authority and the certificates that it gives.
//!
//! ```text
//! root ──► intermediate ──► server, client
//! ```
//!
//! Who trusts the root has to be shown the intermediate: that is what the chain in [`Identity`] is for.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType, date_time_ymd,
};

use crate::ground::{Scratch, program};

/// Longer than these tests are worth anything.
const VALID: (i32, i32) = (2020, 2090);
const EXPIRED: (i32, i32) = (2020, 2021);
const NOT_YET_VALID: (i32, i32) = (2089, 2090);

/// Tells the authorities apart.
static NEXT: AtomicU32 = AtomicU32::new(0);

/// An authority of a test.
pub(crate) struct Authority {
    root: String,
    intermediate: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, as PEM.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    /// The certificate, and after it the one of its issuer.
    pub(crate) chain: String,
    /// PKCS#8: `PRIVATE KEY`.
    pub(crate) key: String,
}

impl Authority {
    /// Each has a name of its own: a stranger of the same name would be taken for a forger.
    pub(crate) fn new() -> Self {
        let nth = NEXT.fetch_add(1, Ordering::Relaxed);
        let key = KeyPair::generate().expect("a key");
        let params = authority(&format!("Coracle Test Root {nth}"));
        let root = params.self_signed(&key).expect("a root certificate");
        let root_issuer = Issuer::new(params, key);

        let key = KeyPair::generate().expect("a key");
        let params = authority(&format!("Coracle Test Intermediate {nth}"));
        let intermediate = params
            .signed_by(&key, &root_issuer)
            .expect("an intermediate certificate");
        Self {
            root: root.pem(),
            intermediate: intermediate.pem(),
            issuer: Issuer::new(params, key),
        }
    }

    /// The root certificate: what a client is to trust.
    pub(crate) fn root(&self) -> &str {
        &self.root
    }

    /// For a server that has these names: host names and IP addresses.
    pub(crate) fn server(&self, names: &[&str]) -> Identity {
        self.server_of(names, VALID)
    }

    pub(crate) fn expired_server(&self, names: &[&str]) -> Identity {
        self.server_of(names, EXPIRED)
    }

    pub(crate) fn not_yet_valid_server(&self, names: &[&str]) -> Identity {
        self.server_of(names, NOT_YET_VALID)
    }

    /// For a client of this name, with a key on the curve P-256.
    pub(crate) fn client(&self, name: &str) -> Identity {
        let key = KeyPair::generate().expect("a key");
        self.client_of(name, VALID, &key)
    }

    pub(crate) fn expired_client(&self, name: &str) -> Identity {
        let key = KeyPair::generate().expect("a key");
        self.client_of(name, EXPIRED, &key)
    }

    /// For a client of this name, with an RSA key.
    pub(crate) fn rsa_client(&self, name: &str) -> Identity {
        let options = ["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"];
        // The library of the other keys makes none for RSA.
        let key = openssl(&[["genpkey"].as_slice(), &options].concat(), "");
        let key = KeyPair::from_pem(&key).expect("a key of openssl");
        self.client_of(name, VALID, &key)
    }

    /// For a server that shows a root certificate, and nobody else's.
    pub(crate) fn self_signed_server(name: &str) -> Identity {
        let key = KeyPair::generate().expect("a key");
        let mut params = authority(name);
        params.subject_alt_names = vec![SanType::DnsName(name.try_into().expect("a name"))];
        Identity {
            chain: params.self_signed(&key).expect("a certificate").pem(),
            key: key.serialize_pem(),
        }
    }

    /// For a server, as openssl makes one that is not told of extensions.
    pub(crate) fn server_of_version_1(name: &str) -> Identity {
        let scratch = Scratch::new();
        let key = KeyPair::generate().expect("a key").serialize_pem();
        let path = write(scratch.path(), "server.key", &key);
        let path = path.to_str().expect("a path in text");
        let subject = format!("/CN={name}");
        let request = openssl(&["req", "-new", "-key", path, "-subj", &subject], "");
        let chain = openssl(&["x509", "-req", "-signkey", path], &request);
        Identity { chain, key }
    }

    fn server_of(&self, names: &[&str], years: (i32, i32)) -> Identity {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("names of a server");
        params.distinguished_name = named("Coracle Test Server");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(params, years, &KeyPair::generate().expect("a key"))
    }

    fn client_of(&self, name: &str, years: (i32, i32), key: &KeyPair) -> Identity {
        let mut params = CertificateParams::default();
        params.distinguished_name = named(name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(params, years, key)
    }

    fn sign(&self, mut params: CertificateParams, years: (i32, i32), key: &KeyPair) -> Identity {
        limit(&mut params, years);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let certificate = params.signed_by(key, &self.issuer).expect("a certificate");
        Identity {
            chain: certificate.pem() + &self.intermediate,
            key: key.serialize_pem(),
        }
    }
}

impl Identity {
    /// The key in the older form of elliptic curves (RFC 5915): `EC PRIVATE KEY`.
    pub(crate) fn sec1_key(&self) -> String {
        openssl(&["ec"], &self.key)
    }

    /// The key in the older form of RSA (RFC 8017, A.1.2): `RSA PRIVATE KEY`.
    pub(crate) fn pkcs1_key(&self) -> String {
        openssl(&["rsa", "-traditional"], &self.key)
    }

    /// The key behind a password: `ENCRYPTED PRIVATE KEY`.
    pub(crate) fn encrypted_key(&self, password: &str) -> String {
        let password = format!("pass:{password}");
        openssl(&["pkcs8", "-topk8", "-passout", &password], &self.key)
    }

    /// Writes `name.pem` and `name.key` into a directory, and returns their paths.
    pub(crate) fn write(&self, directory: &Path, name: &str) -> (PathBuf, PathBuf) {
        (
            write(directory, &format!("{name}.pem"), &self.chain),
            write(directory, &format!("{name}.key"), &self.key),
        )
    }
}

/// Writes a file into a directory, and returns its path.
pub(crate) fn write(directory: &Path, name: &str, text: &str) -> PathBuf {
    let path = directory.join(name);
    fs::write(&path, text).expect("a file of a test");
    path
}

fn authority(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = named(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    limit(&mut params, VALID);
    params
}

fn named(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

/// From the first day of one year to the first day of another.
fn limit(params: &mut CertificateParams, (from, to): (i32, i32)) {
    params.not_before = date_time_ymd(from, 1, 1);
    params.not_after = date_time_ymd(to, 1, 1);
}

fn openssl(arguments: &[&str], input: &str) -> String {
    let mut child = Command::new(program("openssl"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("openssl");
    // A key fits into a pipe.
    let mut pipe = child.stdin.take().expect("its input is piped");
    pipe.write_all(input.as_bytes()).expect("openssl reads");
    drop(pipe);
    let output = child.wait_with_output().expect("the output of openssl");
    assert!(output.status.success(), "openssl {arguments:?} fails");
    String::from_utf8(output.stdout).expect("openssl writes text")
}
