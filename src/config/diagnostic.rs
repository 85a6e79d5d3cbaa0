//! What is wrong, doubtful or worth knowing in a configuration, each with its place: collected in one run, shown as text.

use std::{collections::HashSet, ops::Range};

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet, renderer::DecorStyle};

use crate::limits::DIAGNOSTICS;

/// Index of a text in [`Report::sources`].
pub type FileId = usize;

/// A stretch of a file, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Span {
    /// Which file.
    pub file: FileId,
    /// First byte.
    pub start: usize,
    /// One past the last.
    pub end: usize,
}

impl Span {
    /// From the start of this one to the end of `last`; this one when they are in different files.
    pub fn to(self, last: Span) -> Span {
        if last.file == self.file && last.end >= self.start { Span { end: last.end, ..self } } else { self }
    }
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Severity {
    /// Nothing starts with it.
    Error,
    /// It starts, and will surprise its author.
    Warning,
    /// What has no effect here.
    Note,
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// How bad.
    pub severity: Severity,
    /// One line, nginx's words where nginx has some.
    pub message: String,
    /// Where; none for what has no place in a file.
    pub span: Option<Span>,
    /// A word under the underlined text.
    pub label: Option<String>,
    /// Other places that matter.
    pub related: Vec<(Span, String)>,
    /// What to do.
    pub helps: Vec<String>,
}

impl Diagnostic {
    /// A finding without place.
    pub fn new(severity: Severity, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { severity, message, span: None, label: None, related: Vec::new(), helps: Vec::new() }
    }

    /// An error at a place.
    pub fn error(span: Span, message: impl Into<String>) -> Self {
        Self { span: Some(span), ..Self::new(Severity::Error, message) }
    }

    /// A warning at a place.
    pub fn warning(span: Span, message: impl Into<String>) -> Self {
        Self { span: Some(span), ..Self::new(Severity::Warning, message) }
    }

    /// A note at a place.
    pub fn note(span: Span, message: impl Into<String>) -> Self {
        Self { span: Some(span), ..Self::new(Severity::Note, message) }
    }

    /// With a word under the underlined text.
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    /// With another place that matters.
    pub fn related(mut self, span: Span, label: impl Into<String>) -> Self {
        self.related.push((span, label.into()));
        self
    }

    /// With advice.
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.helps.push(help.into());
        self
    }

    /// With advice, if there is any.
    pub fn maybe_help(self, help: Option<String>) -> Self {
        match help {
            Some(help) => self.help(help),
            None => self,
        }
    }
}

/// A text that was read, with its lines found.
#[derive(Debug)]
pub struct SourceText {
    /// The file's name as nginx would print it.
    pub name: String,
    /// Its text.
    pub text: String,
    line_starts: Vec<usize>,
}

impl SourceText {
    fn new(name: String, text: String) -> Self {
        let line_starts =
            std::iter::once(0).chain(memchr::memchr_iter(b'\n', text.as_bytes()).map(|at| at + 1)).collect();
        Self { name, text, line_starts }
    }

    /// Line of a byte, from 0.
    fn line_index(&self, at: usize) -> usize {
        self.line_starts.partition_point(|start| *start <= at).saturating_sub(1)
    }

    /// Line and column of a byte, both from 1; columns count characters.
    fn line_column(&self, at: usize) -> (usize, usize) {
        let line = self.line_index(at);
        let start = self.line_starts.get(line).copied().unwrap_or(0);
        let column = self.text.get(start..at).map_or(0, |text| text.chars().count());
        (line + 1, column + 1)
    }

    /// The bytes of the lines that hold `span`, without the last line's end.
    fn lines_of(&self, span: Span) -> Range<usize> {
        let start = self.line_starts.get(self.line_index(span.start)).copied().unwrap_or(0);
        let last = self.line_index(span.end.saturating_sub(1).max(span.start));
        let end = self.line_starts.get(last + 1).map_or(self.text.len(), |next| next - 1);
        start..end.max(start)
    }
}

/// Everything found in one run, and the texts it was found in.
#[derive(Debug, Default)]
pub struct Report {
    sources: Vec<SourceText>,
    diagnostics: Vec<Diagnostic>,
    seen: HashSet<(Severity, Option<Span>, String)>,
}

