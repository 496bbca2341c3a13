//! The conformance table: each statement of the standard that binds a client has a test that proves it, or a
//! note that says why it cannot be broken.
//!
//! `conformance/statements.csv` lists the statements of MQTT 3.1.1 and 5.0 that bind a client, alone or with
//! the server, and those duties of a server that a client has to obey or to detect. MQTT 3.1 numbers
//! nothing, so its rows have names of our own, and their notes say where the sentence stands.
//!
//! `conformance.csv` has one row for each: `version,id,test,note`. A test is `file::function`; where two are
//! needed, for the two directions or for what is sent and what is answered, a space stands between them.

mod catalogue;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use catalogue::{Sources, fields, repository, table, tests_of};

/// What a client has to do with a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Binds {
    /// It binds a client, or both sides.
    Client,
    /// It binds the server, and a client obeys or detects it.
    Server,
}

/// How many statements there are. The numbers of 3.1.1 and 5.0 are all that bind a client, 206 together.
const COUNTS: [(&str, Binds, usize); 4] = [
    ("3.1", Binds::Client, 16),
    ("3.1.1", Binds::Client, 72),
    ("5.0", Binds::Client, 134),
    ("5.0", Binds::Server, 11),
];

/// A statement: its version and its number.
type Statement = (String, String);

fn statements() -> BTreeMap<Statement, Binds> {
    let mut statements = BTreeMap::new();
    for line in table("tests/conformance/statements.csv", "version,id,binds") {
        let binds = match line[2].as_str() {
            "client" | "both" => Binds::Client,
            "server" => Binds::Server,
            other => panic!("{line:?}: {other} is no side"),
        };
        let statement = (line[0].clone(), line[1].clone());
        let before = statements.insert(statement, binds);
        assert_eq!(before, None, "{line:?} stands twice");
    }
    statements
}

/// Whether `name` is defined in the library: a type, a function, a constant or a variant.
fn is_defined(name: &str, library: &str) -> bool {
    let last = name.rsplit("::").next().unwrap_or(name);
    ["struct", "enum", "trait", "type", "fn", "const"]
        .iter()
        .any(|kind| {
            let wanted = format!("{kind} {last}");
            library.match_indices(&wanted).any(|(place, _)| {
                let rest = &library[place + wanted.len()..];
                !rest.starts_with(|next: char| next.is_alphanumeric() || next == '_')
            })
        })
}

fn read_all(folder: &Path, all: &mut String) {
    for entry in fs::read_dir(folder).expect("src/ is there") {
        let path = entry.expect("src/ can be read").path();
        if path.is_dir() {
            read_all(&path, all);
        } else {
            all.push_str(&fs::read_to_string(&path).expect("sources are text"));
        }
    }
}

#[test]
fn every_statement_has_a_test_or_a_reason() {
    let statements = statements();
    for (version, binds, expected) in COUNTS {
        let of_these = |(of, bound): &(&Statement, &Binds)| of.0 == version && **bound == binds;
        let count = statements.iter().filter(of_these).count();
        assert_eq!(count, expected, "{version}, {binds:?}");
    }
    let all: usize = COUNTS.iter().map(|(_, _, count)| count).sum();
    assert_eq!(statements.len(), all);

    let mut library = String::new();
    read_all(&repository().join("src"), &mut library);
    let mut sources = Sources::default();
    let mut missing: BTreeSet<_> = statements.keys().collect();
    let mut faults = Vec::new();
    let mut counts: BTreeMap<&str, [usize; 2]> = BTreeMap::new();
    let rows = table("tests/conformance.csv", "version,id,test,note");
    for row in &rows {
        let [version, id, tests, note] = &row[..] else {
            panic!("{row:?} has four fields");
        };
        let mut fault = |text: String| faults.push(format!("{version} {id}: {text}"));
        let statement = (version.clone(), id.clone());
        if !missing.remove(&statement) {
            fault("there is no such statement, or it has a row already".into());
        }
        for test in tests.split_whitespace() {
            if let Err(why) = sources.find_test(test) {
                fault(why);
            }
        }
        let counts = counts.entry(version).or_default();
        if !tests.is_empty() {
            counts[0] += 1;
        } else {
            counts[1] += 1;
            // Every second part stands between backquotes.
            let mut named = note.split('`').skip(1).step_by(2);
            if !named.any(|name| is_defined(name, &library)) {
                fault("without a test the note names what makes it impossible".into());
            }
        }
        if version == "3.1" && !note.starts_with("MQTT 3.1, section") {
            fault("the note says where 3.1 has it".into());
        }
    }
    faults.extend(
        missing
            .iter()
            .map(|statement| format!("no row: {statement:?}")),
    );
    assert!(faults.is_empty(), "{faults:#?}");
    // Shown with --nocapture.
    for (version, [tested, explained]) in counts {
        println!("MQTT {version}: {tested} tested, {explained} explained");
    }
}

#[test]
fn what_does_not_run_is_no_test() {
    // Put together here, so that this file does not look as if it had such tests.
    let source = "
        #[test]
        fn runs() {}
        // a comment between
        #[cfg(unix)]
        #[test]
        // and here
        fn runs_too() {}
        #[test]
        #[REST = \"slow\"]
        fn rests() {}
        #[REST]
        #[test]
        fn rests_too() {}
        fn helps() {}
        // #[test]
        fn is_commented_out() {}
        #[test]
        fn takes_some(of in any_version()) {}
    "
    .replace("REST", "ignore");
    let found: Vec<_> = tests_of(&source).into_iter().collect();
    assert_eq!(found, ["runs", "runs_too", "takes_some"]);
}

#[test]
fn a_name_is_defined_whole() {
    let library = "pub struct PacketId(u16); pub(crate) const fn first(self) {} enum Quality {}";
    for (name, expected) in [
        ("PacketId", true),
        ("AckKind::first", true),
        ("Packet", false),
        ("irst", false),
        ("Quality", true),
    ] {
        assert_eq!(is_defined(name, library), expected, "{name}");
    }
}

#[test]
fn fields_may_be_quoted() {
    assert_eq!(fields("a,,c"), ["a", "", "c"]);
    assert_eq!(fields(r#"a,"b, ""c""",d"#), ["a", r#"b, "c""#, "d"]);
}
