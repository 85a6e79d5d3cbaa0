use super::*;
use crate::top::view::tests::history;

fn dashboard() -> Dashboard {
    Dashboard { history: history(), ..Dashboard::default() }
}

fn screen(dashboard: &mut Dashboard) -> String {
    dashboard.lines(80, 24).iter().map(|line| line.text() + "\n").collect()
}

#[test]
fn a_small_terminal_has_the_figures_a_table_and_the_keys() {
    let mut dashboard = dashboard();
    let text = screen(&mut dashboard);
    assert_eq!(text.lines().count(), 24, "{text}");
    for word in ["longsplice 0.1.0", "Tunnels     12,340", "1 Upstreams", "10.0.3.11:3000", "q quit"] {
        assert!(text.contains(word), "no {word:?} in:\n{text}");
    }
}

#[test]
fn any_size_is_a_size() {
    let mut dashboard = dashboard();
    for (width, height) in [(0, 0), (1, 1), (10, 3), (80, 9), (300, 100)] {
        let lines = dashboard.lines(width, height);
        assert_eq!(lines.len(), height);
        assert!(lines.iter().all(|line| line.width() <= width));
    }
    assert_eq!(Dashboard::default().lines(80, 24).len(), 24);
}

#[test]
fn keys_choose_sort_and_scroll() {
    let mut dashboard = dashboard();
    assert!(dashboard.act(Action::Choose(2)));
    assert!(screen(&mut dashboard).contains("203.0.113.3:40000"));
    dashboard.act(Action::Turn(1));
    assert_eq!(dashboard.table, 3);
    dashboard.act(Action::Turn(-4));
    assert_eq!(dashboard.table, Kind::ALL.len() - 1);
    dashboard.act(Action::Choose(99));
    assert_eq!(dashboard.table, Kind::ALL.len() - 1);

    dashboard.act(Action::Choose(0));
    for _ in 0..4 {
        dashboard.act(Action::Sort);
    }
    let text = screen(&mut dashboard);
    assert!(text.contains("by Open"), "{text}");
    let rows: Vec<&str> = text.lines().skip_while(|line| !line.starts_with("Upstream")).skip(1).collect();
    assert!(rows[0].contains("3,712"), "{text}");
    dashboard.act(Action::Reverse);
    assert!(!screen(&mut dashboard).lines().any(|line| line == rows[0] && line.is_empty()));
    for _ in 0..6 {
        dashboard.act(Action::Sort);
    }
    assert!(!screen(&mut dashboard).contains("by "), "after the last column the server's order comes");

    dashboard.act(Action::Scroll(isize::MAX));
    assert!(screen(&mut dashboard).contains("q quit"));
    dashboard.act(Action::Scroll(isize::MIN));
    assert!(!dashboard.act(Action::Quit));
}

#[test]
fn silence_is_told_and_the_figures_stay() {
    let mut dashboard = dashboard();
    dashboard.take(Err("cannot connect".to_owned()));
    let text = screen(&mut dashboard);
    assert!(text.contains("No answer: cannot connect") && text.contains("12,340"), "{text}");
    dashboard.take(Ok(Box::new(history().now)));
    assert!(!screen(&mut dashboard).contains("No answer"));
}

#[test]
fn help_and_pause_are_seen() {
    let mut dashboard = dashboard();
    dashboard.act(Action::Help);
    assert!(screen(&mut dashboard).contains("sort the other way round"));
    dashboard.act(Action::Help);
    dashboard.act(Action::Pause);
    assert!(screen(&mut dashboard).lines().last().unwrap().contains("paused"));
}
