//! Text for a terminal: pieces with a style, tables that fit a width, sparklines.

use std::cmp::Ordering;

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// How a piece of text is meant; what that looks like is the terminal's affair, and nothing where there are no colours.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Style {
    #[default]
    Plain,
    Soft,
    Strong,
    Good,
    Warn,
    Bad,
    /// The head of a table.
    Head,
    /// The table that is shown, among the names of all.
    Chosen,
}

/// How near a limit is: 0.8 and 0.95 as on the status page.
pub(super) fn nearness(part: f64) -> Style {
    match part {
        0.95.. => Style::Bad,
        0.8.. => Style::Warn,
        _ => Style::Plain,
    }
}

/// One line of the screen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Line {
    pub pieces: Vec<(Style, String)>,
}

impl Line {
    pub fn new(style: Style, text: impl AsRef<str>) -> Self {
        Self::default().and(style, text)
    }

    /// With `text` behind it.
    pub fn and(mut self, style: Style, text: impl AsRef<str>) -> Self {
        self.pieces.push((style, printable(text.as_ref())));
        self
    }

    /// Columns it takes.
    pub fn width(&self) -> usize {
        self.pieces.iter().map(|(_, text)| text.width()).sum()
    }

    /// Filled up with blanks, so that what follows stands at column `width`.
    pub fn until(self, width: usize) -> Self {
        let missing = width.saturating_sub(self.width());
        self.and(Style::Plain, " ".repeat(missing))
    }

    /// Its first `width` columns.
    pub fn cut(mut self, width: usize) -> Self {
        let mut left = width;
        for (_, text) in &mut self.pieces {
            *text = cut(text, left).to_owned();
            left -= text.width();
        }
        self
    }

    pub fn text(&self) -> String {
        self.pieces.iter().map(|(_, text)| text.as_str()).collect::<String>().trim_end().to_owned()
    }
}

/// Names come from files and from the network: what would move the cursor, or turn the direction of writing, is shown as `?`.
fn printable(text: &str) -> String {
    let turns = |c: char| matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    text.chars().map(|c| if c.is_control() || turns(c) { '?' } else { c }).collect()
}

/// The beginning of `text` that fits `width` columns.
fn cut(text: &str, width: usize) -> &str {
    let mut taken = 0;
    for (index, character) in text.char_indices() {
        taken += character.width().unwrap_or(0);
        if taken > width {
            return &text[..index];
        }
    }
    text
}

/// The last `width` values, one column each, the highest as a full block.
pub(super) fn sparkline(values: impl DoubleEndedIterator<Item = Option<f64>>, width: usize) -> String {
    const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let mut last: Vec<_> = values.rev().take(width).collect();
    last.reverse();
    let highest = last.iter().flatten().copied().fold(0.0, f64::max);
    let block = |value: Option<f64>| match value {
        None => ' ',
        Some(value) if value <= 0.0 || highest <= 0.0 => BLOCKS[0],
        Some(value) => BLOCKS[((value / highest * 7.0).round() as usize).min(7)],
    };
    let shown: String = last.into_iter().map(block).collect();
    format!("{shown:>width$}")
}

/// A table: what its columns are and what stands in them.
#[derive(Debug, Default)]
pub(super) struct Table {
    pub columns: Vec<Column>,
    pub rows: Vec<Vec<Cell>>,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Column {
    pub title: &'static str,
    /// Names stand left and may be cut; figures stand right and never are.
    pub name: bool,
}

/// A column of figures.
pub(super) const fn figure(title: &'static str) -> Column {
    Column { title, name: false }
}

/// A column of names.
pub(super) const fn name(title: &'static str) -> Column {
    Column { title, name: true }
}

#[derive(Debug, Clone, Default)]
pub(super) struct Cell {
    text: String,
    style: Style,
    /// What a figure is sorted by.
    value: f64,
}

impl Cell {
    pub fn name(text: &str) -> Self {
        Self { text: printable(text), ..Self::default() }
    }

    pub fn figure(value: f64, text: String) -> Self {
        Self { text, value, style: Style::Plain }
    }

    pub fn styled(self, style: Style) -> Self {
        Self { style, ..self }
    }
}

/// No name needs more in a table: a location's regular expression may be long.
const WIDEST_NAME: usize = 48;
/// An IPv4 address with its port is never cut.
const NARROWEST_NAME: usize = 18;
const GAP: &str = "  ";

impl Table {
    /// Sorts the rows by a column: figures from high to low, names from A to Z; the other way round if `reversed`.
    pub fn sort(&mut self, column: usize, reversed: bool) {
        let Some(Column { name, .. }) = self.columns.get(column).copied() else { return };
        self.rows.sort_by(|a, b| {
            let order = match (a.get(column), b.get(column)) {
                (Some(a), Some(b)) if name => a.text.cmp(&b.text),
                (Some(a), Some(b)) => b.value.total_cmp(&a.value),
                _ => Ordering::Equal,
            };
            if reversed { order.reverse() } else { order }
        });
    }

    /// Its head and rows as lines of at most `width` columns: names are cut first, then the last columns left out.
    pub fn lines(&self, width: usize, sorted_by: Option<usize>) -> Vec<Line> {
        let widths = self.widths(width);
        let head = self.columns.iter().enumerate().map(|(index, column)| {
            let style = if sorted_by == Some(index) { Style::Strong } else { Style::Head };
            (style, column.title)
        });
        let rows = self.rows.iter().map(|row| {
            let cells = row.iter().map(|cell| (cell.style, cell.text.as_str()));
            self.line(cells, &widths)
        });
        std::iter::once(self.line(head, &widths)).chain(rows).collect()
    }

