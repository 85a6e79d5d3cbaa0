use std::{fs, path::Path};

use super::PROPERTIES;

/// The inputs the fuzzers begin with, and those that once broke a property.
#[test]
fn every_input_of_the_corpus_keeps_its_property() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    for (name, property) in PROPERTIES {
        let inputs = fs::read_dir(corpus.join(name)).unwrap_or_else(|error| panic!("fuzz/corpus/{name}: {error}"));
        let inputs: Vec<_> = inputs.map(|input| input.expect("an entry").path()).collect();
        assert!(!inputs.is_empty(), "fuzz/corpus/{name} is empty");
        for input in inputs {
            println!("{}", input.display());
            property(&fs::read(&input).expect("readable"));
        }
    }
}

#[test]
fn every_property_has_a_target_and_every_target_a_property() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let manifest = fs::read_to_string(package.join("Cargo.toml")).expect("readable");
    let targets: Vec<&str> = manifest.lines().filter_map(|line| line.strip_prefix("path = \"fuzz_targets/")).collect();
    let names: Vec<String> = PROPERTIES.iter().map(|(name, _)| format!("{name}.rs\"")).collect();
    assert_eq!(targets, names);
}
