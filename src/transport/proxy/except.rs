//! The hosts that are reached without the proxy, in the form of `no_proxy`.
//!
//! No standard describes it, and programs differ; `Proxy::except` says what is understood here.

use std::net::IpAddr;

use super::super::endpoint::{parse_port, split_port};

/// Hosts that are reached without the proxy.
#[derive(Debug, Clone, Default)]
pub(super) struct Exceptions(Vec<Entry>);

#[derive(Debug, Clone)]
struct Entry {
    hosts: Hosts,
    /// Any if none.
    port: Option<u16>,
}

#[derive(Debug, Clone)]
enum Hosts {
    All,
    Address(IpAddr),
    /// The addresses of which so many bits are those of this one.
    Block(IpAddr, u32),
    /// A name and all below it, without a dot at either end.
    Domain(String),
}

impl Exceptions {
    pub(super) fn add(&mut self, list: &str) {
        let separates = |c: char| c == ',' || c.is_whitespace();
        self.0
            .extend(list.split(separates).filter_map(Entry::parse));
    }

    pub(super) fn holds(&self, host: &str, port: u16) -> bool {
        let address: Option<IpAddr> = host.parse().ok();
        self.0.iter().any(|entry| {
            entry.port.is_none_or(|own| own == port)
                && match (&entry.hosts, address) {
                    (Hosts::All, _) => true,
                    (Hosts::Address(own), Some(address)) => *own == address.to_canonical(),
                    (Hosts::Block(own, bits), Some(address)) => {
                        is_in_block(address.to_canonical(), *own, *bits)
                    }
                    (Hosts::Domain(domain), None) => is_in_domain(host, domain),
                    // Otherwise `0.0.1` would hold 127.0.0.1.
                    (Hosts::Domain(_), Some(_)) | (Hosts::Address(_) | Hosts::Block(..), None) => {
                        false
                    }
                }
        })
    }
}

impl Entry {
    /// None if it makes no sense.
    fn parse(text: &str) -> Option<Self> {
        // Before a port is looked for: an IPv6 address may stand without brackets.
        if let Ok(address) = text.parse::<IpAddr>() {
            let hosts = Hosts::Address(address.to_canonical());
            return Some(Self { hosts, port: None });
        }
        if let Some((address, bits)) = text.split_once('/') {
            let hosts = parse_block(address, bits)?;
            return Some(Self { hosts, port: None });
        }
        let (host, port) = split_port(text).ok()?;
        let port = match port {
            Some(digits) => Some(parse_port(digits).ok()?),
            None => None,
        };
        let hosts = if host == "*" {
            Hosts::All
        } else if let Ok(address) = host.parse::<IpAddr>() {
            Hosts::Address(address.to_canonical())
        } else {
            // `*.example.com` is widespread too.
            let domain = host.strip_prefix("*.").unwrap_or(host);
            let domain = domain.strip_prefix('.').unwrap_or(domain);
            let domain = domain.strip_suffix('.').unwrap_or(domain);
            if domain.is_empty() || domain.contains('*') {
                return None;
            }
            Hosts::Domain(domain.to_owned())
        };
        Some(Self { hosts, port })
    }
}

fn parse_block(address: &str, bits: &str) -> Option<Hosts> {
    let address: IpAddr = address.parse().ok()?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    // `parse` alone would take `+8`.
    let bits = bits
        .parse()
        .ok()
        .filter(|count| *count <= most && bits.bytes().all(|byte| byte.is_ascii_digit()))?;
    Some(Hosts::Block(address, bits))
}

