//! The job of the quickstart: counts the words of one file, and adds up the counts of all of them.
//!
//! For each item Dunlin starts it with the item's name as first argument and the file on standard input.
//! After the last item it is started once more, with `--combine`, and reads what all the others have written.
//! It is a plain program: nothing in it knows of Dunlin.

use std::io::{self, BufRead, Read};

fn main() -> io::Result<()> {
    match std::env::args().nth(1).as_deref() {
        Some("--combine") => combine(io::stdin().lock()),
        name => count(name.unwrap_or("standard input"), io::stdin().lock()),
    }
}

/// Prints how many words there are. A word is what stands between white space, in whatever encoding.
fn count(name: &str, mut input: impl Read) -> io::Result<()> {
    let mut words: u64 = 0;
    let mut in_word = false;
    let mut buffer = vec![0; 64 << 10];
    loop {
        let length = input.read(&mut buffer)?;
        if length == 0 {
            break;
        }
        for byte in &buffer[..length] {
            let is_part = !byte.is_ascii_whitespace();
            words += u64::from(is_part && !in_word);
            in_word = is_part;
        }
    }
    println!("{words} {name}");
    Ok(())
}

/// Adds up the lines which [`count`] printed. A line that is not one of them is left out.
fn combine(input: impl BufRead) -> io::Result<()> {
    let mut sum: u64 = 0;
    let mut files: u64 = 0;
    for line in input.split(b'\n') {
        let line = String::from_utf8_lossy(&line?).into_owned();
        let Some(Ok(words)) = line.split_once(' ').map(|(words, _)| words.parse::<u64>()) else { continue };
        sum = sum.saturating_add(words);
        files += 1;
    }
    println!("total {sum} words in {files} files");
    Ok(())
}
