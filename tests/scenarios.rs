//! Every file of `tests/scenarios` is a story that must come true. What the commands mean stands in `sim::script`.

mod sim;

use std::path::Path;

#[test]
fn every_scenario_comes_true() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let only = std::env::var("SYNCNET_SCENARIO").ok();
    let trace = std::env::var_os("SYNCNET_TRACE").is_some();
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .expect("the folder of the scenarios")
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|ending| ending == "txt"))
        .collect();
    files.sort();
    let mut failures = Vec::new();
    let mut ran = 0;
    for path in files {
        let name = path.strip_prefix(&folder).unwrap_or(&path).display().to_string();
        if only.as_ref().is_some_and(|only| !name.contains(only)) {
            continue;
        }
        let text = std::fs::read_to_string(&path).expect("a scenario");
        ran += 1;
        if let Err(failure) = sim::script::run(&format!("tests/scenarios/{name}"), &text, trace) {
            failures.push(failure);
        }
    }
    assert!(ran > 0, "there is no such scenario");
    assert!(
        failures.is_empty(),
        "{} of {ran} scenarios failed:\n\n{}",
        failures.len(),
        failures.join("\n")
    );
}

#[test]
fn a_scenario_that_is_not_so_fails_and_says_where() {
    let story = "servers 3\nstart\nexpect leader server3\nexpect leader server1 within 100ms\n";
    let failure = sim::script::run("a story", story, false).expect_err("server3 leads");
    assert!(failure.starts_with("a story:4: expect leader server1"), "{failure}");
    assert!(failure.contains("expected leader server1"), "{failure}");
    assert!(failure.contains("Some(server3)"), "{failure}");
}
