//! From files to [`Config`]: the only place of the configuration that reads them (certificates apart).

use std::{
    io::{self, Read},
    path::{Path, PathBuf},
};

use super::{
    Config, ErrorLog, Level, LogTarget,
    build::{self, Paths},
    check,
    diagnostic::{Diagnostic, FileId, Report, Severity},
    directives::{self, Contexts},
    lint,
    names::Names,
    tree::{self, Directive},
};
use crate::limits::{BLOCK_DEPTH, CONFIG_FILE_BYTES, CONFIG_FILES, INCLUDE_DEPTH};

/// Where the configuration is.
#[derive(Debug, Clone)]
pub enum Source {
    /// A file (`-c`), as the process sees it: a relative path is relative to its working directory.
    File(PathBuf),
    /// A text of our own, and the name it has in diagnostics.
    Text {
        /// In diagnostics.
        name: String,
        /// The configuration.
        text: String,
    },
}

/// What to read, and how.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// The configuration.
    pub file: Source,
    /// `-p`: what log and pid files are relative to. Includes and certificates are relative to the directory of the file.
    pub prefix: PathBuf,
    /// `-g`: directives of the main context.
    pub globals: Option<String>,
    /// `-e`: the error log where the file sets none in its main context.
    pub conf_error_log: Option<PathBuf>,
}

/// What came of it.
#[derive(Debug)]
pub struct Loaded {
    /// None when there is an error.
    pub config: Option<Config>,
    /// Everything found.
    pub report: Report,
    /// Each file once, in reading order, for `-T`.
    pub files: Vec<(PathBuf, String)>,
}

/// Reads a configuration, whole.
pub fn load(options: &LoadOptions) -> Loaded {
    let mut reader =
        Reader { conf_dir: conf_dir(options), report: Report::default(), files: Vec::new(), opened: 0, blocks: 0 };
    let mut top = reader.text_tree("command line", options.globals.as_deref());
    top.extend(match &options.file {
        Source::File(path) => reader.file_tree(path),
        Source::Text { name, text } => reader.text_tree(name, Some(text)),
    });
    let Reader { conf_dir, mut report, files, .. } = reader;

    let names = Names::collect(&top, &mut report);
    let fragment = is_fragment(&top);
    let context = if fragment { Contexts::MAIN.and(Contexts::HTTP) } else { Contexts::MAIN };
    let mut main = check::check(top, context, &mut report);
    let http = if fragment { take_http(&mut main) } else { take_block(&mut main, "http") };

    let paths = Paths { prefix: options.prefix.clone(), conf_dir };
    let default_log = default_error_log(options, &paths);
    let config = build::config(&main, &http, names, paths, default_log, &mut report);
    lint::file(&http, &mut report);
    let config = config.filter(|_| report.errors() == 0);
    Loaded { config, report, files }
}

fn conf_dir(options: &LoadOptions) -> PathBuf {
    match &options.file {
        Source::File(path) => match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        },
        Source::Text { .. } => options.prefix.clone(),
    }
}

fn default_error_log(options: &LoadOptions, paths: &Paths) -> ErrorLog {
    let target = match &options.conf_error_log {
        None => LogTarget::Stderr,
        Some(path) => build::log_target(&path.to_string_lossy(), paths),
    };
    ErrorLog { target, level: Level::Error }
}

/// Without an `http` block, a file with directives at its top that only stand in one is the inside of one.
fn is_fragment(top: &[Directive]) -> bool {
    let outside = Contexts::MAIN.and(Contexts::EVENTS);
    let inner = |directive: &Directive| {
        let meanings = directives::named(&directive.name.text);
        !meanings.is_empty() && !meanings.iter().any(|meaning| meaning.contexts.meets(outside))
    };
    !top.iter().any(|directive| directive.is("http")) && top.iter().any(inner)
}

/// Takes the directives of the http context out of the top level of a fragment.
fn take_http(top: &mut Vec<Directive>) -> Vec<Directive> {
    let is_main = |directive: &Directive| {
        directives::named(&directive.name.text).iter().any(|meaning| meaning.contexts.meets(Contexts::MAIN))
    };
    let (main, http) = std::mem::take(top).into_iter().partition(is_main);
    *top = main;
    http
}

fn take_block(main: &mut [Directive], name: &str) -> Vec<Directive> {
    main.iter_mut()
        .find(|directive| directive.is(name))
        .and_then(|directive| directive.block.take())
        .unwrap_or_default()
}

struct Reader {
    conf_dir: PathBuf,
    report: Report,
    files: Vec<(PathBuf, String)>,
    opened: usize,
    /// Blocks around what is read now, those of including files counted.
    blocks: usize,
}

impl Reader {
    fn text_tree(&mut self, name: &str, text: Option<&str>) -> Vec<Directive> {
        let Some(text) = text else { return Vec::new() };
        let file = self.report.add_source(name, text.to_owned());
        self.tree(file, text, false, 0)
    }

