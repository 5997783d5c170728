//! What a configuration gives, and what is said where it does not fit.

use serde::Deserialize;

use super::*;
use crate::test::Host;

#[derive(Debug, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Config {
    base_url: String,
    retries: u8,
    #[serde(default)]
    is_loud: bool,
    share: Option<f64>,
    mode: Option<Mode>,
    token: Option<Token>,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Mode {
    Fast,
    Careful,
}

#[derive(Debug, PartialEq, Deserialize)]
struct Token(u64);

fn host() -> Host {
    Host::new().config("base-url", "https://a.example").config("retries", "3")
}

fn mistake(host: &Host) -> String {
    host.within(config::<Config>).unwrap_err().to_string()
}

#[test]
fn each_value_becomes_what_its_field_wants() {
    let host = host()
        .config("is-loud", "true")
        .config("share", "0.5")
        .config("mode", "careful")
        .secret("token", "7");
    assert_eq!(
        host.within(config::<Config>).unwrap(),
        Config {
            base_url: "https://a.example".to_owned(),
            retries: 3,
            is_loud: true,
            share: Some(0.5),
            mode: Some(Mode::Careful),
            token: Some(Token(7)),
        }
    );
}

#[test]
fn what_may_be_missing_may_be_missing() {
    let config: Config = host().within(config).unwrap();
    assert_eq!((config.is_loud, config.share, config.mode, config.token), (false, None, None, None));
}

#[test]
fn a_map_has_all_values_and_no_secrets() {
    let values: std::collections::BTreeMap<String, String> =
        host().secret("KEY", "hunter2").within(config).unwrap();
    assert_eq!(values.into_keys().collect::<Vec<_>>(), ["base-url", "retries"]);
}

#[test]
fn a_missing_key_is_told_with_the_type_it_should_have() {
    assert_eq!(
        mistake(&Host::new().config("base-url", "x")),
        "configuration: `retries` is missing and should be a whole number from 0 to 255: write `retries = \"1\"` under \
         `capabilities.config` in dunlin.toml, or, if it is a secret, `secrets = [\"retries\"]` under `capabilities` and \
         `dunlin secret set retries`"
    );
    assert_eq!(
        mistake(&Host::new()),
        "configuration: `base-url` is missing and should be a text: write `base-url = \"…\"` under `capabilities.config` \
         in dunlin.toml, or, if it is a secret, `secrets = [\"base-url\"]` under `capabilities` and `dunlin secret set \
         base-url`"
    );
}

#[test]
fn an_unfit_value_is_told_with_what_it_should_be() {
    assert_eq!(
        mistake(&host().config("retries", "300")),
        "configuration: `retries` is `300` and should be a whole number from 0 to 255: write `retries = \"1\"` under \
         `capabilities.config` in dunlin.toml"
    );
    assert_eq!(
        mistake(&host().config("mode", "lazy")),
        "configuration: `mode` is `lazy` and should be one of `fast`, `careful`: write `mode = \"fast\"` under \
         `capabilities.config` in dunlin.toml"
    );
}

#[test]
fn the_value_of_a_secret_is_in_no_message() {
    assert_eq!(
        mistake(&host().secret("token", "hunter2")),
        "configuration: the secret `token` should be a whole number from 0 to 18446744073709551615: set it again with \
         `dunlin secret set token`"
    );
}

/// A key of sixteen digits. Its error quotes what it was given.
#[derive(Debug, Deserialize)]
#[serde(try_from = "String")]
struct Key;

impl TryFrom<String> for Key {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Err(format!("`{text}` has no sixteen digits"))
    }
}

#[derive(Debug, Deserialize)]
struct WithKey {
    #[expect(dead_code, reason = "it is only read")]
    key: Key,
}

#[test]
fn what_a_type_says_of_a_secret_is_in_no_message() {
    let error = Host::new().secret("key", "hunter2").within(config::<WithKey>).unwrap_err();
    assert_eq!(
        error.to_string(),
        "configuration: the secret `key` is not what its field wants: set it again with `dunlin secret set key`"
    );
    assert!(!format!("{error:?}").contains("hunter2"));
    let error = Host::new().config("key", "12").within(config::<WithKey>).unwrap_err();
    assert!(error.to_string().contains("`12` has no sixteen digits"), "{error}");
}

#[test]
fn nor_is_what_says_the_type_of_the_whole() {
    #[derive(Debug, Deserialize)]
    #[serde(try_from = "Raw")]
    struct Checked;

    #[derive(Deserialize)]
    struct Raw {
        key: String,
    }

    impl TryFrom<Raw> for Checked {
        type Error = String;

        fn try_from(raw: Raw) -> Result<Self, String> {
            Err(format!("a key `{}`", raw.key))
        }
    }

    let error = Host::new().secret("key", "hunter2").within(config::<Checked>).unwrap_err();
    assert!(matches!(&error, ConfigError::UnfitSecret { key } if key == "key"), "{error}");
}

#[test]
fn a_key_that_nobody_reads_is_told_if_the_type_wants_it() {
    let text = mistake(&host().config("retrys", "3"));
    assert!(
        text.starts_with("configuration: unknown field `retrys`, expected one of `base-url`, "),
        "{text}"
    );
}
