//! An examination as text for people and as JSON for programs.

use std::fmt::Write;

use serde_json::{Value, json};

use super::Examination;
use crate::host::finding::{Finding, Mark, bytes, grouped};

/// Columns of a terminal that does not say how wide it is, and of a file.
pub const WIDTH: usize = 100;
/// Narrower than this nothing is laid out.
const LEAST_WIDTH: usize = 60;
/// What is said of a finding stands under its name.
const INDENT: usize = 6;
const GAP: usize = 2;

impl Examination {
    /// As text of at most so many columns (commands are never broken). The worst comes last, where the prompt is.
    pub fn text(&self, width: usize, colour: bool) -> String {
        let width = width.max(LEAST_WIDTH);
        let mut text = self.head(width);
        let mut findings: Vec<_> = self.findings.iter().filter(|(_, finding)| finding.mark != Mark::Unseen).collect();
        findings.sort_by_key(|(_, finding)| finding.mark);
        let columns = columns(&findings, width);
        for (name, finding) in findings {
            row(&mut text, [name, &finding.found, &finding.wanted], columns, &painted(finding.mark, colour));
            details(&mut text, finding, width);
        }
        let unseen: Vec<&str> = self.unseen().collect();
        if !unseen.is_empty() {
            paragraph(&mut text, &format!("\nNot visible here: {}.", unseen.join(", ")), 0, width);
        }
        paragraph(&mut text, &format!("\n{}", self.summary()), 0, width);
        text
    }

    /// As JSON. Members may be added in later versions.
    pub fn json(&self) -> Value {
        let needs = &self.needs;
        let findings: Vec<Value> = self
            .findings
            .iter()
            .map(|(name, finding)| {
                json!({
                    "name": name, "mark": word(finding.mark), "found": finding.found, "wanted": finding.wanted,
                    "says": finding.says, "now": finding.now, "keep": finding.keep,
                })
            })
            .collect();
        json!({
            "version": env!("CARGO_PKG_VERSION"), "kernel": self.kernel, "file": self.file, "pid": self.pid,
            "mark": word(self.mark()),
            "needs": {
                "tunnels": needs.tunnels, "number_from": self.number_from, "workers": needs.workers, "tls": needs.tls,
                "descriptors": needs.descriptors(), "watches": needs.watches(), "ports_each_backend": needs.ports(),
                "user_bytes": needs.user_bytes(), "kernel_bytes": needs.kernel_bytes(), "bytes": needs.bytes(),
                "tcp_pages": needs.buffer_pages(), "tracked": needs.tracked(), "backlog": needs.backlog(),
                "threads": needs.threads(),
            },
            "findings": findings,
        })
    }

    fn head(&self, width: usize) -> String {
        let needs = &self.needs;
        let file = self.file.as_deref().map_or("no file".to_owned(), |file| format!("file {file}"));
        let process = self.pid.map_or(String::new(), |pid| format!(", process {pid}"));
        let kernel = self.kernel.as_deref().unwrap_or("of unknown release");
        let ports = needs.ports().map_or(String::new(), |ports| format!("{} local ports, ", grouped(ports)));
        let mut text = String::new();
        let tunnels =
            format!("{} tunnels ({}) on Linux {kernel}, {file}{process}", grouped(needs.tunnels), self.number_from);
        paragraph(&mut text, &tunnels, 0, width);
        let take = format!(
            "They take {} descriptors, {ports}{} of the program, {} of the kernel at rest, {} in all when one socket of ten is busy.",
            grouped(needs.descriptors()),
            bytes(needs.user_bytes()),
            bytes(needs.kernel_bytes()),
            bytes(needs.bytes()),
        );
        paragraph(&mut text, &take, 0, width);
        text.push('\n');
        text
    }

    fn unseen(&self) -> impl Iterator<Item = &str> {
        let unseen = self.findings.iter().filter(|(_, finding)| finding.mark == Mark::Unseen);
        unseen.map(|(name, _)| name.as_str())
    }

    fn summary(&self) -> String {
        let count = |mark| self.findings.iter().filter(|(_, finding)| finding.mark == mark).count();
        let (fine, warn, bad) = (count(Mark::Ok), count(Mark::Warn), count(Mark::Bad));
        let tunnels = grouped(self.needs.tunnels);
        match (warn, bad) {
            (0, 0) => format!("Nothing will bite at {tunnels} tunnels: {fine} settings are fine."),
            (_, 0) => format!("Nothing will bite at {tunnels} tunnels; worth a look: {warn}. Fine: {fine}."),
            _ => format!("At {tunnels} tunnels will bite: {bad}; worth a look: {warn}. Fine: {fine}."),
        }
    }
}

