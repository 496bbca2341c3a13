//! Real proxies: microsocks for SOCKS5 and tinyproxy for HTTP.

use std::fmt::Write;

use crate::pki::write;
use crate::process::Process;

/// A proxy that lets the connections of this machine through.
#[derive(Debug)]
pub(crate) struct Proxy {
    /// To read what it says about the connections.
    pub(crate) process: Process,
    scheme: &'static str,
    port: u16,
}

impl Proxy {
    /// SOCKS5 for anyone, or for who has this name and this password.
    pub(crate) async fn socks5(credentials: Option<(&str, &str)>) -> Self {
        let (process, port) = Process::serve("microsocks", |_, port| {
            let mut words = vec!["-i".to_owned(), "127.0.0.1".to_owned()];
            words.extend(["-p".to_owned(), port.to_string()]);
            if let Some((user, password)) = credentials {
                words.extend(["-u", user, "-P", password].map(str::to_owned));
            }
            words
        })
        .await;
        Self {
            process,
            scheme: "socks5",
            port,
        }
    }

    /// HTTP with CONNECT to these ports, for anyone, or for who has this name and this password.
    pub(crate) async fn http(ports: &[u16], credentials: Option<(&str, &str)>) -> Self {
        let (process, port) = Process::serve("tinyproxy", |directory, port| {
            let mut text = format!(
                "Port {port}\nListen 127.0.0.1\nAllow 127.0.0.1\nTimeout 600\nLogLevel Connect\n"
            );
            for port in ports {
                writeln!(text, "ConnectPort {port}").expect("a string takes everything");
            }
            if let Some((user, password)) = credentials {
                writeln!(text, "BasicAuth {user} {password}").expect("a string takes everything");
            }
            let file = write(directory, "tinyproxy.conf", &text);
            vec!["-d".to_owned(), "-c".to_owned(), file.display().to_string()]
        })
        .await;
        Self {
            process,
            scheme: "http",
            port,
        }
    }

    /// `socks5://127.0.0.1:port` or `http://127.0.0.1:port`.
    pub(crate) fn url(&self) -> String {
        format!("{}://127.0.0.1:{}", self.scheme, self.port)
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }
}
