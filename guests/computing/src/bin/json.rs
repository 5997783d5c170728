//! A job that parses JSON again and again: branches, calls and small allocations.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::hint::black_box;
use std::process::ExitCode;

const RECORDS: u32 = 2_000;
const TIMES: u32 = 60;

enum Value {
    Null,
    Truth(bool),
    Number(f64),
    Text(String),
    List(Vec<Value>),
    Table(BTreeMap<String, Value>),
}

fn main() -> ExitCode {
    let text = black_box(text());
    let mut total = 0.0;
    for _ in 0..TIMES {
        let mut parser = Parser { bytes: text.as_bytes(), place: 0 };
        match parser.value() {
            Some(value) => total += sum(&black_box(value)),
            None => return ExitCode::FAILURE,
        }
    }
    if black_box(total) > 0.0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn text() -> String {
    let mut text = String::from("[");
    for number in 0..RECORDS {
        if number > 0 {
            text.push(',');
        }
        let part = write!(
            text,
            "{{\"number\": {number}, \"name\": \"record \\\"{number}\\\" of many\", \"weight\": {}.25, \
             \"is_even\": {}, \"next\": null, \"parts\": [1, 2.5, -3e2, \"four\", {{\"five\": 5}}]}}",
            number * 7,
            number % 2 == 0
        );
        if part.is_err() {
            break;
        }
    }
    text.push(']');
    text
}

fn sum(value: &Value) -> f64 {
    match value {
        Value::Null => 0.0,
        Value::Truth(truth) => f64::from(u8::from(*truth)),
        Value::Number(number) => *number,
        Value::Text(text) => text.len() as f64,
        Value::List(values) => values.iter().map(sum).sum(),
        Value::Table(values) => values.values().map(sum).sum(),
    }
}

struct Parser<'a> {
    bytes: &'a [u8],
    place: usize,
}

impl Parser<'_> {
    fn peek(&mut self) -> Option<u8> {
        while self.bytes.get(self.place).is_some_and(u8::is_ascii_whitespace) {
            self.place += 1;
        }
        self.bytes.get(self.place).copied()
    }

    /// Takes this byte, if it comes next.
    fn take(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then(|| self.place += 1)
    }

    fn word(&mut self, word: &str, value: Value) -> Option<Value> {
        self.bytes[self.place..].starts_with(word.as_bytes()).then(|| {
            self.place += word.len();
            value
        })
    }

    fn value(&mut self) -> Option<Value> {
        match self.peek()? {
            b'{' => self.table(),
            b'[' => self.list(),
            b'"' => self.text().map(Value::Text),
            b'n' => self.word("null", Value::Null),
            b't' => self.word("true", Value::Truth(true)),
            b'f' => self.word("false", Value::Truth(false)),
            _ => self.number(),
        }
    }

    fn table(&mut self) -> Option<Value> {
        self.take(b'{')?;
        let mut values = BTreeMap::new();
        if self.take(b'}').is_some() {
            return Some(Value::Table(values));
        }
        loop {
            self.peek()?;
            let name = self.text()?;
            self.take(b':')?;
            values.insert(name, self.value()?);
            if self.take(b'}').is_some() {
                return Some(Value::Table(values));
            }
            self.take(b',')?;
        }
    }

    fn list(&mut self) -> Option<Value> {
        self.take(b'[')?;
        let mut values = Vec::new();
        if self.take(b']').is_some() {
            return Some(Value::List(values));
        }
        loop {
            values.push(self.value()?);
            if self.take(b']').is_some() {
                return Some(Value::List(values));
            }
            self.take(b',')?;
        }
    }

    fn text(&mut self) -> Option<String> {
        self.take(b'"')?;
        let mut text = Vec::new();
        loop {
            let byte = *self.bytes.get(self.place)?;
            self.place += 1;
            match byte {
                b'"' => return String::from_utf8(text).ok(),
                b'\\' => {
                    text.push(*self.bytes.get(self.place)?);
                    self.place += 1;
                }
                byte => text.push(byte),
            }
        }
    }

    fn number(&mut self) -> Option<Value> {
        let rest = &self.bytes[self.place..];
        let is_part = |byte: &u8| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
        let length = rest.iter().take_while(|byte| is_part(byte)).count();
        self.place += length;
        std::str::from_utf8(&rest[..length]).ok()?.parse().ok().map(Value::Number)
    }
}