    fn line<'a>(&self, cells: impl Iterator<Item = (Style, &'a str)>, widths: &[usize]) -> Line {
        let mut line = Line::default();
        for ((index, (style, text)), width) in cells.enumerate().zip(widths) {
            let shown = if text.width() > *width { format!("{}…", cut(text, width - 1)) } else { text.to_owned() };
            let blanks = " ".repeat(width - shown.width());
            line = match self.columns[index].name {
                true => line.and(style, shown).and(Style::Plain, blanks),
                false => line.and(Style::Plain, blanks).and(style, shown),
            };
            line = line.and(Style::Plain, GAP);
        }
        line
    }

    /// The widths of the columns that fit, at least the first.
    fn widths(&self, width: usize) -> Vec<usize> {
        let mut widths: Vec<usize> = (0..self.columns.len()).map(|index| self.wish(index)).collect();
        while widths.len() > 1 && taken(&widths) > width {
            let widest = (0..widths.len())
                .filter(|index| self.columns[*index].name && widths[*index] > NARROWEST_NAME)
                .max_by_key(|index| widths[*index]);
            match widest {
                Some(index) => widths[index] -= 1,
                None => drop(widths.pop()),
            }
        }
        self.spread(&mut widths, width);
        widths
    }

    /// Gives back to cut names what leaving out a column set free.
    fn spread(&self, widths: &mut [usize], width: usize) {
        let mut free = width.saturating_sub(taken(widths));
        for (index, own) in widths.iter_mut().enumerate() {
            let more = self.wish(index).saturating_sub(*own).min(free);
            *own += more;
            free -= more;
        }
    }

    fn wish(&self, index: usize) -> usize {
        let column = self.columns[index];
        let cells = self.rows.iter().filter_map(|row| row.get(index)).map(|cell| cell.text.width());
        let widest = cells.max().unwrap_or(0).max(column.title.width());
        if column.name { widest.min(WIDEST_NAME) } else { widest }
    }
}

fn taken(widths: &[usize]) -> usize {
    widths.iter().sum::<usize>() + widths.len().saturating_sub(1) * GAP.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let row = |text: &str, open: f64| vec![Cell::name(text), Cell::figure(open, open.to_string()), Cell::name("x")];
        Table {
            columns: vec![name("Server"), figure("Open"), name("Last")],
            rows: vec![row("a.example.com", 1.0), row("b.example.com:8443", 20.0)],
        }
    }

    fn texts(table: &Table, width: usize) -> Vec<String> {
        table.lines(width, None).iter().map(Line::text).collect()
    }

    #[test]
    fn columns_stand_below_each_other() {
        let wide = ["Server              Open  Last", "a.example.com          1  x", "b.example.com:8443    20  x"];
        assert_eq!(texts(&table(), 80), wide);
    }

    #[test]
    fn names_are_cut_before_columns_are_left_out() {
        let mut table = table();
        table.rows[1][0] = Cell::name("a-very-long-name.example.com:8443");
        assert_eq!(texts(&table, 32)[2], "a-very-long-name.ex…    20  x");
        assert_eq!(texts(&table, 24)[2], "a-very-long-name.…    20");
        assert_eq!(texts(&table, 18)[2], "a-very-long-name.…");
        assert_eq!(texts(&table, 0).len(), 3, "the first column is always there");
        for width in 18..80 {
            assert!(table.lines(width, None).iter().all(|line| line.text().width() <= width), "{width}");
        }
    }

    #[test]
    fn figures_sort_from_high_to_low_and_names_from_a() {
        let mut table = table();
        table.sort(1, false);
        assert!(texts(&table, 80)[1].starts_with('b'));
        table.sort(0, false);
        assert!(texts(&table, 80)[1].starts_with('a'));
        table.sort(0, true);
        assert!(texts(&table, 80)[1].starts_with('b'));
        table.sort(9, false);
    }

    #[test]
    fn nothing_from_outside_moves_the_cursor() {
        let line = Line::new(Style::Plain, "a\x1b[2Jb\r\n\u{202e}c\u{9b}d");
        assert_eq!(line.text(), "a?[2Jb???c?d");
        assert_eq!(Cell::name("\x1b]0;x\x07").text, "?]0;x?");
    }

    #[test]
    fn lines_are_cut_at_columns_and_not_at_bytes() {
        let line = Line::new(Style::Plain, "ab").and(Style::Bad, "漢字é");
        assert_eq!(line.width(), 7);
        assert_eq!(line.clone().cut(5).text(), "ab漢");
        assert_eq!(line.clone().cut(6).text(), "ab漢字");
        assert_eq!(line.cut(0).text(), "");
    }

    #[test]
    fn sparklines_show_the_last_values() {
        let values = [9.0, 0.0, 4.0, 8.0].map(Some);
        assert_eq!(sparkline(values.into_iter(), 3), "▁▅█");
        assert_eq!(sparkline([None, Some(0.0)].into_iter(), 4), "   ▁");
        assert_eq!(sparkline(values.into_iter(), 0), "");
    }
}