impl Report {
    /// Adds a text in which things may be found.
    pub fn add_source(&mut self, name: impl Into<String>, text: String) -> FileId {
        self.sources.push(SourceText::new(name.into(), text));
        self.sources.len() - 1
    }

    /// Size of all texts, bytes.
    pub fn bytes(&self) -> u64 {
        self.sources.iter().map(|source| source.text.len() as u64).sum()
    }

    /// A text added before.
    pub fn source(&self, file: FileId) -> &str {
        self.sources.get(file).map_or("", |source| &source.text)
    }

    /// Adds a finding. The same one at the same place is kept once: a value that many locations inherit is read for each of them.
    pub fn push(&mut self, diagnostic: Diagnostic) {
        if self.seen.insert((diagnostic.severity, diagnostic.span, diagnostic.message.clone())) {
            self.diagnostics.push(diagnostic);
        }
    }

    /// Every finding, in the order it was made.
    pub fn diagnostics(&self) -> &[Diagnostic] {
        &self.diagnostics
    }

    /// How many errors.
    pub fn errors(&self) -> usize {
        self.count(Severity::Error)
    }

    /// How many warnings.
    pub fn warnings(&self) -> usize {
        self.count(Severity::Warning)
    }

    /// How many notes.
    pub fn notes(&self) -> usize {
        self.count(Severity::Note)
    }

    fn count(&self, severity: Severity) -> usize {
        self.diagnostics.iter().filter(|diagnostic| diagnostic.severity == severity).count()
    }

    /// `file:line:column` of a span's start.
    pub fn place(&self, span: Span) -> String {
        self.sources.get(span.file).map_or_else(String::new, |source| {
            let (line, column) = source.line_column(span.start);
            format!("{}:{line}:{column}", source.name)
        })
    }

    /// `file:line` of a span's start.
    pub fn line_place(&self, span: Span) -> String {
        self.sources.get(span.file).map_or_else(String::new, |source| format!("{}:{}", source.name, self.line(span)))
    }

    /// Line of a span's start, from 1.
    pub fn line(&self, span: Span) -> usize {
        self.sources.get(span.file).map_or(0, |source| source.line_index(span.start) + 1)
    }

    /// The whole report as text: errors first, then warnings, then (if asked) notes, each in the order of the files.
    /// Past [`DIAGNOSTICS`] findings of one severity the rest are counted.
    pub fn render(&self, colour: bool, include_notes: bool) -> String {
        let renderer = if colour { Renderer::styled() } else { Renderer::plain() }.decor_style(DecorStyle::Ascii);
        let mut out = String::new();
        for severity in [Severity::Error, Severity::Warning, Severity::Note] {
            if severity == Severity::Note && !include_notes {
                continue;
            }
            let mut found: Vec<_> = self.diagnostics.iter().filter(|found| found.severity == severity).collect();
            found.sort_by_key(|found| found.span);
            for diagnostic in found.iter().take(DIAGNOSTICS) {
                out.push_str(&renderer.render(&self.groups(diagnostic)));
                out.push_str("\n\n");
            }
            if let Some(more) = found.len().checked_sub(DIAGNOSTICS).filter(|more| *more > 0) {
                out.push_str(&format!("... and {more} more of these\n\n"));
            }
        }
        out.truncate(out.trim_end().len());
        if !out.is_empty() {
            out.push('\n');
        }
        out
    }

    fn groups<'a>(&'a self, diagnostic: &'a Diagnostic) -> Vec<Group<'a>> {
        let level = match diagnostic.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
            Severity::Note => Level::NOTE,
        };
        let title = level.primary_title(printable(&diagnostic.message));
        let Some(primary) = diagnostic.span.and_then(|span| self.snippet(span, true, diagnostic.label.as_deref()))
        else {
            let helps = diagnostic.helps.iter().map(|help| Level::HELP.message(printable(help)));
            return vec![Group::with_title(title).elements(helps)];
        };
        let mut group = title.element(primary);
        for (span, label) in &diagnostic.related {
            if let Some(snippet) = self.snippet(*span, false, Some(label)) {
                group = group.element(snippet);
            }
        }
        vec![group.elements(diagnostic.helps.iter().map(|help| Level::HELP.message(printable(help))))]
    }

    fn snippet<'a>(
        &'a self,
        span: Span,
        primary: bool,
        label: Option<&'a str>,
    ) -> Option<Snippet<'a, annotate_snippets::Annotation<'a>>> {
        let source = self.sources.get(span.file)?;
        let lines = source.lines_of(span);
        let text = source.text.get(lines.clone())?;
        let start = span.start.saturating_sub(lines.start).min(text.len());
        let end = span.end.saturating_sub(lines.start).clamp(start, text.len());
        let kind = if primary { AnnotationKind::Primary } else { AnnotationKind::Context };
        let annotation = kind.span(start..end).label(label.map(printable));
        Some(
            Snippet::source(text)
                .line_start(source.line_index(span.start) + 1)
                .path(source.name.as_str())
                .annotation(annotation),
        )
    }
}

