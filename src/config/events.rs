//! Which moments of a tunnel's life an `access_log` tells of.

/// A moment that a line may be about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TunnelEvent {
    /// The 101 was sent.
    Open = 1,
    /// Another `access_log_interval` has passed.
    Interval = 2,
    /// It has ended. A plain request has this one only.
    Close = 4,
}

impl TunnelEvent {
    /// Every one, in the order of a tunnel's life.
    pub const ALL: [Self; 3] = [Self::Open, Self::Interval, Self::Close];

    /// `$tunnel_event`, and its name in `events=`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Interval => "interval",
            Self::Close => "close",
        }
    }
}

/// `events=`: a set of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TunnelEvents(u8);

impl TunnelEvents {
    /// The default, as nginx: one line a request, when it ends.
    pub const CLOSE: Self = Self(TunnelEvent::Close as u8);

    /// Reads `open,interval,close`. None: a name that is none, or nothing at all.
    pub fn parse(text: &str) -> Option<Self> {
        let named = |name: &str| TunnelEvent::ALL.into_iter().find(|event| event.name() == name);
        text.split(',').try_fold(0, |set, name| Some(set | named(name)? as u8)).map(Self)
    }

    /// True when the event is among them.
    pub const fn has(self, event: TunnelEvent) -> bool {
        self.0 & event as u8 != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_a_list_of_names() {
        let of = |text| TunnelEvents::parse(text).map(|events| TunnelEvent::ALL.map(|event| events.has(event)));
        assert_eq!(of("open,interval,close"), Some([true; 3]));
        assert_eq!(of("interval"), Some([false, true, false]));
        assert_eq!(of("close"), TunnelEvents::CLOSE.0.eq(&4).then_some([false, false, true]));
        for bad in ["", "opened", "open,", "open, close", "Open"] {
            assert_eq!(of(bad), None, "{bad:?}");
        }
    }
}