    fn file_tree(&mut self, path: &Path) -> Vec<Directive> {
        match read(path) {
            Ok((text, lossy)) => self.opened(path, text, lossy, 0),
            Err(why) => {
                self.report.push(Diagnostic::new(Severity::Error, why));
                Vec::new()
            }
        }
    }

    fn opened(&mut self, path: &Path, text: String, lossy: bool, depth: usize) -> Vec<Directive> {
        self.opened += 1;
        if !self.files.iter().any(|(known, _)| known == path) {
            self.files.push((path.to_owned(), text.clone()));
        }
        let file = self.report.add_source(path.display().to_string(), text.clone());
        self.tree(file, &text, lossy, depth)
    }

    fn tree(&mut self, file: FileId, text: &str, lossy: bool, depth: usize) -> Vec<Directive> {
        let directives = tree::parse(file, text, lossy, &mut self.report);
        self.with_includes(directives, depth)
    }

    /// Puts what `include` names in its place, in every block.
    fn with_includes(&mut self, directives: Vec<Directive>, depth: usize) -> Vec<Directive> {
        let mut out = Vec::with_capacity(directives.len());
        for mut directive in directives {
            if directive.is("include") && directive.args.len() == 1 && directive.block.is_none() {
                out.extend(self.included(&directive, depth));
                continue;
            }
            if self.blocks >= BLOCK_DEPTH {
                let message = format!("blocks are nested deeper than {BLOCK_DEPTH}");
                self.report.push(Diagnostic::error(directive.span(), message));
                continue;
            }
            self.blocks += 1;
            directive.block = directive.block.map(|block| self.with_includes(block, depth));
            self.blocks -= 1;
            out.push(directive);
        }
        out
    }

    fn included(&mut self, directive: &Directive, depth: usize) -> Vec<Directive> {
        let span = directive.arg_span(0);
        // A fuzzer would find every path there is.
        if cfg!(fuzzing) {
            return Vec::new();
        }
        if depth >= INCLUDE_DEPTH {
            let message = format!("files include each other deeper than {INCLUDE_DEPTH}");
            self.report.push(Diagnostic::error(span, message).help("does a file include itself?"));
            return Vec::new();
        }
        let paths = match self.matching(directive.arg(0)) {
            Ok(paths) => paths,
            Err(why) => {
                self.report.push(Diagnostic::error(span, why));
                return Vec::new();
            }
        };
        let mut out = Vec::new();
        for path in paths {
            if self.opened >= CONFIG_FILES {
                self.report.push(Diagnostic::error(span, format!("more than {CONFIG_FILES} files are included")));
                return out;
            }
            match read(&path) {
                Ok((text, lossy)) => out.extend(self.opened(&path, text, lossy, depth + 1)),
                Err(why) => {
                    let help = format!("an include is relative to {}", self.conf_dir.display());
                    self.report.push(Diagnostic::error(span, why).help(help));
                }
            }
        }
        out
    }

    /// The files of an include, sorted as glob(3) sorts; a name without pattern is one file, there or not.
    fn matching(&self, pattern: &str) -> Result<Vec<PathBuf>, String> {
        let full = self.conf_dir.join(pattern);
        if !pattern.contains(['*', '?', '[']) {
            return Ok(vec![full]);
        }
        let options = glob::MatchOptions {
            case_sensitive: true,
            require_literal_separator: true,
            require_literal_leading_dot: true,
        };
        // What is relative to a directory named like a pattern is still only a pattern behind it.
        let absolute = if Path::new(pattern).is_absolute() {
            pattern.to_owned()
        } else {
            let directory = glob::Pattern::escape(&self.conf_dir.to_string_lossy());
            Path::new(&directory).join(pattern).to_string_lossy().into_owned()
        };
        let found =
            glob::glob_with(&absolute, options).map_err(|why| format!("invalid pattern \"{pattern}\": {why}"))?;
        found.collect::<Result<_, _>>().map_err(|why| format!("glob() \"{pattern}\" failed: {why}"))
    }
}

/// A file's text, and whether bytes that are not UTF-8 were replaced in it.
fn read(path: &Path) -> Result<(String, bool), String> {
    let failed = |call: &str, why: &io::Error| format!("{call}() \"{}\" failed ({})", path.display(), reason(why));
    let file = std::fs::File::open(path).map_err(|why| failed("open", &why))?;
    let mut bytes = Vec::new();
    file.take(CONFIG_FILE_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(|why| failed("read", &why))?;
    if bytes.len() > CONFIG_FILE_BYTES {
        return Err(format!("\"{}\" is larger than {CONFIG_FILE_BYTES} bytes", path.display()));
    }
    Ok(match String::from_utf8(bytes) {
        Ok(text) => (text, false),
        Err(error) => (String::from_utf8_lossy(error.as_bytes()).into_owned(), true),
    })
}

/// An error as nginx writes it: `2: No such file or directory`.
fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    match error.raw_os_error() {
        Some(number) => format!("{number}: {}", text.trim_end_matches(&format!(" (os error {number})"))),
        None => text,
    }
}
