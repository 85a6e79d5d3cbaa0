//! The terminal: raw while `top` runs, as it was before when it ends, however it ends.

use std::{
    io::{self, Write},
    panic,
    sync::mpsc::{self, Receiver, RecvTimeoutError, Sender},
    thread,
    time::{Duration, Instant},
};

use crossterm::{
    cursor::{Hide, MoveTo, Show},
    event::{self, Event as Input, KeyCode, KeyEvent, KeyEventKind, KeyModifiers},
    execute, queue,
    style::{Attribute, Color, Print, ResetColor, SetAttribute, SetForegroundColor},
    terminal::{
        self, BeginSynchronizedUpdate, Clear, ClearType, EndSynchronizedUpdate, EnterAlternateScreen,
        LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
    },
};
use nix::sys::signal::{SigSet, Signal};

use super::{
    dashboard::{Action, Dashboard},
    lines::{Line, Style},
    read,
    source::Source,
};
use crate::observe::status::Status;

/// What the loop waits for.
enum Event {
    Key(KeyEvent),
    Resized,
    Answer(Result<Box<Status>, String>),
    /// A signal, or the terminal has gone.
    Ended,
}

/// Shows the status until somebody quits. `first` is the answer that showed that there is something to show.
///
/// # Errors
/// The terminal's own.
pub(super) fn run(source: Source, first: Status, delay: Duration) -> io::Result<()> {
    let (events, queue) = mpsc::channel();
    // Before any thread starts, so that each of them leaves these signals to the one that waits for them.
    watch_signals(events.clone())?;
    let _raw = Raw::enter()?;
    let requests = asker(source, events.clone())?;
    spawn("keys", move || watch_keys(&events))?;
    let mut dashboard = Dashboard::default();
    dashboard.take(Ok(Box::new(first)));
    show(&mut dashboard, &queue, &requests, delay)
}

/// The loop: one event, then the screen as it is now.
fn show(dashboard: &mut Dashboard, events: &Receiver<Event>, requests: &Sender<()>, delay: Duration) -> io::Result<()> {
    // When to ask; none while an answer is under way.
    let mut next = Some(Instant::now() + delay);
    loop {
        draw(dashboard)?;
        let wait = match next {
            Some(at) if !dashboard.paused => at.saturating_duration_since(Instant::now()),
            // The age of the figures is shown too.
            _ => Duration::from_secs(1),
        };
        let going_on = match events.recv_timeout(wait) {
            Ok(Event::Key(key)) => action(key).is_none_or(|action| dashboard.act(action)),
            Ok(Event::Resized) => true,
            Ok(Event::Answer(answer)) => {
                dashboard.take(answer);
                next = Some(Instant::now() + delay);
                true
            }
            Ok(Event::Ended) | Err(RecvTimeoutError::Disconnected) => false,
            Err(RecvTimeoutError::Timeout) => {
                if !dashboard.paused && next.is_some_and(|at| at <= Instant::now()) {
                    next = None;
                    // The asker lives as long as this loop.
                    let _ = requests.send(());
                }
                true
            }
        };
        if !going_on {
            return Ok(());
        }
    }
}

/// A thread that asks when it is told to: a server that hangs must not hang the keys.
fn asker(source: Source, events: Sender<Event>) -> io::Result<Sender<()>> {
    let (requests, orders) = mpsc::channel();
    spawn("asker", move || {
        for () in orders {
            let answer = source.get().and_then(|json| read(&json)).map(Box::new);
            if events.send(Event::Answer(answer)).is_err() {
                return;
            }
        }
    })?;
    Ok(requests)
}

fn watch_keys(events: &Sender<Event>) {
    loop {
        let event = match event::read() {
            Ok(Input::Key(key)) if key.kind != KeyEventKind::Release => Event::Key(key),
            Ok(Input::Resize(..)) => Event::Resized,
            Ok(_) => continue,
            Err(_) => Event::Ended,
        };
        let over = matches!(event, Event::Ended);
        if events.send(event).is_err() || over {
            return;
        }
    }
}

