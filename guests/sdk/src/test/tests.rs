//! What is scripted is what a guest sees, and nothing else.

use super::*;
use crate::send;

async fn ask(method: &str, uri: &str) -> Result<String> {
    let request = http::Request::builder().method(method).uri(uri).body("question")?;
    let mut response = send(request).await?;
    let status = response.status().as_u16();
    Ok(format!("{status} {}", response.body_mut().text().await?))
}

fn status(code: u16, body: &str) -> Response {
    http::Response::builder().status(code).body(body.into()).unwrap()
}

#[test]
fn answers_are_given_in_turn_and_the_last_one_stays() {
    let host = Host::new().answer("GET", "https://a.example/", status(503, "wait")).answer(
        "GET",
        "https://a.example/",
        status(200, "here"),
    );
    let heard = host.run(async {
        let mut heard = Vec::new();
        for _ in 0..3 {
            heard.push(ask("GET", "https://a.example/").await.unwrap());
        }
        heard
    });
    assert_eq!(heard, ["503 wait", "200 here", "200 here"]);
    let sent = host.sent();
    assert_eq!(sent.len(), 3);
    assert_eq!((sent[0].uri.path(), sent[0].body.as_slice()), ("/", b"question".as_slice()));
    assert_eq!(sent[0].headers["content-length"], "8");
}

#[test]
fn an_unexpected_request_is_told_what_was_scripted() {
    let host = Host::new().answer("GET", "https://a.example/x", status(200, ""));
    let error = host.run(ask("POST", "https://a.example/x")).unwrap_err();
    assert_eq!(
        format!("{error:#}"),
        "cannot send POST https://a.example/x: the test has no answer to POST https://a.example/x; what it scripts: \
         GET https://a.example/x"
    );
    let error = Host::new().run(ask("GET", "https://b.example/")).unwrap_err();
    assert!(format!("{error:#}").ends_with("what it scripts: nothing"));
}

#[test]
fn a_denied_request_is_told_which_line_would_grant_it() {
    let host = Host::new().fail("GET", "http://a.example:81/x", ErrorCode::HttpRequestDenied);
    let error = host.run(ask("GET", "http://a.example:81/x")).unwrap_err();
    let text = format!("{error:#}");
    assert!(
        text.contains("add `outbound_http = [\"http://a.example:81\"]` to the capabilities in dunlin.toml"),
        "{text}"
    );
}

#[test]
fn without_a_host_nothing_is_there() {
    let error = block_on(ask("GET", "https://a.example/")).unwrap_err();
    assert!(format!("{error:#}").contains("there is no host here"));
    assert_eq!(crate::config::get("anything").unwrap(), None);
}

#[test]
fn log_lines_belong_to_the_host_they_were_written_with() {
    let (one, two) = (Host::new(), Host::new());
    one.within(|| platform::log(log_level::Level::Info, "a", "x"));
    two.within(|| platform::log(log_level::Level::Warn, "b", "y"));
    assert_eq!((one.log(), two.log()), (vec!["INFO a: x".to_owned()], vec!["WARN b: y".to_owned()]));
}

#[cfg(feature = "log")]
#[test]
fn the_level_of_tests_is_info_whatever_the_variable_says() {
    for level in ["trace", "off", "nonsense"] {
        let mut again = std::process::Command::new(std::env::current_exe().unwrap());
        again.args(["--exact", "test::tests::what_the_crate_log_is_told_is_in_the_log"]);
        let output = again.env("LOG_LEVEL", level).output().unwrap();
        let told = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && told.contains("1 passed"), "{level}: {told}");
    }
}

#[cfg(feature = "log")]
#[test]
fn what_the_crate_log_is_told_is_in_the_log() {
    let host = Host::new();
    host.within(|| {
        log::info!(target: "greeter", "{} guests", 3);
        log::debug!("not wanted");
    });
    assert_eq!(host.log(), ["INFO greeter: 3 guests"]);
}
