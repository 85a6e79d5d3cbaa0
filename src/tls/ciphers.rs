//! OpenSSL's cipher language (openssl-ciphers(1)), as far as rustls has suites to choose from, and OpenSSL's names.

use rustls::{CipherSuite, NamedGroup, SupportedCipherSuite, crypto::aws_lc_rs::cipher_suite as rfc};

/// TLS 1.3's suites, which `ssl_ciphers` does not touch (as in OpenSSL).
static TLS13: [&SupportedCipherSuite; 3] =
    [&rfc::TLS13_AES_256_GCM_SHA384, &rfc::TLS13_AES_128_GCM_SHA256, &rfc::TLS13_CHACHA20_POLY1305_SHA256];

/// TLS 1.2's by OpenSSL's name and in the order an alias gives them: by strength, as OpenSSL's own list.
static TLS12: [(&str, &SupportedCipherSuite); 6] = [
    ("ECDHE-ECDSA-AES256-GCM-SHA384", &rfc::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384),
    ("ECDHE-RSA-AES256-GCM-SHA384", &rfc::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384),
    ("ECDHE-ECDSA-CHACHA20-POLY1305", &rfc::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256),
    ("ECDHE-RSA-CHACHA20-POLY1305", &rfc::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256),
    ("ECDHE-ECDSA-AES128-GCM-SHA256", &rfc::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256),
    ("ECDHE-RSA-AES128-GCM-SHA256", &rfc::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256),
];

/// Words of the language that stand for suites rustls leaves out as weak or unused: taking them away changes nothing.
const ABSENT: &[&str] = &[
    "aNULL",
    "eNULL",
    "NULL",
    "ADH",
    "AECDH",
    "EXP",
    "EXPORT",
    "EXPORT40",
    "EXPORT56",
    "LOW",
    "MEDIUM",
    "MD5",
    "SHA",
    "SHA1",
    "SHA256",
    "SHA384",
    "RC2",
    "RC4",
    "DES",
    "3DES",
    "IDEA",
    "SEED",
    "CAMELLIA",
    "CAMELLIA128",
    "CAMELLIA256",
    "ARIA",
    "ARIA128",
    "ARIA256",
    "ARIAGCM",
    "AESCCM",
    "AESCCM8",
    "CBC",
    "DSS",
    "aDSS",
    "DH",
    "DHE",
    "EDH",
    "kDH",
    "kDHE",
    "kEDH",
    "kDHd",
    "kDHr",
    "aDH",
    "ECDH",
    "kECDH",
    "kECDHe",
    "kECDHr",
    "aECDH",
    "RSA",
    "kRSA",
    "PSK",
    "kPSK",
    "aPSK",
    "kDHEPSK",
    "kECDHEPSK",
    "kRSAPSK",
    "SRP",
    "kSRP",
    "aSRP",
    "GOST",
    "aGOST",
    "KRB5",
    "kKRB5",
    "aKRB5",
    "FZA",
    "SSLv2",
    "SSLv3",
    "TLSv1",
    "TLSv1.0",
    "COMPLEMENTOFALL",
    "COMPLEMENTOFDEFAULT",
    "GOST94",
    "GOST89MAC",
    "kGOST",
    "aGOST01",
];

/// True when `word` (an alias or a name, OpenSSL's or the RFC's) stands for this suite.
fn names(word: &str, (name, suite): &(&str, &SupportedCipherSuite)) -> bool {
    match word {
        "ALL" | "DEFAULT" | "HIGH" | "TLSv1.2" | "ECDHE" | "EECDH" | "kECDHE" | "kEECDH" => true,
        "ECDSA" | "aECDSA" => name.contains("-ECDSA-"),
        "aRSA" => name.contains("-RSA-"),
        "AES" | "AESGCM" | "FIPS" => name.contains("-GCM-"),
        "AES128" | "AES256" | "CHACHA20" => name.contains(word),
        _ => word == *name || suite.suite().as_str() == Some(word),
    }
}

