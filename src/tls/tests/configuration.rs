//! Certificates, keys and options that cannot be used, and what is said about them.

use super::*;

fn errors(options: &ServerTlsOptions) -> Vec<TlsConfigError> {
    ServerTls::build(options).expect_err("unusable")
}

/// The single error of a server whose certificate or key file has this content.
fn error_of(file: &str, content: &[u8]) -> TlsConfigError {
    let identity = Identity::new("a.example");
    fs::write(identity.dir.path().join(file), content).expect("written");
    let mut errors = errors(&identity.options());
    assert_eq!(errors.len(), 1, "{errors:?}");
    errors.remove(0)
}

#[track_caller]
fn assert_says(error: &TlsConfigError, directive: &str, words: &[&str]) {
    assert_eq!(error.directive, directive, "{}", error.message);
    for word in words {
        assert!(error.message.contains(word), "{:?} lacks {word:?}", error.message);
    }
}

#[test]
fn missing_files_are_all_named() {
    let files = |n: u8| (format!("/nonexistent/{n}.crt").into(), format!("/nonexistent/{n}.key").into());
    let options =
        ServerTlsOptions { certificates: vec![files(0), files(1)], tls12: true, tls13: true, ..Default::default() };
    let errors = errors(&options);
    assert_eq!(errors.len(), 4);
    assert_says(&errors[0], "ssl_certificate", &["cannot open \"/nonexistent/0.crt\"", "No such file"]);
    assert_says(&errors[3], "ssl_certificate_key", &["cannot open \"/nonexistent/1.key\""]);
    assert_eq!(errors[3].index, 1);
}

#[test]
fn files_without_an_end_are_refused() {
    let identity = Identity::new("a.example");
    let endless = || "/dev/zero".into();
    let options = ServerTlsOptions { certificates: vec![(endless(), endless())], ..identity.options() };
    for (error, directive) in errors(&options).iter().zip(["ssl_certificate", "ssl_certificate_key"]) {
        assert_says(error, directive, &["\"/dev/zero\" is larger than 4194304 bytes"]);
    }
}

#[test]
fn exchanged_files_are_recognised() {
    let identity = Identity::new("a.example");
    let exchanged = (identity.key(), identity.certificate());
    let errors = errors(&ServerTlsOptions { certificates: vec![exchanged], ..identity.options() });
    assert_says(&errors[0], "ssl_certificate", &["has no certificate", "exchanged"]);
    assert_says(&errors[1], "ssl_certificate_key", &["has no usable private key", "exchanged"]);
}

#[test]
fn a_key_of_another_certificate_is_refused() {
    let (a, b) = (Identity::new("a.example"), Identity::new("b.example"));
    let errors = errors(&ServerTlsOptions { certificates: vec![(a.certificate(), b.key())], ..a.options() });
    assert_says(&errors[0], "ssl_certificate_key", &["does not match the certificate in"]);
}

#[test]
fn a_chain_in_the_wrong_order_is_explained() {
    let (leaf, issuer) = (Identity::new("a.example"), Identity::new("ca.example"));
    let read = |identity: &Identity| fs::read(identity.certificate()).expect("read");
    fs::write(leaf.certificate(), [read(&issuer), read(&leaf)].concat()).expect("written");
    assert_says(&errors(&leaf.options())[0], "ssl_certificate_key", &["certificate 2 of", "must come first"]);
}

#[test]
fn a_chain_behind_the_certificate_is_sent_along() {
    let (leaf, issuer) = (Identity::new("a.example"), Identity::new("ca.example"));
    let read = |identity: &Identity| fs::read(identity.certificate()).expect("read");
    fs::write(leaf.certificate(), [read(&leaf), read(&issuer)].concat()).expect("written");
    let (_, theirs) = connected(&leaf.server(), leaf.client(&VERSIONS), "a.example");
    assert_eq!(theirs.connection.peer_certificates().map(<[_]>::len), Some(2));
}

