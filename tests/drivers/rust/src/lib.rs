//! What the programs of this package share: the values that all steps use, and how a step is said (see `../steps.txt`).

use std::fmt::Debug;

pub type Fault = Box<dyn std::error::Error + Send + Sync>;
pub type Went = Result<(), Fault>;

pub const TEXT: &str = "Grüße 東京 🚀 \\ ' \" $1 %s -- /* {} \\N \t.";
pub const PRICE: &str = "12345678901234.567891";
pub const BIG: &str = "1234567890123456789012345678901234567890.0123456789";

pub fn url() -> String {
    std::env::var("DATABASE_URL").unwrap_or_default()
}

pub fn first() -> i64 {
    let first = std::env::var("FIRST").ok();
    first.and_then(|first| first.parse().ok()).unwrap_or(1000)
}

pub fn users() -> Vec<i64> {
    (first()..first() + 16).collect()
}

pub fn numbers() -> Vec<Option<i32>> {
    vec![Some(1), None, Some(-3), Some(i32::MAX)]
}

pub fn words() -> Vec<Option<String>> {
    let some = |s: &str| Some(s.to_owned());
    vec![some("a"), some("b c"), some("quo\"te"), some(""), None, some("NULL"), some("ünï,{}\\")]
}

pub fn data() -> serde_json::Value {
    serde_json::json!({"a": 1, "b": [true, null, "ü'\"\\"], "c": {"x": 1.5}})
}

pub fn bytes() -> Vec<u8> {
    (0..=255).collect()
}

pub fn same<T: PartialEq<E> + Debug, E: Debug>(got: T, expected: E) -> Went {
    match got == expected {
        true => Ok(()),
        false => Err(format!("got {got:?}, expected {expected:?}").into()),
    }
}

/// One line for a step; whether it went well.
pub fn said(step: &str, went: Went) -> bool {
    match went {
        Ok(()) => println!("ok {step}"),
        Err(why) => {
            let why = why.to_string();
            match why.strip_prefix("none: ") {
                Some(reason) => println!("none {step}: {reason}"),
                None => {
                    let why: Vec<&str> = why.split_whitespace().collect();
                    println!("fail {step}: {}", why.join(" "));
                    return false;
                }
            }
        }
    }
    true
}
