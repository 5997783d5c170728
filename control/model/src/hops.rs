//! How many services a request has gone through, one asking the other by HTTP: told in a header, so that a loop of them
//! ends wherever its parts run.

/// The request header with the number. The host writes it on every request of a guest, one more than on the request
/// that its instance answers; no guest can.
pub const HOPS_HEADER: &str = "dunlin-hops";
/// G22: a request that has gone through so many services is refused.
pub const MAX_HOPS: u32 = 16;

/// Returns how many hops the values of the header tell of: the most of them, and none where there is no number. What is
/// not a number was not written by a host.
pub fn hops<'a>(values: impl Iterator<Item = &'a [u8]>) -> u32 {
    let number = |value: &'a [u8]| {
        let text = std::str::from_utf8(value).ok()?;
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        // One that does not fit is larger than any.
        is_number.then(|| text.parse().unwrap_or(u32::MAX))
    };
    values.filter_map(number).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_hops_of_all_values_count_and_what_is_no_number_does_not() {
        let of = |values: &[&str]| hops(values.iter().map(|value| value.as_bytes()));
        assert_eq!([of(&[]), of(&["3"]), of(&["3", "15", "4"])], [0, 3, 15]);
        assert_eq!([of(&[""]), of(&["-1"]), of(&["x", "2"]), of(&["1 6"])], [0, 0, 2, 0]);
        assert_eq!(of(&["99999999999999999999"]), u32::MAX);
    }
}
