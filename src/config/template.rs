//! Text with `$variables` in it, compiled (`ngx_http_script_compile`).

use std::ops::Range;

use super::{diagnostic::did_you_mean, names::Names};
use crate::{
    proxy_protocol::Tlv,
    variables::{Known, Part, Template, Variable},
};

/// Makes the variable of a name in a family.
type Family = fn(&str) -> Variable;

/// Families of variables: `$http_NAME` and the like.
const FAMILIES: [(&str, Family); 5] = [
    ("upstream_http_", |name| Variable::UpstreamField(name.replace('_', "-").into())),
    ("sent_http_", |name| Variable::SentField(name.replace('_', "-").into())),
    ("http_", |name| Variable::RequestField(name.replace('_', "-").into())),
    ("arg_", |name| Variable::Argument(name.into())),
    ("cookie_", |name| Variable::Cookie(name.into())),
];

/// nginx's variables that are to come.
const NOT_YET: [&str; 6] =
    ["request_body", "ssl_ciphers", "ssl_curves", "ssl_session_id", "ssl_early_data", "ssl_alpn_protocol"];

const TLV_NAMES: &str = "alpn, authority, unique_id, netns, ssl, ssl_verify, ssl_version, ssl_cn, ssl_cipher, ssl_sig_alg, ssl_key_alg, \
    or a type as 0xea or ssl_0xea";

/// What is wrong with a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Where in the text.
    pub at: Range<usize>,
    /// What.
    pub message: String,
    /// What to do.
    pub help: Option<String>,
}

/// Compiles a text.
///
/// # Errors
/// Every unknown or malformed variable in it.
pub fn compile(text: &str, names: &Names) -> Result<Template, Vec<Fault>> {
    let mut parts = Vec::new();
    let mut faults = Vec::new();
    let mut rest = 0;
    while let Some(dollar) = text.get(rest..).and_then(|tail| tail.find('$')).map(|at| rest + at) {
        push_text(&mut parts, text.get(rest..dollar));
        let (end, found) = variable_at(text, dollar, names);
        match found {
            Ok(variable) => parts.push(Part::Variable(variable)),
            Err((message, help)) => faults.push(Fault { at: dollar..end, message, help }),
        }
        rest = end;
    }
    push_text(&mut parts, text.get(rest..));
    if faults.is_empty() { Ok(Template { parts }) } else { Err(faults) }
}

fn push_text(parts: &mut Vec<Part>, text: Option<&str>) {
    if let Some(text) = text.filter(|text| !text.is_empty()) {
        parts.push(Part::Text(text.as_bytes().into()));
    }
}

type Judged = Result<Variable, (String, Option<String>)>;

/// The variable whose `$` is at `dollar`, and where it ends.
fn variable_at(text: &str, dollar: usize, names: &Names) -> (usize, Judged) {
    let start = dollar + 1;
    let bytes = text.as_bytes();
    if let Some(digit @ b'1'..=b'9') = bytes.get(start) {
        return (start + 1, Ok(Variable::Capture(digit - b'0')));
    }
    let braced = bytes.get(start) == Some(&b'{');
    let start = start + usize::from(braced);
    let length = bytes.iter().skip(start).take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'_').count();
    let name = text.get(start..start + length).unwrap_or_default();
    let end = start + length;
    if braced && bytes.get(end) != Some(&b'}') {
        return (end, Err((format!("the closing bracket in \"{name}\" variable is missing"), None)));
    }
    let end = end + usize::from(braced);
    match (name, braced.then(|| name.parse()).and_then(Result::ok)) {
        ("", _) => (
            end,
            Err((
                "invalid variable name".to_owned(),
                Some("\"$\" begins a variable, and cannot be escaped".to_owned()),
            )),
        ),
        (_, Some(capture @ 1..=9u8)) => (end, Ok(Variable::Capture(capture))),
        _ => (end, named(name, names)),
    }
}

