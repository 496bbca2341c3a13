//! Bugs that other MQTT clients and brokers had, and the tests that would have caught them here.
//!
//! `bugs.csv` has one row for each: `bug,case,test`. A case is an issue of a public tracker. A test is
//! `file::function`; where a bug has several sides, a space stands between their tests.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// So that a row that is taken away is missed.
const BUGS: usize = 28;

fn text(path: &str) -> String {
    match fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)) {
        Ok(text) => text,
        Err(error) => panic!("{path}: {error}"),
    }
}

/// Whether this file has a test of this name, which is run.
fn has_test(file: &str, function: &str) -> bool {
    let text = text(file);
    let head = format!("fn {function}()");
    let mut before = Vec::new();
    for line in text.lines().map(str::trim) {
        if line.starts_with(&head) {
            return before.contains(&"#[test]")
                && !before.iter().any(|line| line.starts_with("#[ignore"));
        }
        if line.starts_with("#[") || line.starts_with("//") {
            before.push(line);
        } else {
            before.clear();
        }
    }
    false
}

#[test]
fn each_bug_of_others_has_a_test() {
    let table = text("tests/bugs.csv");
    let mut lines = table.lines();
    assert_eq!(lines.next(), Some("bug,case,test"));
    let mut bugs = BTreeSet::new();
    for line in lines {
        let fields: Vec<_> = line.split(',').collect();
        let [bug, case, tests] = fields[..] else {
            panic!("not three fields: {line}");
        };
        assert!(case.contains('#'), "no case: {line}");
        assert!(bugs.insert(bug), "twice: {bug}");
        assert!(!tests.is_empty(), "no test: {line}");
        for test in tests.split(' ') {
            let (file, function) = test.split_once("::").expect("file::function");
            assert!(has_test(file, function), "there is no {test}, for: {bug}");
        }
    }
    assert_eq!(bugs.len(), BUGS);
}