/// A word this table knows, whether or not a suite of ours answers to it.
fn known(word: &str) -> bool {
    // What the parts of OpenSSL's suite names are called, beside the aliases.
    const PARTS: &[&str] =
        &["GCM", "CCM", "CCM8", "CBC3", "POLY1305", "AES128", "AES256", "CHACHA20", "ECDHE", "ECDSA", "AES"];
    word.split('-').all(|part| PARTS.contains(&part) || ABSENT.contains(&part))
        || word.starts_with("TLS_")
        || TLS12.iter().any(|suite| names(word, suite))
}

/// The suites `list` leaves, in its order, TLS 1.3's first; and a note about words that gave nothing.
///
/// # Errors
/// No TLS 1.2 suite is left.
pub(super) fn choose(list: &str) -> Result<(Vec<SupportedCipherSuite>, Option<String>), String> {
    let mut alive: Vec<usize> = Vec::new();
    let mut killed = [false; TLS12.len()];
    let mut without_equal: Vec<&str> = Vec::new();

    for element in list.split([':', ',', ';', ' ']).filter(|element| !element.is_empty()) {
        let (operation, words) = match element.as_bytes()[0] {
            b'!' | b'-' | b'+' | b'@' => element.split_at(1),
            _ => ("", element),
        };
        let matching: Vec<usize> =
            (0..TLS12.len()).filter(|&i| words.split('+').all(|w| names(w, &TLS12[i]))).collect();
        match operation {
            "@" => {
                if words == "STRENGTH" {
                    alive.sort_by_key(|&i| TLS12[i].0.contains("AES128"));
                }
                continue;
            }
            "!" | "-" => {
                alive.retain(|i| !matching.contains(i));
                matching.iter().filter(|_| operation == "!").for_each(|&i| killed[i] = true);
            }
            "+" => {
                let (moved, kept): (Vec<_>, Vec<_>) = alive.iter().partition(|i| matching.contains(i));
                alive = kept;
                alive.extend(moved);
            }
            _ => {
                let new: Vec<usize> = matching.iter().copied().filter(|i| !killed[*i] && !alive.contains(i)).collect();
                alive.extend(new);
            }
        }
        let adds = operation.is_empty();
        let unknown = !words.split('+').all(known);
        if matching.is_empty() && (adds || unknown) && !without_equal.contains(&element) {
            without_equal.push(element);
        }
    }

    if alive.is_empty() {
        return Err(format!(
            "no cipher of \"{list}\" is available for TLSv1.2; there are {}",
            TLS12.map(|(name, _)| name).join(", ")
        ));
    }
    let note = (!without_equal.is_empty())
        .then(|| format!("ciphers without an equal here, left out: {}", without_equal.join(", ")));
    Ok((TLS13.into_iter().chain(alive.into_iter().map(|i| TLS12[i].1)).copied().collect(), note))
}

/// All suites, in rustls' order.
pub(super) fn all() -> Vec<SupportedCipherSuite> {
    rustls::crypto::aws_lc_rs::DEFAULT_CIPHER_SUITES.to_vec()
}

/// OpenSSL's name of a suite, as `$ssl_cipher` shows it.
pub(super) fn openssl_name(suite: CipherSuite) -> &'static str {
    match suite {
        CipherSuite::TLS13_AES_256_GCM_SHA384 => "TLS_AES_256_GCM_SHA384",
        CipherSuite::TLS13_AES_128_GCM_SHA256 => "TLS_AES_128_GCM_SHA256",
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => "TLS_CHACHA20_POLY1305_SHA256",
        other => TLS12.iter().find(|(_, suite)| suite.suite() == other).map_or("", |(name, _)| name),
    }
}