#[test]
fn damaged_and_foreign_files_get_a_cause() {
    assert_says(&error_of("cert.pem", b"hello"), "ssl_certificate", &["BEGIN CERTIFICATE"]);
    assert_says(&error_of("cert.pem", b""), "ssl_certificate", &["BEGIN CERTIFICATE"]);
    assert_says(&error_of("cert.pem", b"\x30\x82\x01\x02"), "ssl_certificate", &["DER", "openssl x509"]);
    let cut = b"-----BEGIN CERTIFICATE-----\nMIIB\n";
    assert_says(&error_of("cert.pem", cut), "ssl_certificate", &["damaged", "END"]);
    let odd = b"-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n";
    assert_says(&error_of("cert.pem", odd), "ssl_certificate", &["damaged", "base64"]);
    let nonsense = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    assert_says(&error_of("cert.pem", nonsense), "ssl_certificate", &["no X.509 certificate"]);
    assert_says(&error_of("key.pem", b"hello"), "ssl_certificate_key", &["BEGIN PRIVATE KEY"]);
    assert_says(&error_of("key.pem", b"\x30\x82\x01\x02"), "ssl_certificate_key", &["DER", "openssl pkey"]);
    let nonsense = b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    assert_says(&error_of("key.pem", nonsense), "ssl_certificate_key", &["cannot use the private key", "ECDSA"]);
}

#[test]
fn encrypted_keys_are_explained() {
    let pkcs8 = b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    assert_says(&error_of("key.pem", pkcs8), "ssl_certificate_key", &["encrypted", "openssl pkey"]);
    let old = b"-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,AA\n\nAAAA\n-----END RSA PRIVATE KEY-----\n";
    assert_says(&error_of("key.pem", old), "ssl_certificate_key", &["encrypted", "openssl pkey"]);
}

#[test]
fn dates_are_noted() {
    let note = |from: (i32, u8, u8), until: (i32, u8, u8)| {
        let mut params = rcgen::CertificateParams::new(["a.example".to_owned()]).expect("params");
        params.not_before = rcgen::date_time_ymd(from.0, from.1, from.2);
        params.not_after = rcgen::date_time_ymd(until.0, until.1, until.2);
        let identity = Identity::with(params, &rcgen::PKCS_ECDSA_P256_SHA256);
        ServerTls::build(&identity.options()).expect("usable all the same").1
    };
    assert!(note((2020, 1, 1), (2021, 1, 1))[0].contains("expired on"));
    assert!(note((2090, 1, 1), (2091, 1, 1))[0].contains("not valid before"));
    assert!(note((2020, 1, 1), (2090, 1, 1)).is_empty());
}

#[test]
fn ciphers_are_judged_only_where_they_matter() {
    let identity = Identity::new("a.example");
    let with = |ciphers: &str, tls12| ServerTlsOptions { ciphers: ciphers.into(), tls12, ..identity.options() };
    assert_says(&errors(&with("AES128-SHA", true))[0], "ssl_ciphers", &["AES128-SHA", "TLSv1.2"]);
    assert!(ServerTls::build(&with("AES128-SHA", false)).is_ok());
    let (_, notes) = ServerTls::build(&with("ECDHE-RSA-AES128-GCM-SHA256", true)).expect("built");
    assert!(notes[0].contains("fits the certificate"), "{notes:?}");
}

#[test]
fn old_protocols_alone_are_an_error_beside_all_others() {
    let options =
        ServerTlsOptions { certificates: vec![("/nonexistent".into(), "/nonexistent".into())], ..Default::default() };
    let errors = errors(&options);
    assert_says(&errors[0], "ssl_protocols", &["TLSv1.2 TLSv1.3"]);
    assert_eq!(errors.len(), 3);
}

#[test]
fn a_server_without_certificate_says_so() {
    let options = ServerTlsOptions { tls13: true, ..Default::default() };
    assert_says(&errors(&options)[0], "ssl_certificate", &["no \"ssl_certificate\" is defined"]);
}
