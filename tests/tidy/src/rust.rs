//! Checks of Rust text. They read lines, not syntax: rustfmt has put every item where a line tells it.

/// Returns the lines of a `lib.rs` which are neither documentation nor attribute, `mod` or re-export.
pub fn stray_items(text: &str) -> Vec<(usize, String)> {
    let mut stray = Vec::new();
    let mut open_until: Option<char> = None;
    for (number, line) in numbered(text) {
        let line = line.trim();
        if let Some(end) = open_until {
            if line.ends_with(end) {
                open_until = None;
            }
            continue;
        }
        let is_attribute = line.starts_with("#[") || line.starts_with("#!");
        let visible = ["pub(crate) ", "pub "].iter().find_map(|word| line.strip_prefix(word));
        let is_module = visible.unwrap_or(line).starts_with("mod ") && line.ends_with(';');
        let is_export = visible.is_some_and(|rest| rest.starts_with("use "));
        if is_attribute && !line.ends_with(']') {
            open_until = Some(']');
        } else if is_export && !line.ends_with(';') {
            open_until = Some(';');
        } else if !(line.is_empty() || line.starts_with("//") || is_attribute || is_module || is_export) {
            stray.push((number, line.to_owned()));
        }
    }
    stray
}

/// Returns the lines with the word `unsafe` in code.
pub fn unsafe_lines(text: &str) -> Vec<usize> {
    let word = concat!("un", "safe");
    let has_word = |line: &str| {
        let code = line.split("//").next().unwrap_or_default();
        // A word in a text is not code; what follows the first quote is left out.
        let code = code.split('"').next().unwrap_or_default();
        code.split(|letter: char| !(letter.is_alphanumeric() || letter == '_')).any(|found| found == word)
    };
    numbered(text).filter(|(_, line)| has_word(line)).map(|(number, _)| number).collect()
}

/// Returns the lines with attributes which let a test pass unseen.
pub fn forbidden_tests(text: &str) -> Vec<usize> {
    let forbidden = [concat!("#[", "ignore"), concat!("#[", "should_panic")];
    let is_one = |line: &str| forbidden.iter().any(|attribute| line.trim_start().starts_with(attribute));
    numbered(text).filter(|(_, line)| is_one(line)).map(|(number, _)| number).collect()
}

/// Returns the lines which name a folder of somebody's machine.
pub fn absolute_paths(text: &str) -> Vec<usize> {
    let folders = [concat!("/", "home/"), concat!("/", "root/"), concat!("/", "work/")];
    // Within a longer path or address (`src/work/`, `~/work/`) the same letters mean something else.
    let goes_on = |before: &str| {
        before.ends_with(|letter: char| letter.is_alphanumeric() || "._-~*})/".contains(letter))
    };
    let has_one = |line: &str| {
        folders.iter().any(|folder| line.match_indices(folder).any(|(place, _)| !goes_on(&line[..place])))
    };
    numbered(text).filter(|(_, line)| has_one(line)).map(|(number, _)| number).collect()
}

fn numbered(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(index, line)| (index + 1, line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_in_a_lib_file_is_stray() {
        let good = "//! Docs.\n#![cfg_attr(\n    x,\n    y\n)]\n\nmod a;\npub mod b;\n#[cfg(test)]\nmod c;\npub use a::{\n    A,\n    B,\n};\n";
        assert_eq!(stray_items(good), []);
        let bad = "//! Docs.\nuse std::fs;\npub fn f() {}\nmod inline {\n}\n";
        let lines: Vec<usize> = stray_items(bad).into_iter().map(|(number, _)| number).collect();
        assert_eq!(lines, [2, 3, 4, 5]);
    }

    #[test]
    fn the_word_counts_in_code_only() {
        let word = concat!("un", "safe");
        let text =
            format!("// {word}\nlet x = {word} {{ f() }};\n\"{word}\"\n{word}_code\n{word} fn f() {{}}\n");
        assert_eq!(unsafe_lines(&text), [2, 5]);
    }

    #[test]
    fn folders_of_a_machine_are_found_and_others_are_not() {
        let text = format!("\"/{0}/me\"\nsrc/{0}/me\n~/{0}/x\ncd /{0}/x\n", "work");
        assert_eq!(absolute_paths(&text), [1, 4]);
    }

    #[test]
    fn hidden_tests_are_found() {
        assert_eq!(
            forbidden_tests(concat!("#[test]\n  #[", "ignore]\n#[", "should_panic(expected = \"x\")]")),
            [2, 3]
        );
    }
}
