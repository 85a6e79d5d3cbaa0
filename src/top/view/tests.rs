use super::*;
use crate::top::read;

/// An answer, and a second later one in which everything counted grew.
pub(in crate::top) fn history() -> History {
    let first = read(include_bytes!("status.json")).unwrap();
    let mut second = first.clone();
    second.now_ms += 2000;
    second.tunnels.opened += 600;
    second.frames.from_client += 5000;
    second.bytes.from_upstream += 4 << 20;
    second.handshakes.refused += 4;
    let mut history = History::default();
    history.add(first);
    history.add(second);
    history
}

fn texts(lines: &[Line]) -> String {
    lines.iter().map(|line| line.text() + "\n").collect()
}

#[test]
fn the_snapshot_has_every_figure_and_every_table() {
    let text = texts(&snapshot(&history(), 200));
    for word in [
        "edge-7.fra  pid 4711  up 3d4h  configuration 12  serving",
        "The last reload failed: error: unknown directive",
        "\n  --> nginx.conf:15:1\n",
        "12,340",
        "300/s opened",
        "2.50k/s in",
        "2.00 MiB/s out",
        "41 pending, 2/s refused",
        "24,130/65,536",
        "\nPorts       3,712/28,232 to 10.0.9.2:8443  920/1,000 to 10.0.9.1:8443 from 10.0.1.7\n",
        "\nZones       fast 81,000/81,920 keys, 4,096 rejected, 71 delayed  addr 11,240/163,840 keys, 12 rejected, 0 delayed\n",
    ] {
        assert!(text.contains(word), "no {word:?} in:\n{text}");
    }
    for kind in Kind::ALL {
        assert!(text.contains(&format!("\n{}\n", kind.title())), "no {kind:?} in:\n{text}");
    }
    assert!(text.contains("10.0.3.15:3000") && text.contains("failed") && text.contains("client_closed"));
}

#[test]
fn a_server_that_has_nothing_yet_is_shown_too() {
    let text = texts(&snapshot(&History::default(), 80));
    assert!(text.contains("Tunnels     0") && text.contains("Ports       0/0"), "{text}");
    assert!(!text.contains("Zones"), "{text}");
}

#[test]
fn what_is_near_its_limit_is_coloured() {
    let history = history();
    let style = |line: &Line, text: &str| line.pieces.iter().find(|(_, piece)| piece == text).map(|(style, _)| *style);
    assert_eq!(style(&ports(&history), "3,712/28,232"), Some(Style::Plain));
    assert_eq!(style(&ports(&history), "920/1,000"), Some(Style::Warn));
    assert_eq!(style(&zones(&history).unwrap(), "81,000/81,920"), Some(Style::Bad));
}

#[test]
fn every_line_fits() {
    for width in [0, 1, 20, 40, 80, 132, 300] {
        for plots in [Plots::Yes, Plots::No] {
            assert!(summary(&history(), width, plots).iter().all(|line| line.width() <= width), "{width}");
        }
    }
}

#[test]
fn eighty_columns_have_room_for_sparklines_and_what_stands_beside() {
    let text = texts(&summary(&history(), 80, Plots::Yes));
    assert!(text.lines().next().unwrap().contains('█'), "{text}");
    assert!(text.contains("2.50k/s in, 0/s out"), "{text}");
}

#[test]
fn what_is_no_status_is_refused() {
    for json in ["", "[]", "{}", "{\"version\":1}", "<html>", "{\"version\":\"1\",\"pid\":0}"] {
        assert!(read(json.as_bytes()).is_err(), "{json}");
    }
    // Older and newer servers say less and more.
    assert!(read(b"{\"version\":\"9\",\"pid\":1,\"something\":{\"new\":[]}}").is_ok());
}
