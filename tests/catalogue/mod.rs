//! Tables that name tests, and whether those tests are there and run.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

pub(crate) fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn text(path: &str) -> String {
    match fs::read_to_string(repository().join(path)) {
        Ok(text) => text,
        Err(error) => panic!("{path}: {error}"),
    }
}

/// The fields of a line of a CSV file. A field with a comma stands in quotation marks, doubled inside.
pub(crate) fn fields(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    let mut characters = line.chars().peekable();
    while let Some(character) = characters.next() {
        let field = fields.last_mut().expect("there is one from the beginning");
        match character {
            '"' if quoted && characters.peek() == Some(&'"') => {
                characters.next();
                field.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            other => field.push(other),
        }
    }
    assert!(!quoted, "a quotation mark is missing: {line}");
    fields
}

/// The lines below the head of a CSV file.
pub(crate) fn table(path: &str, head: &str) -> Vec<Vec<String>> {
    let text = text(path);
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some(head), "{path}");
    let count = head.split(',').count();
    lines
        .map(|line| {
            let fields = fields(line);
            assert_eq!(fields.len(), count, "{path}: {line}");
            fields
        })
        .collect()
}

/// Source files that were read.
#[derive(Debug, Default)]
pub(crate) struct Sources(BTreeMap<String, String>);

impl Sources {
    /// Finds a test, named `file::function`. Else says why there is none that runs.
    pub(crate) fn find_test(&mut self, test: &str) -> Result<(), String> {
        let (file, function) = test
            .split_once("::")
            .ok_or_else(|| format!("{test} is not file::function"))?;
        if !repository().join(file).is_file() {
            return Err(format!("there is no file {file}"));
        }
        if !is_built(file) {
            return Err(format!("{file} is in no test program"));
        }
        let source = self.0.entry(file.into()).or_insert_with(|| text(file));
        if !tests_of(source).contains(function) {
            return Err(format!("{file} has no test {function} that runs"));
        }
        Ok(())
    }
}

/// The functions of a file that run as tests: with `#[test]` and without `#[ignore]` above them.
pub(crate) fn tests_of(source: &str) -> BTreeSet<&str> {
    let mut tests = BTreeSet::new();
    let mut above: Vec<&str> = Vec::new();
    for line in source.lines().map(str::trim) {
        if line.starts_with("#[") || line.starts_with("//") {
            above.push(line);
            continue;
        }
        let is_test = above.iter().any(|line| line.starts_with("#[test]"));
        let is_ignored = above
            .iter()
            .any(|line| line.starts_with("#[") && line.contains("ignore"));
        let name = line
            .strip_prefix("fn ")
            .and_then(|rest| rest.split_once('('))
            .map(|(name, _)| name);
        if let Some(name) = name
            && is_test
            && !is_ignored
        {
            tests.insert(name);
        }
        above.clear();
    }
    tests
}

/// Whether cargo builds this file: it is the root of a test program or a module that the root names; in `src/`
/// it has a module of tests.
fn is_built(file: &str) -> bool {
    if file.starts_with("src/") {
        return text(file).contains("#[cfg(test)]");
    }
    let path = Path::new(file);
    let folder = path.parent().and_then(Path::to_str);
    let stem = path.file_stem().and_then(|stem| stem.to_str());
    match (folder, stem) {
        (Some("tests"), Some(_)) | (Some(_), Some("main")) => true,
        (Some(folder), Some(stem)) => {
            let module = format!("mod {stem};");
            text(&format!("{folder}/main.rs"))
                .lines()
                .any(|line| line.trim() == module)
        }
        (_, _) => false,
    }
}