/// The variable of a name, without `$`. nginx's names have no case.
pub fn named(name: &str, names: &Names) -> Judged {
    let name = name.to_ascii_lowercase();
    if let Some(variable) = names.find(&name) {
        return Ok(variable);
    }
    if let Some(known) = Known::named(&name) {
        return Ok(Variable::Known(known));
    }
    for (prefix, variable) in FAMILIES {
        if let Some(rest) = name.strip_prefix(prefix).filter(|rest| !rest.is_empty()) {
            return Ok(variable(rest));
        }
    }
    if let Some(rest) = name.strip_prefix("proxy_protocol_tlv_") {
        return Tlv::named(rest)
            .map(Variable::ProxyProtocolTlv)
            .ok_or_else(|| (format!("unknown PROXY protocol TLV \"{rest}\""), Some(TLV_NAMES.to_owned())));
    }
    if NOT_YET.contains(&name.as_str()) || name.starts_with("ssl_client_") {
        return Err((format!("the variable \"{name}\" is not supported yet"), None));
    }
    let help = did_you_mean(&name, Known::NAMES.iter().copied().chain(names.all()));
    Err((format!("unknown \"{name}\" variable"), help.or_else(|| instead(&name).map(str::to_owned))))
}

/// Variables of nginx that mean nothing here.
fn instead(name: &str) -> Option<&'static str> {
    match name {
        "document_root" | "realpath_root" | "request_filename" | "fastcgi_script_name" => {
            Some("no files are served here")
        }
        "nginx_remote_addr" | "x_real_ip" => Some("did you mean `remote_addr`?"),
        "invalid_referer" => Some("compare $http_referer instead"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names() -> Names {
        let mut names = Names::default();
        names.slot("backend");
        names
    }

    fn show(text: &str) -> String {
        let parts = compile(text, &names()).expect("a good text").parts;
        let part = |part: &Part| match part {
            Part::Text(text) => String::from_utf8_lossy(text).into_owned(),
            Part::Variable(variable) => format!("<{variable:?}>"),
        };
        parts.iter().map(part).collect()
    }

    fn fault(text: &str) -> Fault {
        compile(text, &names()).expect_err("a fault").remove(0)
    }

    #[test]
    fn variables_are_found_with_and_without_braces() {
        assert_eq!(show("a$host.b"), "a<Known(Host)>.b");
        assert_eq!(show("${Host}b$backend"), "<Known(Host)>b<Slot(0)>");
        assert_eq!(show("/$1${2}0$10"), "/<Capture(1)><Capture(2)>0<Capture(1)>0");
        assert_eq!(show(""), "");
        assert_eq!(show("plain"), "plain");
    }

    #[test]
    fn families_are_compiled_to_field_names() {
        assert_eq!(show("$http_x_forwarded_for"), "<RequestField(\"x-forwarded-for\")>");
        assert_eq!(show("$sent_http_content_type"), "<SentField(\"content-type\")>");
        assert_eq!(show("$upstream_http_server"), "<UpstreamField(\"server\")>");
        assert_eq!(show("$arg_a_b$cookie_sid"), "<Argument(\"a_b\")><Cookie(\"sid\")>");
    }

    #[test]
    fn what_a_proxy_protocol_header_may_say_has_nginx_s_names() {
        assert_eq!(show("$proxy_protocol_tlv_alpn"), "<ProxyProtocolTlv(Plain(1))>");
        assert_eq!(show("$proxy_protocol_tlv_0xEA"), "<ProxyProtocolTlv(Plain(234))>");
        let fault = fault("$proxy_protocol_tlv_aplha");
        assert_eq!(fault.message, "unknown PROXY protocol TLV \"aplha\"");
        assert!(fault.help.is_some_and(|help| help.contains("ssl_cipher")));
    }

    #[test]
    fn an_unknown_variable_has_its_place_and_the_nearest_name() {
        let fault = fault("x $remote_adr");
        assert_eq!(fault.at, 2..13);
        assert_eq!(fault.message, "unknown \"remote_adr\" variable");
        assert_eq!(fault.help.as_deref(), Some("did you mean `remote_addr`?"));
    }

    #[test]
    fn malformed_variables_are_named() {
        assert_eq!(fault("a$").message, "invalid variable name");
        assert_eq!(fault("a${host").message, "the closing bracket in \"host\" variable is missing");
        assert_eq!(fault("$0").message, "unknown \"0\" variable");
        assert_eq!(compile("$a $b", &names()).expect_err("two").len(), 2);
    }

    proptest! {
        #[test]
        fn any_text_ends_without_panic(text in "\\PC*|[a-z${}0-9_ ]*") {
            let _ = compile(&text, &names());
        }
    }
}
