//! What a service answers, once it does.

use dunlin_harness::{eventually, http};

/// Waits until what is at `url` answers as it should, and returns the text.
pub async fn answer(url: &str) -> String {
    eventually(&format!("an answer of {url}"), || async {
        let response = http().get(url).send().await.map_err(|error| error.to_string())?;
        let status = response.status();
        let text = response.text().await.map_err(|error| error.to_string())?;
        if status.is_success() { Ok(text) } else { Err(format!("{status}: {text}")) }
    })
    .await
}