/// TERM and HUP end it as `q` does: else the terminal would stay raw.
fn watch_signals(events: Sender<Event>) -> io::Result<()> {
    let mut signals = SigSet::empty();
    [Signal::SIGTERM, Signal::SIGHUP, Signal::SIGINT].into_iter().for_each(|signal| signals.add(signal));
    signals.thread_block()?;
    spawn("signals", move || {
        let _ = signals.wait();
        // Nobody listens any more when it ends just now.
        let _ = events.send(Event::Ended);
    })
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    thread::Builder::new().name(name.to_owned()).spawn(work).map(drop)
}

fn action(key: KeyEvent) -> Option<Action> {
    const PAGE: isize = 10;
    Some(match key.code {
        KeyCode::Char('c' | 'd') if key.modifiers.contains(KeyModifiers::CONTROL) => Action::Quit,
        KeyCode::Char('q') | KeyCode::Esc => Action::Quit,
        KeyCode::Tab | KeyCode::Right => Action::Turn(1),
        KeyCode::BackTab | KeyCode::Left => Action::Turn(-1),
        KeyCode::Char(digit @ '1'..='9') => Action::Choose(usize::from(digit as u8 - b'1')),
        KeyCode::Char('s') => Action::Sort,
        KeyCode::Char('r') => Action::Reverse,
        KeyCode::Char('p' | ' ') => Action::Pause,
        KeyCode::Char('h' | '?') | KeyCode::F(1) => Action::Help,
        KeyCode::Down | KeyCode::Char('j') => Action::Scroll(1),
        KeyCode::Up | KeyCode::Char('k') => Action::Scroll(-1),
        KeyCode::PageDown => Action::Scroll(PAGE),
        KeyCode::PageUp => Action::Scroll(-PAGE),
        KeyCode::Home => Action::Scroll(isize::MIN),
        KeyCode::End => Action::Scroll(isize::MAX),
        _ => return None,
    })
}

fn draw(dashboard: &mut Dashboard) -> io::Result<()> {
    let (width, height) = terminal::size()?;
    let mut out = io::stdout().lock();
    queue!(out, BeginSynchronizedUpdate)?;
    for (row, line) in (0..height).zip(dashboard.lines(width.into(), height.into())) {
        queue!(out, MoveTo(0, row))?;
        write_line(&mut out, &line)?;
        queue!(out, Clear(ClearType::UntilNewLine))?;
    }
    queue!(out, EndSynchronizedUpdate)?;
    out.flush()
}

/// A line with its colours.
pub(super) fn write_line(out: &mut impl Write, line: &Line) -> io::Result<()> {
    for (style, text) in &line.pieces {
        match style {
            Style::Plain => {}
            Style::Soft => queue!(out, SetAttribute(Attribute::Dim))?,
            Style::Strong => queue!(out, SetAttribute(Attribute::Bold))?,
            Style::Good => queue!(out, SetForegroundColor(Color::Green))?,
            Style::Warn => queue!(out, SetForegroundColor(Color::Yellow))?,
            Style::Bad => queue!(out, SetAttribute(Attribute::Bold), SetForegroundColor(Color::Red))?,
            Style::Head => queue!(out, SetAttribute(Attribute::Underlined), SetAttribute(Attribute::Dim))?,
            Style::Chosen => queue!(out, SetAttribute(Attribute::Reverse))?,
        }
        queue!(out, Print(text))?;
        if *style != Style::Plain {
            queue!(out, ResetColor, SetAttribute(Attribute::Reset))?;
        }
    }
    Ok(())
}

/// The terminal while it is ours: given back when this is dropped, and before a panic is told.
struct Raw;

impl Raw {
    fn enter() -> io::Result<Self> {
        let told = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            give_back();
            told(panic);
        }));
        enable_raw_mode()?;
        let raw = Self;
        execute!(io::stdout(), EnterAlternateScreen, Hide, Clear(ClearType::All))?;
        Ok(raw)
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        give_back();
    }
}

/// Whoever closed the terminal does not miss it.
fn give_back() {
    let _ = execute!(io::stdout(), ResetColor, SetAttribute(Attribute::Reset), Show, LeaveAlternateScreen);
    let _ = disable_raw_mode();
}
