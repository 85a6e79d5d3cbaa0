//! The shape of the source: layers that point one way, `unsafe` in one place, limits in one file, commands that agree.

use std::{
    fs,
    path::{Path, PathBuf},
};

use regex::Regex;

/// A source file, without its tests.
struct Source {
    /// Relative to the package: `src/tunnel/half.rs`.
    path: String,
    /// As it stands, tests left out.
    text: String,
    /// As `text`, with every comment and the inside of every string blanked.
    code: String,
}

impl Source {
    /// The module of the crate's root it belongs to; None for `lib.rs` and `main.rs`.
    fn module(&self) -> Option<&str> {
        let first = self.path.strip_prefix("src/")?.split('/').next()?;
        let module = first.strip_suffix(".rs").unwrap_or(first);
        (module != "lib" && module != "main").then_some(module)
    }
}

fn package() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(package().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

fn files_below(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("a directory").flatten() {
        let path = entry.path();
        if path.is_dir() {
            files_below(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn sources() -> Vec<Source> {
    let mut files = Vec::new();
    files_below(&package().join("src"), &mut files);
    files.sort();
    files
        .iter()
        .map(|file| file.strip_prefix(package()).expect("below the package").display().to_string())
        .filter(|path| !path.ends_with("/tests.rs") && !path.contains("/tests/"))
        .map(|path| {
            let text = without_tests(&read(&path));
            let code = code_only(&text);
            Source { path, text, code }
        })
        .collect()
}

/// Leaves out what stands under `#[cfg(test)]`: rustfmt closes a block at the column where it began.
fn without_tests(text: &str) -> String {
    let mut kept = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.trim_start().starts_with("#[cfg(test)]") {
            let indent = &line[..line.len() - line.trim_start().len()];
            let end = format!("{indent}}}");
            let first = lines.by_ref().find(|line| !line.trim_start().starts_with("#[")).unwrap_or_default();
            if !first.trim_end().ends_with(';') && !first.trim_end().ends_with('}') {
                let _ = lines.by_ref().find(|line| *line == end);
            }
        } else {
            kept.push(line);
        }
    }
    kept.join("\n") + "\n"
}

/// Blanks comments and the insides of strings and characters, so that words in them are not taken for code.
fn code_only(text: &str) -> String {
    let tokens = Regex::new(
        r##"(?s)//[^\n]*|/\*.*?\*/|b?r#".*?"#|b?r"[^"]*"|b?"(?:[^"\\]|\\.)*"|b?'(?:[^'\\\n]|\\[^u\n]|\\x..|\\u\{[^}]*\})'"##,
    )
    .expect("a pattern");
    tokens
        .replace_all(text, |found: &regex::Captures<'_>| {
            found[0].chars().map(|c| if c == '\n' { '\n' } else { ' ' }).collect::<String>()
        })
        .into_owned()
}

/// The modules of the crate's root, in the order of lib.rs.
fn order() -> Vec<String> {
    let declared = Regex::new(r"(?m)^(?:pub(?:\([a-z]+\))? )?mod (\w+);").expect("a pattern");
    declared.captures_iter(&read("src/lib.rs")).map(|found| found[1].to_owned()).collect()
}

/// The first name behind every `crate::` of the code, groups opened.
fn used_modules(code: &str) -> Vec<String> {
    let mut used = Vec::new();
    for (start, prefix) in code.match_indices("crate::") {
        if code[..start].ends_with('$') {
            continue; // `$crate` of a macro names its own user's view of us
        }
        let rest = &code[start + prefix.len()..];
        match rest.strip_prefix('{') {
            Some(group) => used.extend(group_names(group)),
            None => used.push(leading_name(rest)),
        }
    }
    used
}

fn leading_name(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// The first names of a use group, up to its closing brace.
fn group_names(group: &str) -> Vec<String> {
    let (mut depth, mut names, mut at_start) = (0, Vec::new(), true);
    for (index, character) in group.char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => at_start = true,
            c if at_start && (c.is_alphanumeric() || c == '_') => {
                names.push(leading_name(&group[index..]));
                at_start = false;
            }
            _ => {}
        }
    }
    names
}

#[test]
fn the_reader_of_use_lines_reads_them() {
    let code = "use crate::{a::{b, c}, d,\n e::f};\nlet x = crate::g::h();\nuse crate::i;";
    assert_eq!(used_modules(code), ["a", "d", "e", "g", "i"]);
    assert_eq!(code_only("let a = \"crate::x\"; // crate::y\n'\"' b\"\\\"\" x").matches("crate").count(), 0);
    assert_eq!(without_tests("a\n#[cfg(test)]\nmod tests {\n    x\n}\nb\n#[cfg(test)]\nmod tests;\nc\n"), "a\nb\nc\n");
}

#[test]
fn modules_use_only_those_above_them() {
    let order = order();
    let rank = |name: &str| order.iter().position(|module| module == name);
    let mut wrong = Vec::new();
    for source in sources() {
        let Some(own) = source.module() else { continue };
        let own_rank = rank(own).unwrap_or_else(|| panic!("{} is in no module of lib.rs", source.path));
        for used in used_modules(&source.code) {
            if rank(&used).is_some_and(|rank| rank > own_rank) {
                wrong.push(format!("{} uses crate::{used}, which comes after {own} in lib.rs", source.path));
            }
        }
    }
    wrong.dedup();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn unsafe_and_libc_live_in_sys() {
    let word = Regex::new(r"\bunsafe\b|\blibc::|\ballow\(unsafe_code\)").expect("a pattern");
    let wrong: Vec<String> = sources()
        .iter()
        .filter(|source| source.module() != Some("sys"))
        .flat_map(|source| {
            source
                .code
                .lines()
                .enumerate()
                .filter(|(_, line)| word.is_match(line))
                .map(|(number, line)| format!("{}:{}: {}", source.path, number + 1, line.trim()))
                .collect::<Vec<_>>()
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(read("src/lib.rs").contains("#![deny(unsafe_code)]"));
}

#[test]
fn every_unsafe_block_says_why_it_is_safe() {
    let word = Regex::new(r"\bunsafe\b").expect("a pattern");
    let mut wrong = Vec::new();
    for source in sources().iter().filter(|source| source.module() == Some("sys")) {
        let lines: Vec<&str> = source.text.lines().collect();
        for (number, _) in
            source.code.lines().enumerate().filter(|(_, line)| word.is_match(line) && !line.contains("unsafe_code"))
        {
            let above = &lines[number.saturating_sub(6)..=number];
            if !above.iter().any(|line| line.contains("SAFETY:") || line.contains("# Safety")) {
                wrong.push(format!("{}:{}: no SAFETY comment", source.path, number + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn files_fit_in_a_head() {
    const LINES: usize = 600;
    let wrong: Vec<String> = sources()
        .iter()
        .map(|source| (&source.path, source.text.lines().count()))
        .filter(|(_, lines)| *lines > LINES)
        .map(|(path, lines)| format!("{path}: {lines} lines without its tests, more than {LINES}"))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Who asks what time of day it is: what people read, certificates, the ages of tickets. A clock that is set back or forth must not move a
/// deadline, so that everybody else asks `Instant`.
#[test]
fn no_deadline_goes_by_the_time_of_day() {
    const READERS: [&str; 8] = [
        "src/demo/certificate.rs",
        "src/forward/response.rs",
        "src/host/doctor/file.rs",
        "src/observe/board.rs",
        "src/observe/clock.rs",
        "src/request/variables.rs",
        "src/tls/backend.rs",
        "src/tls/resumption.rs",
    ];
    let clock = Regex::new(r"\b(SystemTime|UnixTime|CLOCK_REALTIME|Timestamp::now|Zoned::now)\b").expect("a pattern");
    let readers: Vec<String> =
        sources().iter().filter(|source| clock.is_match(&source.code)).map(|source| source.path.clone()).collect();
    assert_eq!(readers, READERS);
}

/// Who asks which zone the local time is of may open files for it, again and again: a worker may not.
#[test]
fn the_local_zone_is_read_in_one_place() {
    let zone = Regex::new(r"\b(Zoned::now|TimeZone::(system|try_system))\b").expect("a pattern");
    let readers: Vec<String> =
        sources().iter().filter(|source| zone.is_match(&source.code)).map(|source| source.path.clone()).collect();
    assert_eq!(readers, ["src/variables.rs"]);
}

#[test]
fn nothing_is_left_to_do() {
    let in_code = Regex::new(r"\b(todo|unimplemented|dbg)!").expect("a pattern");
    let anywhere = Regex::new(r"\b(TODO|FIXME|XXX|HACK)\b|\(to come\)").expect("a pattern");
    let mut wrong = Vec::new();
    for source in sources() {
        let lines = source.text.lines().zip(source.code.lines());
        for (number, (text, code)) in lines.enumerate() {
            if anywhere.is_match(text) || in_code.is_match(code) {
                wrong.push(format!("{}:{}: {}", source.path, number + 1, text.trim()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_limit_is_documented_and_used() {
    let sources = sources();
    let limits = sources.iter().find(|source| source.path == "src/limits.rs").expect("src/limits.rs");
    let constant = Regex::new(r"^pub const (\w+):").expect("a pattern");
    let lines: Vec<&str> = limits.text.lines().collect();
    let mut wrong = Vec::new();
    for (number, line) in lines.iter().enumerate() {
        let Some(found) = constant.captures(line) else { continue };
        let name = &found[1];
        if number == 0 || !lines[number - 1].starts_with("///") {
            wrong.push(format!("{name} has no documentation"));
        }
        let word = Regex::new(&format!(r"\b{name}\b")).expect("a pattern");
        let uses: usize = sources.iter().map(|source| word.find_iter(&source.code).count()).sum();
        if uses < 2 {
            wrong.push(format!("{name} limits nothing"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn names_are_the_fields() {
    let names = Regex::new(r"\b(?:struct|enum|trait|type|mod) \w*(?:Manager|Handler|Helper|Utils?|Context|manager|handler|helper|utils?|context)\b")
        .expect("a pattern");
    let wrong: Vec<String> = sources()
        .iter()
        .flat_map(|source| {
            names.find_iter(&source.code).map(|name| format!("{}: {}", source.path, name.as_str())).collect::<Vec<_>>()
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The lines of a text that begin with `cargo test`, comments and indentation left out.
fn test_commands(text: &str) -> Vec<String> {
    text.lines()
        .map(|line| line.split('#').next().unwrap_or_default().trim().trim_start_matches("$ "))
        .filter(|line| line.starts_with("cargo test"))
        .map(str::to_owned)
        .collect()
}

#[test]
fn ci_runs_the_command_of_the_readme() {
    let readme = read("README.md");
    // What stands between fences is what people copy.
    let fenced: String = readme.split("```").skip(1).step_by(2).collect();
    let promised = test_commands(&fenced);
    assert!(!promised.is_empty(), "README.md names no test command");
    let run = test_commands(&read(".ci/run"));
    for command in promised {
        assert!(run.contains(&command), ".ci/run does not run {command:?}, only {run:?}");
    }
}
