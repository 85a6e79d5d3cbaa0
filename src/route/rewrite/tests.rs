use super::*;

/// A request that is nothing but what scripts see.
#[derive(Default)]
struct Fake {
    uri: Vec<u8>,
    args: Vec<u8>,
    encoded: bool,
    left_prefix: bool,
    location: Option<LocationId>,
    slots: [Vec<u8>; 4],
    captures: Vec<Vec<u8>>,
}

impl Scope for Fake {
    fn append(&mut self, variable: &Variable, out: &mut Vec<u8>) -> bool {
        let scheme = b"https".to_vec();
        let value = match variable {
            Variable::Known(Known::Args) => Some(&self.args),
            Variable::Known(Known::Uri) => Some(&self.uri),
            Variable::Known(Known::Scheme) => Some(&scheme),
            Variable::Slot(slot) => self.slots.get(*slot),
            Variable::Capture(number) => self.captures.get(usize::from(*number) - 1),
            _ => None,
        };
        out.extend_from_slice(value.map_or(b"", Vec::as_slice));
        value.is_some()
    }
}

impl Rewritable for Fake {
    fn uri(&self) -> &[u8] {
        &self.uri
    }
    fn args(&self) -> &[u8] {
        &self.args
    }
    fn was_encoded(&self) -> bool {
        self.encoded
    }
    fn set_uri(&mut self, uri: Vec<u8>, args: Vec<u8>) {
        (self.uri, self.args) = (uri, args);
    }
    fn set_args(&mut self, args: Vec<u8>) {
        self.args = args;
    }
    fn leave_prefix(&mut self) {
        self.left_prefix = true;
    }
    fn set_location(&mut self, location: LocationId) {
        self.location = Some(location);
    }
    fn set_slot(&mut self, slot: Slot, value: Vec<u8>) {
        self.slots[slot] = value;
    }
    fn set_captures(&mut self, captures: Captures, _: bool) {
        self.captures = captures.numbered;
        captures.named.into_iter().for_each(|(slot, value)| self.set_slot(slot, value));
    }
}

/// `$1` is a capture, `$s0` a slot, any other a variable of the program.
pub(crate) fn template(text: &str) -> Template {
    let mut parts = Vec::new();
    let mut pieces = text.split('$');
    let literal = |text: &str, parts: &mut Vec<Part>| {
        if !text.is_empty() {
            parts.push(Part::Text(text.as_bytes().into()));
        }
    };
    literal(pieces.next().unwrap(), &mut parts);
    for piece in pieces {
        let end = piece.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(piece.len());
        let (name, rest) = piece.split_at(end);
        parts.push(Part::Variable(match (name.parse(), name.strip_prefix('s').and_then(|slot| slot.parse().ok())) {
            (Ok(number), _) => Variable::Capture(number),
            (_, Some(slot)) => Variable::Slot(slot),
            _ => Variable::Known(Known::named(name).unwrap()),
        }));
        literal(rest, &mut parts);
    }
    Template { parts }
}

pub(crate) fn regex(source: &str) -> Regex {
    Regex::new(source, false, &mut |_| 0).unwrap()
}

pub(crate) fn rewrite(source: &str, replacement: &str, flag: Flag) -> Step {
    Step::Rewrite { regex: regex(source), replacement: template(replacement), flag }
}

pub(crate) fn set(slot: Slot, value: &str) -> Step {
    Step::Set(slot, template(value))
}

pub(crate) fn give(status: u16, text: Option<&str>) -> Step {
    Step::Return(Return { status, text: text.map(template) })
}

pub(crate) fn when(condition: Condition, then: Vec<Step>, location: Option<LocationId>) -> Step {
    Step::If { condition, then: Script { steps: then }, location }
}

pub(crate) fn matches(value: &str, source: &str, negated: bool) -> Condition {
    Condition::Match { value: template(value), regex: regex(source), negated }
}

fn fake(target: &str) -> Fake {
    let (uri, args) = target.split_once('?').unwrap_or((target, ""));
    Fake { uri: uri.as_bytes().to_vec(), args: args.as_bytes().to_vec(), ..Fake::default() }
}

fn run(target: &str, steps: Vec<Step>) -> (Verdict, Fake) {
    let mut request = fake(target);
    (Script { steps }.run(&mut request), request)
}

/// The target a single rewrite makes.
fn rewritten(target: &str, replacement: &str) -> String {
    let (verdict, request) = run(target, vec![rewrite("^/old/(.*)$", replacement, Flag::Last)]);
    assert_eq!(verdict, Verdict::Search);
    let question = if request.args.is_empty() { "" } else { "?" };
    format!("{}{question}{}", String::from_utf8(request.uri).unwrap(), String::from_utf8(request.args).unwrap())
}

