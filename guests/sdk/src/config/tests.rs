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
         `capabilities.config` in dunlin.toml"
    );
    assert_eq!(
        mistake(&Host::new()),
        "configuration: `base-url` is missing and should be a text: write `base-url = \"…\"` under `capabilities.config` \
         in dunlin.toml"
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

#[test]
fn a_key_that_nobody_reads_is_told_if_the_type_wants_it() {
    let text = mistake(&host().config("retrys", "3"));
    assert!(
        text.starts_with("configuration: unknown field `retrys`, expected one of `base-url`, "),
        "{text}"
    );
}
