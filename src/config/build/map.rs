//! `map` blocks.

use super::{
    super::diagnostic::{Diagnostic, did_you_mean},
    Build, Directive, Level,
};
use crate::route::map::Map;

impl Build<'_> {
    /// Every `map` of the file, in the order [`super::Names`] counted them.
    pub(super) fn maps(&mut self, http: &Level<'_>) -> Vec<Map> {
        http.own("map").map(|directive| self.map(directive)).collect()
    }

    fn map(&mut self, directive: &Directive) -> Map {
        let source = directive.args.first().map(|word| self.template(word)).unwrap_or_default();
        let name = directive.arg(1).trim_start_matches('$').to_ascii_lowercase();
        let lines = directive.children();
        let says = |flag: &str| lines.iter().any(|line| line.is(flag) && line.args.is_empty());
        let mut map = Map::new(&name, source, says("hostnames"), says("volatile"));
        for line in lines {
            self.map_line(&mut map, line);
        }
        map
    }

    fn map_line(&mut self, map: &mut Map, line: &Directive) {
        let key = &line.name;
        if line.block.is_some() {
            self.error(key.span, "a map has no blocks");
            return;
        }
        let value = match line.args.as_slice() {
            [] if matches!(key.text.as_str(), "hostnames" | "volatile") => return,
            [value] => value,
            _ => {
                let error = Diagnostic::error(line.span(), "invalid number of the map parameters");
                let help = did_you_mean(&key.text, ["hostnames", "volatile"]);
                self.report.push(
                    error.maybe_help(help).help("a line of a map is `KEY VALUE;`, in quotes where it has spaces"),
                );
                return;
            }
        };
        let value = self.template(value);
        let names = &mut self.names;
        if let Err(why) = map.insert(&key.text, value, &mut |name| names.slot(name)) {
            self.error(key.span, why);
        }
    }
}
