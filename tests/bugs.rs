//! Bugs that other MQTT clients and brokers had, and the tests that would have caught them here.
//!
//! `bugs.csv` has one row for each: `bug,case,test`. A case is an issue of a public tracker. A test is
//! `file::function`; where a bug has several sides, a space stands between their tests.

mod catalogue;

use std::collections::BTreeSet;

use catalogue::{Sources, table};

/// So that a row that is taken away is missed.
const BUGS: usize = 28;

#[test]
fn each_bug_of_others_has_a_test() {
    let mut sources = Sources::default();
    let mut bugs = BTreeSet::new();
    for line in table("tests/bugs.csv", "bug,case,test") {
        let [bug, case, tests] = &line[..] else {
            panic!("{line:?} has three fields");
        };
        assert!(case.contains('#'), "no case: {line:?}");
        assert!(bugs.insert(bug.clone()), "twice: {bug}");
        assert!(!tests.is_empty(), "no test: {line:?}");
        for test in tests.split(' ') {
            if let Err(why) = sources.find_test(test) {
                panic!("{bug}: {why}");
            }
        }
    }
    assert_eq!(bugs.len(), BUGS);
}
