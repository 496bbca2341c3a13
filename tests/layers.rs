//! The layers of the crate: arrows point down only. Reads every file of `src/`.
//!
//! A module that is not in the list fails too, so that whoever adds one says where it belongs.

use std::fs;
use std::path::{Path, PathBuf};

/// From the bottom up. A module may use those of its own layer and of the layers before it.
const LAYERS: [(&str, &[&str]); 8] = [
    (
        "words",
        &[
            "error",
            "message",
            "obstacle",
            "properties",
            "prospect",
            "reason",
            "store",
            "topic",
            "version",
            "wait",
            "when_full",
        ],
    ),
    ("codec", &["codec"]),
    ("protocol", &["protocol"]),
    ("doors", &["clock", "statistics", "transport"]),
    ("settings", &["authenticator", "event", "options"]),
    (
        "state",
        &[
            "answers", "deliver", "ending", "heritage", "loose", "queue", "router", "shared",
            "waiter",
        ],
    ),
    (
        "driver",
        &[
            "alarm",
            "connection",
            "dialogue",
            "driver",
            "fallback",
            "keeper",
            "reader",
            "reconnect",
            "routes",
        ],
    ),
    (
        "handles",
        &[
            "calls",
            "client",
            "events",
            "request",
            "serve",
            "subscription",
            "wait_for",
        ],
    ),
];

/// Names the modules, and with the feature the test kit, which may use everything.
const ABOVE_ALL: [&str; 2] = ["lib", "testkit"];

/// Names of sockets, and of what makes them.
const SOCKETS: [&str; 8] = [
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "UnixStream",
    "SocketAddr",
    "ToSocketAddrs",
    "std::net",
    "Async<",
];

/// What belongs to waiting and to reading a clock.
const WAITING: [&str; 8] = [
    "async",
    ".await",
    "Waker",
    "Poll<",
    "Instant::now",
    "SystemTime",
    "futures_lite",
    "smol",
];

/// Crates that the words do without.
const CRATES: [&str; 6] = [
    "smol",
    "async_io",
    "futures_lite",
    "slab",
    "log::",
    "fastrand",
];

/// A file of `src/`: its module at the top, its path, and its text without comments and texts.
struct File {
    module: String,
    path: PathBuf,
    code: String,
}

fn files() -> Vec<File> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder).expect("the folder is there");
        for entry in entries {
            let path = entry.expect("it can be listed").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("it is text");
                let path = path.strip_prefix(&root).expect("it is in src").to_owned();
                let first = path.iter().next().expect("it has a name");
                let module = first.to_string_lossy().trim_end_matches(".rs").to_owned();
                let code = strip(&text);
                files.push(File { module, path, code });
            }
        }
    }
    assert!(files.len() > 50, "src/ was read");
    files
}

/// The text of a program without comments, and without what stands in quotes.
fn strip(text: &str) -> String {
    let mut code = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if let Some(raw) = rest.strip_prefix("r#\"") {
            raw.find("\"#").map_or(rest.len(), |end| end + 5)
        } else if first == '"' {
            quoted(rest, '"')
        } else if first == '\'' && is_character(rest) {
            quoted(rest, '\'')
        } else {
            code.push(first);
            first.len_utf8()
        };
        rest = &rest[skipped..];
    }
    code
}

/// Whether a quote begins a character and not a lifetime.
fn is_character(rest: &str) -> bool {
    let mut characters = rest.chars().skip(1);
    characters.next() == Some('\\') || characters.next() == Some('\'')
}

/// How many bytes stand in quotes, quotes included.
fn quoted(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (index, character) in rest.char_indices().skip(1) {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if character == quote => return index + 1,
            _ => {}
        }
    }
    rest.len()
}

/// The modules at the top that `code` names, by `crate::module` or `crate::{one, other}`.
fn uses(code: &str) -> Vec<String> {
    let mut modules = Vec::new();
    for (index, _) in code.match_indices("crate::") {
        let rest = &code[index + "crate::".len()..];
        match rest.strip_prefix('{') {
            None => modules.extend(name(rest)),
            Some(group) => {
                let mut depth = 0;
                let mut fresh = true;
                for (index, character) in group.char_indices() {
                    match character {
                        '}' if depth == 0 => break,
                        '{' => depth += 1,
                        '}' => depth -= 1,
                        ',' if depth == 0 => fresh = true,
                        _ if fresh && !character.is_whitespace() => {
                            modules.extend(name(&group[index..]));
                            fresh = false;
                        }
                        _ => {}
                    }
                }
            }
        }
    }
    modules
}