/// Whether the first `bits` bits are the same.
fn is_in_block(address: IpAddr, own: IpAddr, bits: u32) -> bool {
    // A shift by all bits is none to Rust: with a block of 0 bits nothing is left to differ.
    match (address, own) {
        (IpAddr::V4(address), IpAddr::V4(own)) => {
            let differs = address.to_bits() ^ own.to_bits();
            differs.checked_shr(32 - bits).unwrap_or(0) == 0
        }
        (IpAddr::V6(address), IpAddr::V6(own)) => {
            let differs = address.to_bits() ^ own.to_bits();
            differs.checked_shr(128 - bits).unwrap_or(0) == 0
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
    }
}

/// Whether the name is the domain or ends in it, at a dot.
fn is_in_domain(name: &str, domain: &str) -> bool {
    // The dot at the end only says that nothing follows.
    let name = name.strip_suffix('.').unwrap_or(name).as_bytes();
    let Some((above, end)) = name
        .len()
        .checked_sub(domain.len())
        .and_then(|at| name.split_at_checked(at))
    else {
        return false;
    };
    end.eq_ignore_ascii_case(domain.as_bytes()) && (above.is_empty() || above.ends_with(b"."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_an_exception_if_an_entry_holds_it() {
        for (list, host, port, is_held) in [
            ("", "broker", 1883, false),
            (" , ,", "broker", 1883, false),
            ("*", "broker", 1883, true),
            ("*", "192.0.2.7", 1883, true),
            ("a,*", "::1", 1883, true),
            ("*:1883", "broker", 1883, true),
            ("*:1883", "broker", 8883, false),
            // Names.
            ("example.com", "example.com", 1883, true),
            ("example.com", "a.b.example.com", 1883, true),
            (".example.com", "example.com", 1883, true),
            (".example.com", "a.example.com", 1883, true),
            ("*.example.com", "a.example.com", 1883, true),
            ("Example.COM", "a.eXample.com", 1883, true),
            ("example.com.", "a.example.com", 1883, true),
            ("example.com", "a.example.com.", 1883, true),
            ("example.com", "notexample.com", 1883, false),
            ("a.example.com", "example.com", 1883, false),
            ("example.com", "example.com.org", 1883, false),
            ("example.com", "com", 1883, false),
            ("\u{e4}.example", "x\u{e4}.example", 1883, false),
            (".example", "\u{e4}.example", 1883, true),
            ("ample", "\u{e4}mple", 1883, false),
            ("localhost", "localhost", 1883, true),
            ("broker", "localhost", 1883, false),
            ("broker", "127.0.0.1", 1883, false),
            ("broker", "::1", 1883, false),
            // Lists.
            ("a,b", "b", 1883, true),
            ("a b", "b", 1883, true),
            (" a ,\tb\n", "b", 1883, true),
            ("a;b", "b", 1883, false),
            // Ports.
            ("broker:1883", "broker", 1883, true),
            ("broker:1883", "broker", 8883, false),
            (".example.com:1883", "a.example.com", 1883, true),
            ("192.0.2.7:1883", "192.0.2.7", 1883, true),
            ("192.0.2.7:1883", "192.0.2.7", 8883, false),
            ("[2001:db8::7]:1883", "2001:db8::7", 1883, true),
            ("[2001:db8::7]:1883", "2001:db8::7", 8883, false),
            // Addresses.
            ("192.0.2.7", "192.0.2.7", 1883, true),
            ("192.0.2.7", "192.0.2.70", 1883, false),
            ("2001:db8::7", "2001:DB8:0::0007", 1883, true),
            ("[2001:db8::7]", "2001:db8::7", 1883, true),
            ("2001:db8::7", "2001:db8::8", 1883, false),
            ("192.0.2.7", "::ffff:192.0.2.7", 1883, true),
            ("::ffff:192.0.2.7", "192.0.2.7", 1883, true),
            ("0.0.1", "127.0.0.1", 1883, false),
            (".1", "127.0.0.1", 1883, false),
            // Blocks.
            ("10.0.0.0/8", "10.255.0.1", 1883, true),
            ("10.0.0.0/8", "11.0.0.0", 1883, false),
            ("10.1.2.3/8", "10.255.0.1", 1883, true),
            ("192.0.2.128/25", "192.0.2.128", 1883, true),
            ("192.0.2.128/25", "192.0.2.127", 1883, false),
            ("192.0.2.7/32", "192.0.2.7", 1883, true),
            ("192.0.2.7/32", "192.0.2.6", 1883, false),
            ("0.0.0.0/0", "203.0.113.1", 1883, true),
            ("0.0.0.0/0", "2001:db8::7", 1883, false),
            ("fd00::/8", "fdff::1", 1883, true),
            ("fd00::/8", "fe80::1", 1883, false),
            ("::1/128", "::1", 1883, true),
            ("::1/128", "::2", 1883, false),
            ("::/0", "2001:db8::7", 1883, true),
            ("::/0", "192.0.2.7", 1883, false),
            ("10.0.0.0/8", "::ffff:10.0.0.1", 1883, true),
            ("10.0.0.0/8", "ten.example", 1883, false),
            ("127.0.0.0/8", "localhost", 1883, false),
            // No sense.
            ("10.0.0.0/33", "10.0.0.0", 1883, false),
            ("10.0.0.0/+8", "10.0.0.0", 1883, false),
            ("10.0.0.0/", "10.0.0.0", 1883, false),
            ("10.0.0/8", "10.0.0.0", 1883, false),
            ("fd00::/129", "fd00::", 1883, false),
            ("fd00::/-1", "fd00::", 1883, false),
            ("broker/8", "broker", 1883, false),
            ("broker:", "broker", 1883, false),
            ("broker:0", "broker", 1883, false),
            ("broker:mqtt", "broker", 1883, false),
            ("a:b:c", "a", 1883, false),
            ("[::1", "::1", 1883, false),
            ("[broker]", "broker", 1883, false),
            (".", "broker", 1883, false),
            ("..", "broker", 1883, false),
            ("*.", "broker", 1883, false),
            ("**", "broker", 1883, false),
            ("br*", "broker", 1883, false),
            ("*broker", "broker", 1883, false),
            (":1883", "broker", 1883, false),
            ("http://broker", "broker", 1883, false),
            // What makes no sense harms nothing.
            ("10.0.0.0/33,br*,broker", "broker", 1883, true),
        ] {
            let mut except = Exceptions::default();
            except.add(list);
            assert_eq!(
                except.holds(host, port),
                is_held,
                "{list:?} and {host}:{port}"
            );
        }
    }

    #[test]
    fn exceptions_add_up() {
        let mut except = Exceptions::default();
        except.add("one");
        except.add("two");
        for (host, is_held) in [("one", true), ("two", true), ("three", false)] {
            assert_eq!(except.holds(host, 1883), is_held, "{host}");
        }
    }
}