/// A file's text may hold escape sequences; a terminal must not obey them.
fn printable(text: &str) -> String {
    text.chars().map(|char| if char.is_control() && char != '\n' { '\u{fffd}' } else { char }).collect()
}

/// The known name nearest to `name`, when it is near enough to be what was meant.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let most = (name.chars().count() / 3).clamp(1, 4);
    known
        .into_iter()
        .filter(|known| known.len().abs_diff(name.len()) <= most)
        .map(|known| (strsim::damerau_levenshtein(name, known), known))
        .filter(|(distance, _)| (1..=most).contains(distance))
        .min()
        .map(|(_, known)| known)
}

/// "did you mean" advice.
pub fn did_you_mean<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    nearest(name, known).map(|known| format!("did you mean `{known}`?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> (Report, Span) {
        let mut report = Report::default();
        let file = report.add_source("/etc/x.conf", "server {\n    prøxy_raed_timeout 1s;\n}\n".into());
        (report, Span { file, start: 13, end: 32 })
    }

    #[test]
    fn a_place_is_file_line_and_column_in_characters() {
        let (report, span) = report();
        assert_eq!(report.place(span), "/etc/x.conf:2:5");
        assert_eq!(report.place(Span { start: 17, ..span }), "/etc/x.conf:2:8");
        assert_eq!(report.place(Span { start: 9_999, end: 9_999, ..span }), "/etc/x.conf:4:1");
    }

    #[test]
    fn an_excerpt_is_underlined_and_uncoloured_unless_asked() {
        let (mut report, span) = report();
        report.push(Diagnostic::error(span, "unknown directive").label("here").help("did you mean \u{1b}[31m x?"));
        let text = report.render(false, false);
        assert!(text.contains("--> /etc/x.conf:2:5"), "{text}");
        assert!(text.contains("    prøxy_raed_timeout 1s;"), "{text}");
        assert!(text.contains("^^^^^^^^^^^^^^^^^^ here"), "{text}");
        assert!(!text.contains('\u{1b}'), "{text}");
        assert!(report.render(true, false).contains('\u{1b}'));
    }

    #[test]
    fn the_same_finding_at_the_same_place_is_kept_once() {
        let (mut report, span) = report();
        report.push(Diagnostic::error(span, "x"));
        report.push(Diagnostic::error(span, "x"));
        report.push(Diagnostic::warning(span, "x"));
        assert_eq!((report.errors(), report.warnings(), report.notes()), (1, 1, 0));
    }

    #[test]
    fn findings_past_the_limit_are_counted() {
        let mut report = Report::default();
        for number in 0..DIAGNOSTICS + 7 {
            report.push(Diagnostic::new(Severity::Error, number.to_string()));
        }
        assert!(report.render(false, true).contains("... and 7 more of these"));
    }

    #[test]
    fn a_span_beyond_its_text_does_no_harm() {
        let mut report = Report::default();
        let file = report.add_source("x", String::new());
        report.push(Diagnostic::error(Span { file, start: 5, end: 3 }, "odd"));
        report.push(Diagnostic::error(Span { file: 9, start: 0, end: 0 }, "odder"));
        assert!(report.render(false, true).contains("odder"));
    }

    #[test]
    fn the_nearest_name_must_be_near() {
        let names = ["proxy_read_timeout", "proxy_send_timeout", "listen"];
        assert_eq!(nearest("proxy_raed_timeout", names), Some("proxy_read_timeout"));
        assert_eq!(nearest("lisen", names), Some("listen"));
        assert_eq!(nearest("gadget", names), None);
    }
}