/// OpenSSL's name of a key exchange group, as `$ssl_curve` shows it.
pub(super) fn curve_name(group: NamedGroup) -> &'static str {
    match group {
        NamedGroup::secp256r1 => "prime256v1",
        other => other.as_str().unwrap_or(""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(list: &str) -> Vec<&'static str> {
        let (suites, _) = choose(list).expect(list);
        suites.iter().skip(TLS13.len()).map(|s| openssl_name(s.suite())).collect()
    }

    fn note(list: &str) -> Option<String> {
        choose(list).expect(list).1
    }

    #[test]
    fn names_keep_the_order_of_the_list() {
        assert_eq!(
            chosen("ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384"),
            ["ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384"]
        );
    }

    #[test]
    fn rfc_names_are_accepted_too() {
        assert_eq!(chosen("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"), ["ECDHE-RSA-AES128-GCM-SHA256"]);
    }

    #[test]
    fn nginx_default_and_its_usual_variants_give_all_suites_without_a_note() {
        for list in ["HIGH:!aNULL:!MD5", "HIGH:!aNULL:!MD5:!3DES", "DEFAULT", "ALL:!EXPORT:!LOW:!aNULL:!eNULL:!SSLv2"] {
            assert_eq!(chosen(list).len(), 6, "{list}");
            assert_eq!(note(list), None, "{list}");
        }
    }

    #[test]
    fn aliases_can_be_joined_with_plus() {
        assert_eq!(
            chosen("EECDH+AESGCM:EECDH+CHACHA20")[..3],
            ["ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-RSA-AES256-GCM-SHA384", "ECDHE-ECDSA-AES128-GCM-SHA256"]
        );
        assert_eq!(chosen("ECDHE+aRSA+AES128"), ["ECDHE-RSA-AES128-GCM-SHA256"]);
    }

    #[test]
    fn an_excluded_suite_does_not_come_back_but_a_removed_one_may() {
        assert!(!chosen("!CHACHA20:ALL").iter().any(|s| s.contains("CHACHA20")));
        assert_eq!(chosen("ALL:-CHACHA20:ECDHE-RSA-CHACHA20-POLY1305").last(), Some(&"ECDHE-RSA-CHACHA20-POLY1305"));
    }

    #[test]
    fn plus_moves_to_the_end_and_strength_sorts() {
        assert_eq!(chosen("ALL:+AES256")[4..], ["ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-RSA-AES256-GCM-SHA384"]);
        assert_eq!(
            chosen("ECDHE-RSA-AES128-GCM-SHA256:ECDHE-RSA-AES256-GCM-SHA384:@STRENGTH")[0],
            "ECDHE-RSA-AES256-GCM-SHA384"
        );
    }

    #[test]
    fn mozilla_intermediate_notes_the_suites_that_have_no_equal() {
        let list = "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:DHE-RSA-AES128-GCM-SHA256";
        assert_eq!(chosen(list).len(), 2);
        assert!(note(list).is_some_and(|n| n.contains("DHE-RSA-AES128-GCM-SHA256") && !n.contains("ECDHE")));
    }

    #[test]
    fn a_misspelt_exclusion_is_noted() {
        assert!(note("HIGH:!aNUL").is_some_and(|n| n.contains("!aNUL")));
        assert_eq!(note("HIGH:!DHE-RSA-AES128-SHA:!kRSA+AES"), None);
    }

    #[test]
    fn a_list_that_leaves_nothing_is_an_error_that_names_what_there_is() {
        for list in ["AES128-SHA", "RC4-MD5:!ALL", "!ALL", ":"] {
            assert!(choose(list).is_err_and(|e| e.contains("ECDHE-RSA-AES128-GCM-SHA256")), "{list}");
        }
    }

    #[test]
    fn every_suite_and_group_has_openssls_name() {
        for suite in all() {
            assert_ne!(openssl_name(suite.suite()), "", "{suite:?}");
        }
        assert_eq!(curve_name(NamedGroup::X25519), "X25519");
        assert_eq!(curve_name(NamedGroup::secp256r1), "prime256v1");
        assert_eq!(curve_name(NamedGroup::secp384r1), "secp384r1");
        assert_eq!(curve_name(NamedGroup::X25519MLKEM768), "X25519MLKEM768");
    }
}