fn answer(status: u16, text: &str) -> Verdict {
    Verdict::Answer { status, text: Some(text.as_bytes().to_vec()) }
}

const STAY: Verdict = Verdict::Continue { location: None };

#[test]
fn the_requests_arguments_are_added_unless_the_replacement_ends_in_a_question_mark() {
    for (target, replacement, expected) in [
        ("/old/a?x=1", "/new/$1", "/new/a?x=1"),
        ("/old/a?x=1", "/new/$1?", "/new/a"),
        ("/old/a?x=1", "/new?p=$1", "/new?p=a&x=1"),
        ("/old/a?x=1", "/new?p=$1?", "/new?p=a"),
        ("/old/a", "/new?p=$1", "/new?p=a"),
        ("/old/a?x=1", "/new?$1", "/new?a&x=1"),
        ("/old/a?x=1", "/new/$args?", "/new/x=1"),
        ("/old/a", "/$1", "/a"),
    ] {
        assert_eq!(rewritten(target, replacement), expected, "{target} {replacement}");
    }
}

#[test]
fn a_question_mark_out_of_a_variable_begins_no_arguments() {
    let (_, request) = run("/old/a?b", vec![set(0, "/x?y"), rewrite("^", "$s0", Flag::Last)]);
    assert_eq!((request.uri.as_slice(), request.args.as_slice()), (b"/x?y".as_slice(), b"b".as_slice()));
}

#[test]
fn without_a_flag_the_next_directive_runs_and_then_a_location_is_searched() {
    let (verdict, request) = run(
        "/old/a",
        vec![rewrite("^/old", "/mid", Flag::None), rewrite("^/mid", "/new", Flag::None), set(1, "reached")],
    );
    assert_eq!(verdict, Verdict::Search);
    assert_eq!(request.uri, b"/new");
    assert_eq!(request.slots[1], b"reached");
}

#[test]
fn last_and_break_end_the_script_and_only_last_searches() {
    for (flag, expected) in [(Flag::Last, Verdict::Search), (Flag::Break, STAY)] {
        let (verdict, request) = run("/old", vec![rewrite("^/old", "/new", flag), set(1, "reached")]);
        assert_eq!(verdict, expected);
        assert_eq!(request.uri, b"/new");
        assert!(request.slots[1].is_empty());
        assert_eq!(request.left_prefix, flag == Flag::Break);
    }
}

#[test]
fn the_directive_break_keeps_a_rewritten_path_where_it_is() {
    let (verdict, request) = run("/old", vec![rewrite("^", "/new", Flag::None), Step::Break, set(1, "reached")]);
    assert_eq!(verdict, STAY);
    assert!(request.left_prefix && request.slots[1].is_empty());
    let (verdict, request) = run("/old", vec![Step::Break]);
    assert_eq!(verdict, STAY);
    assert!(!request.left_prefix);
}

#[test]
fn a_replacement_with_a_scheme_redirects_whatever_the_flag() {
    for (replacement, flag, status, location) in [
        ("https://x/$1", Flag::None, 302, "https://x/a?q=1"),
        ("http://x/$1?", Flag::Last, 302, "http://x/a"),
        ("$scheme://x/$1", Flag::Break, 302, "https://x/a?q=1"),
        ("http://x/?p=$1", Flag::Permanent, 301, "http://x/?p=a&q=1"),
        ("/new/$1", Flag::Redirect, 302, "/new/a?q=1"),
        ("/new/$1", Flag::Permanent, 301, "/new/a?q=1"),
    ] {
        let (verdict, request) = run("/old/a?q=1", vec![rewrite("^/old/(.*)$", replacement, flag)]);
        assert_eq!(verdict, answer(status, location), "{replacement}");
        assert_eq!(request.uri, b"/old/a");
    }
}

#[test]
fn captures_of_an_encoded_path_are_encoded_again_in_arguments_and_locations() {
    let script = |replacement, flag| Script { steps: vec![rewrite("^/old/(.*)$", replacement, flag)] };
    let encoded = || Fake { encoded: true, ..fake("/old/a&b\r c") };
    let mut request = encoded();
    script("/new/$1?p=$1", Flag::Last).run(&mut request);
    assert_eq!(request.uri, b"/new/a&b\r c");
    assert_eq!(request.args, b"p=a%26b%0D%20c");
    assert_eq!(script("https://x/$1", Flag::None).run(&mut encoded()), answer(302, "https://x/a&b%0D%20c"));
    let mut plain = fake("/old/a&b");
    script("/new?p=$1", Flag::Last).run(&mut plain);
    assert_eq!(plain.args, b"p=a&b");
}