/// The mark as programs read it.
fn word(mark: Mark) -> String {
    if mark == Mark::Unseen { "unseen".to_owned() } else { mark.to_string() }
}

fn painted(mark: Mark, colour: bool) -> String {
    let code = match mark {
        Mark::Ok => "32",
        Mark::Unseen => "2",
        Mark::Warn => "33",
        Mark::Bad => "1;31",
    };
    if colour { format!("\x1b[{code}m{mark:<4}\x1b[0m") } else { format!("{mark:<4}") }
}

/// Widths of name, found and wanted: as wide as they are, or what there is, shared.
fn columns(findings: &[&(String, Finding)], width: usize) -> [usize; 3] {
    let room = width.saturating_sub(INDENT + 2 * GAP);
    let widest = |of: fn(&(String, Finding)) -> usize| findings.iter().map(|finding| of(finding)).max().unwrap_or(0);
    let name = widest(|(name, _)| length(name)).min(room * 2 / 5);
    let found = widest(|(_, finding)| length(&finding.found)).min((room - name) / 2);
    [name, found, room - name - found]
}

fn row(text: &mut String, cells: [&str; 3], columns: [usize; 3], mark: &str) {
    let cells: [Vec<String>; 3] = [0, 1, 2].map(|index| wrapped(cells[index], columns[index]));
    let height = cells.iter().map(Vec::len).max().unwrap_or(0);
    for line in 0..height {
        let mut row = if line == 0 { format!("{mark}  ") } else { " ".repeat(INDENT) };
        for (cell, column) in cells.iter().zip(columns) {
            let words = cell.get(line).map_or("", String::as_str);
            let _ = write!(row, "{words}{}", " ".repeat(column.saturating_sub(length(words)) + GAP));
        }
        text.push_str(row.trim_end());
        text.push('\n');
    }
}

fn details(text: &mut String, finding: &Finding, width: usize) {
    if finding.mark < Mark::Warn {
        return;
    }
    paragraph(text, &finding.says, INDENT, width);
    for (label, line) in [("now: ", &finding.now), ("keep:", &finding.keep)] {
        if !line.is_empty() {
            let _ = writeln!(text, "{}{label} {line}", " ".repeat(INDENT));
        }
    }
}

fn paragraph(text: &mut String, words: &str, indent: usize, width: usize) {
    let (before, words) = words.strip_prefix('\n').map_or(("", words), |words| ("\n", words));
    text.push_str(before);
    for line in wrapped(words, width - indent).iter().filter(|line| !line.is_empty()) {
        let _ = writeln!(text, "{}{line}", " ".repeat(indent));
    }
}

/// Lines of at most `width` characters, broken at spaces, and within words only where one is too long.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let mut word = word;
        let line = lines.last().map_or(0, |line| length(line));
        if line > 0 && line + 1 + length(word) > width {
            lines.push(String::new());
        } else if line > 0 {
            lines.last_mut().into_iter().for_each(|line| line.push(' '));
        }
        while length(word) > width {
            let end = word.char_indices().nth(width).map_or(word.len(), |(end, _)| end);
            // A path or a key is broken behind one of its joints where it has one.
            let end = word[..end].rfind(['.', '/', '_', ',']).filter(|joint| *joint > 0).map_or(end, |joint| joint + 1);
            lines.last_mut().into_iter().for_each(|line| line.push_str(&word[..end]));
            lines.push(String::new());
            word = &word[end..];
        }
        lines.last_mut().into_iter().for_each(|line| line.push_str(word));
    }
    lines
}

fn length(text: &str) -> usize {
    text.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_wrapped_at_spaces_and_keys_at_their_joints() {
        assert_eq!(wrapped("one two three", 8), ["one two", "three"]);
        assert_eq!(wrapped("net.netfilter.nf_conntrack_max", 20), ["net.netfilter.nf_", "conntrack_max"]);
        assert_eq!(wrapped("", 8), [""]);
        assert_eq!(wrapped("äöüäöü", 4), ["äöüä", "öü"]);
    }
}
