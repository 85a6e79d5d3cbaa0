use std::{fs, path::Path};

use super::PROPERTIES;
use crate::{
    config::{LoadOptions, Source, load},
    tls::{Hello, peek_hello},
};

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

/// What the fuzzers begin with must reach what it is there for.
#[test]
fn inputs_are_what_their_names_say() {
    let input = |path: &str| {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
        fs::read(corpus.join(path)).expect(path)
    };
    let report = |path: &str| {
        let file = Source::Text { name: path.to_owned(), text: String::from_utf8(input(path)).expect("UTF-8") };
        load(&LoadOptions { file, prefix: "/nonexistent".into(), globals: None, conf_error_log: None }).report
    };
    for path in ["config/browsers_site", "config/whole_file"] {
        assert_eq!(report(path).errors(), 0, "{}", report(path).render(false, false));
    }
    for path in ["client_hello/name", "client_hello/fragments", "client_hello/dot"] {
        assert!(matches!(peek_hello(&input(path)), Hello::Name(Some(_))), "{path}");
    }
}