/// The name at the front, if it is a module's; types and macros begin with a capital or are re-exports.
fn name(rest: &str) -> Option<String> {
    let end = rest
        .find(|character: char| !character.is_alphanumeric() && character != '_')
        .unwrap_or(rest.len());
    let name = &rest[..end];
    name.starts_with(|first: char| first.is_ascii_lowercase())
        .then(|| name.to_owned())
}

fn layer(module: &str) -> Option<usize> {
    LAYERS
        .iter()
        .position(|(_, modules)| modules.contains(&module))
}

/// What is wrong with the arrows from this file.
fn faults(file: &File) -> Vec<String> {
    let File { module, path, code } = file;
    let mut faults = Vec::new();
    let Some(own) = layer(module) else {
        if !ABOVE_ALL.contains(&module.as_str()) {
            faults.push(format!("{}: in which layer is it?", path.display()));
        }
        return faults;
    };
    for used in uses(code) {
        if used == "testkit" {
            faults.push(format!("{}: uses the test kit", path.display()));
            continue;
        }
        match layer(&used) {
            Some(other) if other > own => faults.push(format!(
                "{} ({}) uses {used} ({}), which is above it",
                path.display(),
                LAYERS[own].0,
                LAYERS[other].0,
            )),
            Some(_) => {}
            None => faults.push(format!(
                "{}: uses {used}, which is no module",
                path.display()
            )),
        }
    }
    faults
}

#[test]
fn no_arrow_points_up_and_nothing_uses_the_test_kit() {
    let faults: Vec<String> = files().iter().flat_map(faults).collect();
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn an_arrow_that_points_up_would_be_found() {
    let file = |module: &str, code: &str| File {
        module: module.to_owned(),
        path: PathBuf::from(module),
        code: strip(code),
    };
    for (module, code) in [
        ("codec", "use crate::protocol::Token;"),
        (
            "error",
            "use crate::{topic::TopicError, codec::{Packet, Frame}};",
        ),
        ("shared", "fn f() { crate::client::Client::f() }"),
        ("driver", "use crate::testkit::World;"),
        ("something", ""),
        ("shared", "use crate::something::New;"),
    ] {
        assert_eq!(faults(&file(module, code)).len(), 1, "{module}: {code}");
    }
    for (module, code) in [
        (
            "protocol",
            "use crate::codec::{Packet, protocol};\nuse crate::topic;",
        ),
        (
            "codec",
            "// use crate::protocol::Token;\n/* crate::client */ let text = \"crate::client\";",
        ),
        (
            "codec",
            "let quote = '\"'; let lifetime: &'a str; // \" crate::client",
        ),
        ("lib", "mod testkit; pub use crate::testkit::World;"),
    ] {
        assert_eq!(
            faults(&file(module, code)),
            Vec::<String>::new(),
            "{module}: {code}"
        );
    }
}

#[test]
fn codec_and_protocol_neither_wait_nor_read_a_clock_nor_name_a_socket() {
    for file in files() {
        if !["codec", "protocol"].contains(&file.module.as_str()) {
            continue;
        }
        for word in WAITING.iter().chain(&SOCKETS) {
            assert!(!file.code.contains(word), "{}: {word}", file.path.display());
        }
        if file.module == "codec" {
            assert!(
                !file.code.contains("Instant"),
                "{}: a clock",
                file.path.display()
            );
        }
    }
}

#[test]
fn sockets_are_named_in_transport_alone() {
    for file in files() {
        // The test kit has a server on a real socket.
        if ["transport", "testkit"].contains(&file.module.as_str()) {
            continue;
        }
        // An address alone is a setting and opens nothing.
        let code = file.code.replace("std::net::IpAddr;", "");
        for word in SOCKETS {
            assert!(!code.contains(word), "{}: {word}", file.path.display());
        }
    }
}

#[test]
fn the_bottom_layer_uses_only_std_and_itself() {
    for file in files() {
        if layer(&file.module) != Some(0) {
            continue;
        }
        for word in CRATES {
            assert!(!file.code.contains(word), "{}: {word}", file.path.display());
        }
        for line in file
            .code
            .lines()
            .filter(|line| line.trim_start().starts_with("use "))
        {
            let from = line.trim_start().trim_start_matches("use ");
            let mut known = vec!["std::", "crate::", "super::", "self::"];
            // The file behind the trait of a store, and with a feature of its own.
            if file.path.starts_with("store") {
                known.push("redb::");
            }
            assert!(known.iter().any(|start| from.starts_with(start)), "{line}");
        }
    }
}

#[test]
fn the_clock_is_read_at_one_door() {
    for file in files() {
        if !["clock", "testkit"].contains(&file.module.as_str()) {
            assert!(
                !file.code.contains("Instant::now"),
                "{}",
                file.path.display()
            );
        }
    }
}
