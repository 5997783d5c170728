//! How many header fields a message may have, and how large they may be together: what comes to a guest and what
//! leaves it.

use dunlin_model::{Bytes, LimitHit, Limits};
use http::HeaderMap;

/// Checks the header fields of one request or response.
pub fn check_headers(headers: &HeaderMap, limits: &Limits) -> Result<(), LimitHit> {
    let count = u32::try_from(headers.len()).unwrap_or(u32::MAX);
    if count > limits.headers {
        return Err(LimitHit::new("headers", limits.headers, count));
    }
    let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    let bytes = Bytes(bytes as u64);
    if bytes > limits.header_bytes {
        return Err(LimitHit::new("header_bytes", limits.header_bytes, bytes));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;

    #[test]
    fn fields_are_counted_and_measured() {
        let limits = Limits { headers: 2, header_bytes: Bytes(20), ..Limits::SERVICE };
        let mut headers = HeaderMap::new();
        headers.insert("a", "x".repeat(19).parse().unwrap());
        assert_eq!(check_headers(&headers, &limits), Ok(()));
        headers.append("a", "y".parse().unwrap());
        assert_eq!(
            check_headers(&headers, &limits).unwrap_err().to_string(),
            "limit `header_bytes` is 20B, observed 22B"
        );
        headers.insert(HeaderName::from_static("b"), "".parse().unwrap());
        assert_eq!(
            check_headers(&headers, &limits).unwrap_err().to_string(),
            "limit `headers` is 2, observed 3"
        );
    }
}
