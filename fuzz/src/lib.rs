//! The steps of `tests/fuzz`, for the fuzz targets.

#[path = "../../tests/fuzz/steps/mod.rs"]
mod steps;

/// Runs one input of a target. It panics if something is wrong.
pub fn run(target: &str, input: &[u8]) {
    for (name, step) in steps::TARGETS {
        if name == target {
            return step(input);
        }
    }
    panic!("no target is called {target}");
}