#[test]
fn set_encodes_captures_until_a_rewrite_matched() {
    let mut request = Fake { encoded: true, captures: vec![b"a b".to_vec()], ..fake("/x y") };
    let steps = vec![set(0, "$1"), rewrite("^/(.*)", "/$1", Flag::None), set(1, "$1")];
    Script { steps }.run(&mut request);
    assert_eq!(request.slots[0], b"a%20b");
    assert_eq!(request.slots[1], b"x y");
}

#[test]
fn no_location_breaks_out_of_its_field() {
    let (verdict, _) = run("/a\r\nSet-Cookie: x", vec![give(302, Some("https://h$uri"))]);
    assert_eq!(verdict, answer(302, "https://h/a%0D%0ASet-Cookie:%20x"));
}

#[test]
fn return_gives_a_text_a_location_or_the_page_of_the_status() {
    for (status, text, expected) in [
        (200, Some("hi $uri"), answer(200, "hi /a")),
        (204, None, answer(204, "")),
        (301, Some("/b$uri"), answer(301, "/b/a")),
        (301, None, Verdict::Answer { status: 301, text: None }),
        (403, None, Verdict::Answer { status: 403, text: None }),
        (403, Some("no"), answer(403, "no")),
        (404, Some(""), Verdict::Answer { status: 404, text: None }),
        (404, Some("$s0"), answer(404, "")),
        (444, None, Verdict::Answer { status: 444, text: None }),
    ] {
        assert_eq!(run("/a", vec![give(status, text), set(0, "reached")]).0, expected, "{status} {text:?}");
    }
}

#[test]
fn a_condition_is_false_when_empty_or_zero() {
    for (value, holds) in [("", false), ("0", false), ("00", true), ("1", true), ("no", true)] {
        let condition = Condition::Value(template("$s0"));
        let (_, request) = run("/", vec![set(0, value), when(condition, vec![set(1, "yes")], None)]);
        assert_eq!(!request.slots[1].is_empty(), holds, "{value:?}");
    }
}

#[test]
fn equality_and_matching_in_both_senses() {
    let equal = |right: &str, negated| Condition::Equal { left: template("$uri"), right: template(right), negated };
    for (condition, holds) in [
        (equal("/a", false), true),
        (equal("/A", false), false),
        (equal("/b", true), true),
        (matches("$uri", "^/a", false), true),
        (matches("$uri", "^/b", false), false),
        (matches("$uri", "^/b", true), true),
        (matches("$uri", "^/a", true), false),
    ] {
        let text = format!("{condition:?}");
        let (verdict, _) = run("/a", vec![when(condition, vec![give(200, Some("yes"))], None)]);
        assert_eq!(verdict == answer(200, "yes"), holds, "{text}");
    }
}

#[test]
fn captures_are_those_of_the_last_expression_tried() {
    let steps = vec![
        when(matches("$uri", "^/(.)(?<name>.)", false), vec![set(1, "$1$2")], None),
        when(matches("$uri", "^/nothing", true), vec![set(2, "<$1>")], None),
    ];
    let (_, request) = run("/abc", steps);
    assert_eq!(request.slots[1], b"ab");
    assert_eq!(request.slots[0], b"b");
    assert_eq!(request.slots[2], b"<>");
}

#[test]
fn the_last_if_block_with_settings_is_in_force() {
    let always = || matches("$uri", "", false);
    let steps = vec![
        when(always(), vec![], Some(3)),
        when(always(), vec![when(always(), vec![], Some(4))], None),
        when(always(), vec![], None),
        when(matches("$uri", "never", false), vec![], Some(5)),
    ];
    let (verdict, request) = run("/a", steps);
    assert_eq!(verdict, Verdict::Continue { location: Some(4) });
    assert_eq!(request.location, Some(4));
}

#[test]
fn set_args_changes_what_a_rewrite_adds() {
    let steps = vec![Step::SetArgs(template("$args&b=2")), rewrite("^", "/new", Flag::Last)];
    let (_, request) = run("/a?a=1", steps);
    assert_eq!(request.args, b"a=1&b=2");
}

#[test]
fn a_path_rewritten_to_nothing_is_an_internal_error() {
    let (verdict, _) = run("/a", vec![rewrite("^", "$s0", Flag::Last)]);
    assert_eq!(verdict, Verdict::Answer { status: 500, text: None });
}

#[test]
fn a_value_that_grows_without_end_is_cut() {
    let mut steps = vec![set(0, "0123456789")];
    steps.extend((0..40).map(|_| set(0, "$s0$s0?$s0")));
    steps.push(rewrite("^", "/$s0?$s0$s0", Flag::Last));
    let (verdict, request) = run("/a", steps);
    assert_eq!(verdict, Verdict::Search);
    assert!(request.slots[0].len() <= EXPANSION_BYTES && request.uri.len() <= EXPANSION_BYTES);
}
