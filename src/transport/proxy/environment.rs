//! The proxy that the environment names.

use std::env::VarError;

use super::except::Exceptions;
use super::server::Server;
use super::{Proxy, parse_server};
use crate::error::{Error, Result};

/// What `std::env::var` returns.
type Value = std::result::Result<String, VarError>;

/// Reads the variables through `variable`, so that tests need not change those of the process: other
/// tests run in it at the same time.
pub(super) fn read(variable: impl Fn(&str) -> Value) -> Result<Proxy> {
    // No HTTP_PROXY: see `Proxy::from_environment`.
    let plain = server(&variable, &["http_proxy", "all_proxy", "ALL_PROXY"])?;
    let secure = server(
        &variable,
        &["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"],
    )?;
    let mut except = Exceptions::default();
    if let Some((_name, hosts)) = first(&variable, &["no_proxy", "NO_PROXY"])? {
        except.add(&hosts);
    }
    Ok(Proxy {
        plain,
        secure,
        except,
    })
}

fn server(variable: &impl Fn(&str) -> Value, names: &[&str]) -> Result<Option<Server>> {
    match first(variable, names)? {
        Some((name, url)) => parse_server(&url, &format!("the proxy in {name}")).map(Some),
        None => Ok(None),
    }
}

/// The first of these variables that is set, with its name. An empty one counts as not set, as in other
/// programs: a shell can hide a variable from a program only so.
fn first<'a>(
    variable: &impl Fn(&str) -> Value,
    names: &[&'a str],
) -> Result<Option<(&'a str, String)>> {
    for name in names {
        match variable(name) {
            Ok(value) if value.trim().is_empty() => {}
            Ok(value) => return Ok(Some((name, value.trim().to_owned()))),
            Err(VarError::NotPresent) => {}
            // Not with its value, which may hold a password.
            Err(VarError::NotUnicode(_)) => {
                return Err(Error::misuse(format!(
                    "the environment variable {name} is not Unicode"
                )));
            }
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::super::super::Endpoint;
    use super::super::super::endpoint::Scheme;
    use super::*;
    use crate::ErrorKind;

    fn read_from(set: &[(&str, &str)]) -> Result<Proxy> {
        read(|name| {
            let found = set.iter().find(|(known, _)| *known == name);
            found.map_or(Err(VarError::NotPresent), |(_, value)| {
                Ok((*value).to_owned())
            })
        })
    }

    /// By which proxy an endpoint without TLS and one with TLS are reached.
    fn servers(set: &[(&str, &str)]) -> [Option<String>; 2] {
        let proxy = read_from(set).expect("variables that can be read");
        [Scheme::Tcp, Scheme::Tls].map(|scheme| {
            let endpoint = Endpoint::parse("mqtt://broker.example").expect("a valid endpoint");
            let endpoint = endpoint.by(scheme, 1883, None, endpoint.via());
            proxy.server_for(&endpoint).map(ToString::to_string)
        })
    }

    #[test]
    fn the_scheme_chooses_the_variable() {
        const A: &str = "http://a:80";
        const B: &str = "http://b:80";
        for (set, plain, secure) in [
            (&[][..], None, None),
            (&[("http_proxy", A)], Some(A), None),
            (&[("https_proxy", A)], None, Some(A)),
            (&[("HTTPS_PROXY", A)], None, Some(A)),
            (&[("all_proxy", A)], Some(A), Some(A)),
            (&[("ALL_PROXY", A)], Some(A), Some(A)),
            (&[("http_proxy", A), ("https_proxy", B)], Some(A), Some(B)),
            (&[("http_proxy", A), ("all_proxy", B)], Some(A), Some(B)),
            (&[("HTTPS_PROXY", A), ("all_proxy", B)], Some(B), Some(A)),
            // Lower case goes first.
            (&[("https_proxy", A), ("HTTPS_PROXY", B)], None, Some(A)),
            (&[("all_proxy", A), ("ALL_PROXY", B)], Some(A), Some(A)),
            // A web client can set it.
            (&[("HTTP_PROXY", A)], None, None),
            (&[("HTTP_PROXY", A), ("all_proxy", B)], Some(B), Some(B)),
            // Empty is not set.
            (&[("http_proxy", ""), ("ALL_PROXY", A)], Some(A), Some(A)),
            (&[("https_proxy", " "), ("HTTPS_PROXY", A)], None, Some(A)),
            (&[("all_proxy", "")], None, None),
            // Without a scheme.
            (&[("http_proxy", "a:80")], Some(A), None),
            (&[("http_proxy", "a")], Some(A), None),
            (&[("http_proxy", " http://a/\n")], Some(A), None),
            (&[("http_proxy", "user:secret@a")], Some(A), None),
            (
                &[("all_proxy", "socks5h://[::1]")],
                Some("socks5://[::1]:1080"),
                Some("socks5://[::1]:1080"),
            ),
            // Exceptions.
            (&[("all_proxy", A), ("no_proxy", "*")], None, None),
            (&[("all_proxy", A), ("NO_PROXY", "example")], None, None),
            (
                &[("all_proxy", A), ("no_proxy", "other"), ("NO_PROXY", "*")],
                Some(A),
                Some(A),
            ),
            (
                &[("all_proxy", A), ("no_proxy", ""), ("NO_PROXY", "*")],
                None,
                None,
            ),
            (&[("no_proxy", "other")], None, None),
        ] {
            let expected = [plain, secure].map(|server| server.map(str::to_owned));
            assert_eq!(servers(set), expected, "{set:?}");
        }
    }

    #[test]
    fn a_wrong_variable_is_named_and_its_password_is_not() {
        for (name, value, text) in [
            (
                "http_proxy",
                "https://user:secret@a",
                "the proxy in http_proxy: TLS with the proxy itself (https) is not supported",
            ),
            (
                "HTTPS_PROXY",
                "http://user:secret@a:0",
                "the proxy in HTTPS_PROXY: the port is not a number from 1 to 65535",
            ),
            (
                "all_proxy",
                "socks5://:secret@a",
                "the proxy in all_proxy: the user name is empty or longer than 255 bytes, which \
                 SOCKS5 does not allow",
            ),
            (
                "ALL_PROXY",
                "socks4://secret",
                "the proxy in ALL_PROXY: the scheme \"socks4\" is unknown; known are http, socks5, \
                 socks5h",
            ),
        ] {
            let error = read_from(&[(name, value)]).expect_err(value);
            let ErrorKind::Misuse(told) = error.kind() else {
                panic!("{error} is no misuse");
            };
            assert_eq!(**told, *text, "{name}={value}");
        }
    }

    #[test]
    fn a_variable_that_is_not_unicode_is_named_and_not_shown() {
        for odd in ["http_proxy", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"] {
            let error = read(|name| {
                Err(if name == odd {
                    VarError::NotUnicode("secret".into())
                } else {
                    VarError::NotPresent
                })
            })
            .expect_err(odd);
            let text = format!("the environment variable {odd} is not Unicode");
            assert!(error.to_string().contains(&text), "{error}");
            assert!(
                !format!("{error} {error:?}").contains("secret"),
                "{error:?}"
            );
        }
    }
}
