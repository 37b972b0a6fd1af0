//! The elements of an array of keys, in text and binary form.

use crate::shardmap::{KeyType, KeyValue};
use crate::sql::plan::Cast;

use super::value::{Fault, from_text, int, numeric_bytes, oid, shown, trim};

/// The elements of an array in text form (arrayfuncs.c, `array_in`), one dimension.
pub(super) fn array_text(
    bytes: &[u8],
    casts: &[Cast],
    key_type: KeyType,
    element: &mut dyn FnMut(KeyValue<'_>) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let fault = || Fault::Unusable(format!("{:?} is no list of keys", shown(bytes)));
    let [b'{', inner @ .., b'}'] = trim(bytes) else {
        return Err(fault());
    };
    if trim(inner).is_empty() {
        return Ok(());
    }
    let mut at = 0;
    let mut buffer = Vec::new();
    loop {
        while inner.get(at).is_some_and(|b| b.is_ascii_whitespace()) {
            at += 1;
        }
        buffer.clear();
        let quoted = inner.get(at) == Some(&b'"');
        if quoted {
            at += 1;
            loop {
                match inner.get(at).ok_or_else(fault)? {
                    b'"' => break,
                    b'\\' => {
                        buffer.push(*inner.get(at + 1).ok_or_else(fault)?);
                        at += 2;
                    }
                    b => {
                        buffer.push(*b);
                        at += 1;
                    }
                }
            }
            at += 1;
            while inner.get(at).is_some_and(|b| b.is_ascii_whitespace()) {
                at += 1;
            }
        } else {
            while let Some(b) = inner.get(at).filter(|b| **b != b',') {
                if matches!(b, b'{' | b'}' | b'"' | b'\\') {
                    return Err(fault());
                }
                buffer.push(*b);
                at += 1;
            }
        }
        let value = if quoted { &buffer[..] } else { trim(&buffer) };
        if quoted || !value.eq_ignore_ascii_case(b"null") {
            if value.is_empty() && !quoted {
                return Err(fault());
            }
            from_text(value, casts, key_type, &mut *element)?;
        }
        match inner.get(at) {
            None => return Ok(()),
            Some(b',') => at += 1,
            Some(_) => return Err(fault()),
        }
    }
}

/// The elements of an array in binary form (arrayfuncs.c, `array_send`), one dimension. It states its element type.
pub(super) fn array_binary(
    bytes: &[u8],
    key_type: KeyType,
    element: &mut dyn FnMut(KeyValue<'_>) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let fault = || Fault::Unusable("the array is no list of keys".to_owned());
    let word = |at: usize| -> Result<u32, Fault> {
        let bytes = bytes.get(at..at + 4).ok_or_else(fault)?;
        Ok(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    };
    let (dimensions, element_oid) = (word(0)?, word(8)?);
    match dimensions {
        0 => return Ok(()),
        1 => {}
        _ => return Err(fault()),
    }
    let count = word(12)?;
    let mut at = 20;
    for _ in 0..count {
        let len = word(at)? as i32;
        at += 4;
        let Ok(len) = usize::try_from(len) else {
            continue;
        };
        let value = bytes.get(at..at + len).ok_or_else(fault)?;
        at += len;
        match (element_oid, key_type) {
            (oid::INT2 | oid::INT4 | oid::INT8, KeyType::Int) => {
                element(KeyValue::Int(int(value).ok_or_else(fault)?))?;
            }
            (oid::NUMERIC, KeyType::Int) => {
                element(KeyValue::Int(numeric_bytes(value).ok_or_else(fault)?))?
            }
            (oid::TEXT | oid::VARCHAR, KeyType::Text) => {
                element(KeyValue::Text(
                    std::str::from_utf8(value).map_err(|_| fault())?,
                ))?;
            }
            (oid::UUID, KeyType::Uuid) => {
                element(KeyValue::Uuid(value.try_into().map_err(|_| fault())?))?
            }
            _ => return Err(fault()),
        }
    }
    if at == bytes.len() {
        Ok(())
    } else {
        Err(fault())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_in_text() {
        let ints = |text: &str| {
            let mut found = Vec::new();
            array_text(text.as_bytes(), &[], KeyType::Int, &mut |value| {
                if let KeyValue::Int(n) = value {
                    found.push(n);
                }
                Ok(())
            })
            .map(|()| found)
        };
        assert_eq!(ints("{1,2}"), Ok(vec![1, 2]));
        assert_eq!(ints(" { 1 , \"2\" ,NULL} "), Ok(vec![1, 2]));
        assert_eq!(ints("{}"), Ok(vec![]));
        for bad in [
            "",
            "1,2",
            "{1,2",
            "{1,,2}",
            "{{1}}",
            "{1}}",
            "[0:1]={1,2}",
            "{\"1}",
            "{1.5}",
        ] {
            assert!(ints(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn arrays_in_binary() {
        let mut bytes = Vec::new();
        for word in [1u32, 1, oid::INT4, 3, 1] {
            bytes.extend(word.to_be_bytes());
        }
        for value in [Some(7i32), None, Some(-1)] {
            match value {
                Some(value) => {
                    bytes.extend(4u32.to_be_bytes());
                    bytes.extend(value.to_be_bytes());
                }
                None => bytes.extend((-1i32).to_be_bytes()),
            }
        }
        let read = |bytes: &[u8], key_type| {
            let mut found = Vec::new();
            array_binary(bytes, key_type, &mut |value| {
                found.push(format!("{value:?}"));
                Ok(())
            })
            .map(|()| found)
        };
        assert_eq!(
            read(&bytes, KeyType::Int),
            Ok(vec!["Int(7)".to_owned(), "Int(-1)".to_owned()])
        );
        assert!(read(&bytes, KeyType::Text).is_err());
        for len in 0..bytes.len() {
            assert!(read(&bytes[..len], KeyType::Int).is_err(), "{len}");
        }
    }
}
