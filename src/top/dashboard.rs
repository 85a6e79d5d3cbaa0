//! What is shown of the status, and what keys do to it. Knows no terminal: lines out, keys in.

use std::time::Instant;

use super::{
    history::History,
    lines::{Line, Style},
    units::span,
    view::{self, Kind, Plots},
};
use crate::observe::status::Status;

/// What a key asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Quit,
    /// The table `n` further, or back.
    Turn(isize),
    /// The table with this key.
    Choose(usize),
    /// Sorts by the next column.
    Sort,
    Reverse,
    Pause,
    Help,
    /// So many rows down, or up.
    Scroll(isize),
}

const HELP: [&str; 12] = [
    "1 to 8, Tab     another table",
    "s               sort by the next column; after the last one, as the server does",
    "r               sort the other way round",
    "arrows, PgUp/Dn scroll",
    "p, space        pause, and go on",
    "h, ?            this help",
    "q, Esc, Ctrl-C  quit",
    "",
    "In and out are seen from longsplice: in is what clients send.",
    "Messages are WebSocket frames. Rates are those since the last answer.",
    "The busiest and the longest tunnels are those that the server lists.",
    "Yellow is near a limit, red is at one.",
];

/// The whole state of the screen.
#[derive(Debug, Default)]
pub(super) struct Dashboard {
    history: History,
    answered: Option<Instant>,
    /// Why there was no answer, while there is none.
    silence: Option<String>,
    table: usize,
    order: [Order; Kind::ALL.len()],
    scrolled: usize,
    pub paused: bool,
    helping: bool,
}

/// How a table is sorted. None: as the server does.
#[derive(Debug, Clone, Copy, Default)]
struct Order {
    column: Option<usize>,
    reversed: bool,
}

impl Dashboard {
    /// Takes an answer in, or that there is none.
    pub fn take(&mut self, answer: Result<Box<Status>, String>) {
        match answer {
            Ok(status) => {
                self.history.add(*status);
                self.answered = Some(Instant::now());
                self.silence = None;
            }
            Err(why) => self.silence = Some(why),
        }
    }

    /// Does what a key asks for; false: quit.
    pub fn act(&mut self, action: Action) -> bool {
        let tables = Kind::ALL.len();
        match action {
            Action::Quit => return false,
            Action::Turn(by) => self.choose((self.table + tables).wrapping_add_signed(by) % tables),
            Action::Choose(table) if table < tables => self.choose(table),
            Action::Choose(_) => {}
            Action::Sort => self.sort_by_next(),
            Action::Reverse => self.order[self.table].reversed ^= true,
            Action::Pause => self.paused ^= true,
            Action::Help => self.helping ^= true,
            Action::Scroll(by) => self.scrolled = self.scrolled.saturating_add_signed(by),
        }
        true
    }

    fn choose(&mut self, table: usize) {
        self.table = table;
        self.scrolled = 0;
        self.helping = false;
    }

    fn sort_by_next(&mut self) {
        let columns = Kind::ALL[self.table].table(&self.history).columns.len();
        let order = &mut self.order[self.table];
        let next = order.column.map_or(0, |column| column + 1);
        order.column = (next < columns).then_some(next);
    }

    /// The screen, at most `height` lines of `width` columns.
    pub fn lines(&mut self, width: usize, height: usize) -> Vec<Line> {
        let mut lines = view::heading(&self.history);
        lines.extend(self.link());
        lines.extend(view::summary(&self.history, width, Plots::Yes));
        lines.push(Line::default());
        let room = height.saturating_sub(lines.len() + 1);
        lines.extend(if self.helping { help(room) } else { self.tables(width, room) });
        lines.truncate(height.saturating_sub(1));
        lines.resize(height.saturating_sub(1), Line::default());
        lines.push(self.footer());
        lines.truncate(height);
        lines.into_iter().map(|line| line.cut(width)).collect()
    }

    /// Said only when something is wrong.
    fn link(&self) -> Option<Line> {
        let why = self.silence.as_ref()?;
        let age = self.answered.map(|at| format!("; the figures are {} old", span(at.elapsed().as_secs_f64())));
        Some(Line::new(Style::Bad, format!("No answer: {why}{}", age.unwrap_or_default())))
    }

    fn tables(&mut self, width: usize, room: usize) -> Vec<Line> {
        let kind = Kind::ALL[self.table];
        let order = self.order[self.table];
        let mut table = kind.table(&self.history);
        match order.column {
            Some(column) => table.sort(column, order.reversed),
            None if order.reversed => table.rows.reverse(),
            None => {}
        }
        let rows = room.saturating_sub(2);
        self.scrolled = self.scrolled.min(table.rows.len().saturating_sub(rows));
        let mut lines = table.lines(width, order.column).into_iter();
        let mut shown = vec![self.tabs()];
        if table.rows.is_empty() {
            shown.push(Line::new(Style::Soft, "nothing"));
            return shown;
        }
        shown.extend(lines.next());
        shown.extend(lines.skip(self.scrolled).take(rows));
        shown
    }

    /// The names of the tables, the chosen one strong.
    fn tabs(&self) -> Line {
        let mut line = Line::default();
        for (index, kind) in Kind::ALL.iter().enumerate() {
            let style = if index == self.table { Style::Chosen } else { Style::Soft };
            line = line.and(style, format!("{} {}", index + 1, kind.short())).and(Style::Plain, " ");
        }
        line
    }

    fn footer(&self) -> Line {
        let line = Line::new(Style::Soft, "q quit  Tab table  s sort  r reverse  p pause  h help");
        let order = self.order[self.table];
        let columns = Kind::ALL[self.table].table(&self.history).columns;
        let line = match order.column.and_then(|column| columns.get(column)) {
            Some(column) => line.and(Style::Plain, format!("   by {}", column.title)),
            None => line,
        };
        if self.paused { line.and(Style::Warn, "   paused") } else { line }
    }
}

fn help(room: usize) -> Vec<Line> {
    HELP.iter().take(room).map(|line| Line::new(Style::Plain, line)).collect()
}

#[cfg(test)]
mod tests;
