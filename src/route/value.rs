//! A key's value out of a literal or parameter, in every form that Postgres reads as the same value. What it would
//! round, cut or pad is refused: such a value is equal to another key than it seems.

use crate::shardmap::{KeyType, KeyValue, ShardId, ShardMap};
use crate::sql::literal::literal_value;
use crate::sql::plan::{Cast, Const, ConstFrom};
use crate::sql::shape::HoleKind;

use super::array::{array_binary, array_text};
use super::rules::{Carries, KeyConst, Typed};
use super::{Format, Param, Values};

/// Why a value gives no shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// It is NULL.
    Null,
    /// Bind gives no such parameter, or there are none (simple protocol).
    Missing(u16),
    /// The parameter's type is not known for sure, and its binary form could be read in two ways.
    Untyped(u16),
    /// It is no value of the key's type.
    Unusable(String),
    /// As an id it would be of no shard of this map: no row has it.
    NoSuchId(i64),
}

/// Type OIDs of Postgres' catalog (pg_type.dat).
pub(super) mod oid {
    pub(in crate::route) const INT8: u32 = 20;
    pub(in crate::route) const INT2: u32 = 21;
    pub(in crate::route) const INT4: u32 = 23;
    pub(in crate::route) const TEXT: u32 = 25;
    pub(in crate::route) const UNKNOWN: u32 = 705;
    pub(in crate::route) const VARCHAR: u32 = 1043;
    pub(in crate::route) const NUMERIC: u32 = 1700;
    pub(in crate::route) const UUID: u32 = 2950;
}

/// The shard of a value that a column equals.
pub(super) fn shard(
    key: &KeyConst,
    carries: Carries,
    values: &Values<'_>,
    map: &ShardMap,
) -> Result<ShardId, Fault> {
    with_key(key, carries.key_type(), values, |value| {
        shard_of(&value, carries, map)
    })
}

/// The shard of a key that was made.
pub(super) fn shard_of_made(key: Option<i64>, map: &ShardMap) -> Result<ShardId, Fault> {
    let key = key.ok_or(Fault::Null)?;
    shard_of(&KeyValue::Int(key), Carries::Key(KeyType::Int), map)
}

/// The shard of each element of an array; nulls are left out, as they equal nothing.
pub(super) fn shards_of_array(
    key: &KeyConst,
    carries: Carries,
    values: &Values<'_>,
    map: &ShardMap,
    mut found: impl FnMut(ShardId),
) -> Result<(), Fault> {
    let key_type = carries.key_type();
    let mut element = |value: KeyValue<'_>| {
        match shard_of(&value, carries, map) {
            Ok(shard) => found(shard),
            Err(Fault::NoSuchId(_)) => {}
            Err(other) => return Err(other),
        }
        Ok(())
    };
    match key.at.from {
        ConstFrom::Null => Err(Fault::Null),
        ConstFrom::Hole(hole) => {
            let hole = &values.holes[hole as usize];
            let text = literal_value(values.text, hole)
                .ok_or_else(|| unusable_literal(values, hole.start, hole.end))?;
            array_text(&text, &key.at.casts, key_type, &mut element)
        }
        ConstFrom::Param(n) => {
            let param = param(n, values)?;
            let Some(bytes) = param.value else {
                return Err(Fault::Null);
            };
            match param.format {
                Format::Text => array_text(bytes, &key.at.casts, key_type, &mut element),
                Format::Binary => array_binary(bytes, key_type, &mut element),
            }
        }
    }
}

pub(super) fn shard_of(
    value: &KeyValue<'_>,
    carries: Carries,
    map: &ShardMap,
) -> Result<ShardId, Fault> {
    match (carries, value) {
        (Carries::Id, KeyValue::Int(id)) => map.shard_of_id(*id).ok_or(Fault::NoSuchId(*id)),
        (Carries::Id, _) => Err(Fault::Unusable("an id is a bigint".to_owned())),
        (Carries::Key(_), value) => map
            .shard_of_key(value)
            .map_err(|fault| Fault::Unusable(fault.to_string())),
    }
}

/// The shard of a key written as text, as a hint has it.
pub(super) fn shard_of_text(
    text: &str,
    key_type: KeyType,
    map: &ShardMap,
) -> Result<ShardId, Fault> {
    from_text(text.as_bytes(), &[], key_type, |value| {
        shard_of(&value, Carries::Key(key_type), map)
    })
}

/// Reads a value and gives it to `f`.
pub(super) fn with_key<R>(
    key: &KeyConst,
    key_type: KeyType,
    values: &Values<'_>,
    f: impl FnOnce(KeyValue<'_>) -> Result<R, Fault>,
) -> Result<R, Fault> {
    match key.at.from {
        ConstFrom::Null => Err(Fault::Null),
        ConstFrom::Hole(hole) => from_literal(&key.at, hole, key_type, values, f),
        ConstFrom::Param(n) => {
            let param = param(n, values)?;
            let Some(bytes) = param.value else {
                return Err(Fault::Null);
            };
            match param.format {
                Format::Text => from_text_param(n, bytes, &param, key, key_type, f),
                Format::Binary => from_binary_param(n, bytes, &param, key, key_type, f),
            }
        }
    }
}

fn param<'v>(n: u16, values: &Values<'v>) -> Result<Param<'v>, Fault> {
    values
        .params
        .and_then(|params| params.get(n))
        .ok_or(Fault::Missing(n))
}

fn unusable_literal(values: &Values<'_>, start: u32, end: u32) -> Fault {
    Fault::Unusable(format!(
        "{} is no value of a key",
        shown(&values.text[start as usize..end as usize])
    ))
}

/// For messages: what a person would recognise, and no more.
pub(super) fn shown(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    match text.char_indices().nth(40) {
        None => text.into_owned(),
        Some((at, _)) => format!("{}...", &text[..at]),
    }
}

fn from_literal<R>(
    at: &Const,
    hole: u32,
    key_type: KeyType,
    values: &Values<'_>,
    f: impl FnOnce(KeyValue<'_>) -> Result<R, Fault>,
) -> Result<R, Fault> {
    let Some(hole) = values.holes.get(hole as usize) else {
        return Err(Fault::Unusable("the value is not there".to_owned()));
    };
    let fault = || unusable_literal(values, hole.start, hole.end);
    let value = literal_value(values.text, hole).ok_or_else(fault)?;
    if hole.kind != HoleKind::Number {
        return from_text(&value, &at.casts, key_type, f);
    }
    if key_type != KeyType::Int {
        return Err(fault());
    }
    let number = decimal(&value, at.negative).ok_or_else(fault)?;
    if !fits(number, &at.casts) {
        return Err(fault());
    }
    f(KeyValue::Int(number))
}

/// The value that the input function of the key's type, or of the innermost cast, reads.
pub(super) fn from_text<R>(
    bytes: &[u8],
    casts: &[Cast],
    key_type: KeyType,
    f: impl FnOnce(KeyValue<'_>) -> Result<R, Fault>,
) -> Result<R, Fault> {
    let fault = || Fault::Unusable(format!("{:?} is no {key_type} key", shown(bytes)));
    match key_type {
        KeyType::Int => {
            let number = match casts.first() {
                Some(Cast::Numeric) => decimal(trim(bytes), false),
                _ => integer(trim(bytes)),
            };
            let number = number.filter(|n| fits(*n, casts)).ok_or_else(fault)?;
            f(KeyValue::Int(number))
        }
        KeyType::Text if casts.iter().all(|c| *c == Cast::Text) => f(KeyValue::Text(
            std::str::from_utf8(bytes).map_err(|_| fault())?,
        )),
        KeyType::Uuid if casts.iter().all(|c| matches!(c, Cast::Uuid | Cast::Text)) => {
            f(KeyValue::Uuid(uuid(bytes).ok_or_else(fault)?))
        }
        KeyType::Text | KeyType::Uuid => Err(fault()),
    }
}

fn from_text_param<R>(
    n: u16,
    bytes: &[u8],
    param: &Param<'_>,
    key: &KeyConst,
    key_type: KeyType,
    f: impl FnOnce(KeyValue<'_>) -> Result<R, Fault>,
) -> Result<R, Fault> {
    let casts = &key.at.casts[..];
    match (param.type_oid, key_type) {
        (oid::NUMERIC, KeyType::Int) => {
            let number = decimal(trim(bytes), false).filter(|n| fits(*n, casts));
            let number = number
                .ok_or_else(|| Fault::Unusable(format!("{:?} is no integer key", shown(bytes))))?;
            f(KeyValue::Int(number))
        }
        (0 | oid::UNKNOWN, KeyType::Int) if key.typed == Typed::Unsure => {
            // Whatever integer or decimal type it is given: the same digits are the same number. As a float they need
            // not be beyond 2^53.
            from_text(bytes, casts, key_type, |value| match value {
                KeyValue::Int(number) if number.unsigned_abs() > 1 << 53 => Err(Fault::Untyped(n)),
                value => f(value),
            })
        }
        (0 | oid::UNKNOWN | oid::TEXT | oid::VARCHAR, _)
        | (oid::INT2 | oid::INT4 | oid::INT8, KeyType::Int)
        | (oid::UUID, KeyType::Uuid) => from_text(bytes, casts, key_type, f),
        (other, _) => Err(Fault::Unusable(format!(
            "${n} has a type (OID {other}) that is no {key_type} key's"
        ))),
    }
}

fn from_binary_param<R>(
    n: u16,
    bytes: &[u8],
    param: &Param<'_>,
    key: &KeyConst,
    key_type: KeyType,
    f: impl FnOnce(KeyValue<'_>) -> Result<R, Fault>,
) -> Result<R, Fault> {
    let casts = &key.at.casts[..];
    let fault = || {
        Fault::Unusable(format!(
            "${n} is no {key_type} key: its {} bytes can't be read as one",
            bytes.len()
        ))
    };
    let unsure = key.typed == Typed::Unsure;
    match param.type_oid {
        oid::INT2 | oid::INT4 | oid::INT8 if key_type == KeyType::Int => {
            int_bytes(bytes, casts, f, fault)
        }
        oid::NUMERIC if key_type == KeyType::Int => {
            let number = numeric_bytes(bytes)
                .filter(|n| fits(*n, casts))
                .ok_or_else(fault)?;
            f(KeyValue::Int(number))
        }
        oid::TEXT | oid::VARCHAR | oid::UNKNOWN => from_text(bytes, casts, key_type, f),
        oid::UUID if key_type == KeyType::Uuid => uuid_bytes(bytes, f, fault),
        0 => match (casts.first(), key_type) {
            (Some(Cast::Text), _) => from_text(bytes, casts, key_type, f),
            (Some(Cast::Numeric), KeyType::Int) => {
                let number = numeric_bytes(bytes)
                    .filter(|n| fits(*n, casts))
                    .ok_or_else(fault)?;
                f(KeyValue::Int(number))
            }
            (_, KeyType::Int) if unsure => Err(Fault::Untyped(n)),
            (_, KeyType::Int) => int_bytes(bytes, casts, f, fault),
            // Every type that can be compared with text has the text's own bytes; uuid alone has uuid's.
            (None, KeyType::Text) => from_text(bytes, casts, key_type, f),
            (None | Some(Cast::Uuid), KeyType::Uuid) => uuid_bytes(bytes, f, fault),
            _ => Err(fault()),
        },
        other => Err(Fault::Unusable(format!(
            "${n} has a type (OID {other}) that is no {key_type} key's"
        ))),
    }
}

fn int_bytes<R>(
    bytes: &[u8],
    casts: &[Cast],
    f: impl FnOnce(KeyValue<'_>) -> Result<R, Fault>,
    fault: impl Fn() -> Fault,
) -> Result<R, Fault> {
    let number = int(bytes).filter(|n| fits(*n, casts)).ok_or_else(fault)?;
    f(KeyValue::Int(number))
}

/// int2, int4 and int8 as sent: big endian.
pub(super) fn int(bytes: &[u8]) -> Option<i64> {
    match bytes.len() {
        2 => Some(i64::from(i16::from_be_bytes(bytes.try_into().ok()?))),
        4 => Some(i64::from(i32::from_be_bytes(bytes.try_into().ok()?))),
        8 => Some(i64::from_be_bytes(bytes.try_into().ok()?)),
        _ => None,
    }
}

fn uuid_bytes<R>(
    bytes: &[u8],
    f: impl FnOnce(KeyValue<'_>) -> Result<R, Fault>,
    fault: impl Fn() -> Fault,
) -> Result<R, Fault> {
    f(KeyValue::Uuid(bytes.try_into().map_err(|_| fault())?))
}

/// The casts leave the number as it is.
fn fits(number: i64, casts: &[Cast]) -> bool {
    casts.iter().all(|cast| match cast {
        Cast::Int2 => i16::try_from(number).is_ok(),
        Cast::Int4 => i32::try_from(number).is_ok(),
        Cast::Int8 | Cast::Numeric | Cast::Text => true,
        Cast::Uuid => false,
    })
}

/// White space as the input functions of numbers skip it.
pub(super) fn trim(bytes: &[u8]) -> &[u8] {
    let space = |b: &u8| matches!(b, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c);
    let start = bytes.iter().position(|b| !space(b)).unwrap_or(bytes.len());
    let end = bytes
        .iter()
        .rposition(|b| !space(b))
        .map_or(start, |at| at + 1);
    &bytes[start..end]
}

/// Digits with an optional sign. Hexadecimal and underscores are left to be refused: versions of Postgres differ.
fn integer(bytes: &[u8]) -> Option<i64> {
    let (negative, digits) = match bytes {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    if digits.is_empty() {
        return None;
    }
    if digits.len() <= 18 {
        // It can't overflow.
        let mut number = 0i64;
        for digit in digits {
            let digit = digit.wrapping_sub(b'0');
            if digit > 9 {
                return None;
            }
            number = number * 10 + i64::from(digit);
        }
        return Some(if negative { -number } else { number });
    }
    let mut number = 0i64;
    for digit in digits {
        let digit = i64::from(digit.is_ascii_digit().then(|| digit - b'0')?);
        // Counted downwards, so that the lowest number fits.
        number = number.checked_mul(10)?.checked_sub(digit)?;
    }
    if negative {
        Some(number)
    } else {
        number.checked_neg()
    }
}

/// A decimal number (`42`, `42.0`, `4.2e1`) that has no fraction and fits an int8; `minus` stands before it.
fn decimal(bytes: &[u8], minus: bool) -> Option<i64> {
    if let (1..=18, Some(n)) = (bytes.len(), integer(bytes)) {
        return Some(if minus { -n } else { n });
    }
    let (sign, rest) = match bytes {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    let e = rest.iter().position(|b| matches!(b, b'e' | b'E'));
    let (mantissa, exponent) = match e {
        Some(e) => (
            &rest[..e],
            integer(&rest[e + 1..]).filter(|e| e.unsigned_abs() < 1000)?,
        ),
        None => (rest, 0),
    };
    let (whole, fraction) = match mantissa.iter().position(|b| *b == b'.') {
        Some(dot) => (&mantissa[..dot], &mantissa[dot + 1..]),
        None => (mantissa, &mantissa[mantissa.len()..]),
    };
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let mut number = 0i64;
    let scale = whole.len() as i64 + exponent;
    for (at, digit) in (0i64..).zip(whole.iter().chain(fraction)) {
        let digit = i64::from(digit.is_ascii_digit().then(|| digit - b'0')?);
        if at < scale {
            number = number.checked_mul(10)?.checked_sub(digit)?;
        } else if digit != 0 {
            return None;
        }
    }
    for _ in (whole.len() + fraction.len()) as i64..scale {
        number = number.checked_mul(10)?;
    }
    if sign != minus {
        Some(number)
    } else {
        number.checked_neg()
    }
}

/// numeric as sent (numeric.c, `numeric_send`): digits to base 10,000, the first of weight 10,000^weight.
pub(super) fn numeric_bytes(bytes: &[u8]) -> Option<i64> {
    let (head, digits) = bytes.split_first_chunk::<8>()?;
    let field = |at: usize| u16::from_be_bytes([head[at], head[at + 1]]);
    let (count, weight, sign) = (field(0), i32::from(field(2) as i16), field(4));
    if digits.len() != usize::from(count) * 2 || !matches!(sign, 0 | 0x4000) || weight > 4 {
        return None;
    }
    let mut number = 0i64;
    for (at, digit) in (0i32..).zip(digits.chunks_exact(2)) {
        let digit = i64::from(u16::from_be_bytes([digit[0], digit[1]]));
        if at <= weight {
            number = number.checked_mul(10_000)?.checked_sub(digit)?;
        } else if digit != 0 {
            return None;
        }
    }
    for _ in i32::from(count)..=weight {
        number = number.checked_mul(10_000)?;
    }
    if sign == 0x4000 {
        Some(number)
    } else {
        number.checked_neg()
    }
}

/// A uuid as uuid.c's `string_to_uuid` reads it: hexadecimal digits, a hyphen after any group of four, braces around.
fn uuid(text: &[u8]) -> Option<[u8; 16]> {
    let inner = match text {
        [b'{', inner @ .., b'}'] => inner,
        [b'{', ..] => return None,
        inner => inner,
    };
    let mut out = [0; 16];
    let mut rest = inner;
    for (at, byte) in out.iter_mut().enumerate() {
        let [high, low, after @ ..] = rest else {
            return None;
        };
        let digit = |b: &u8| char::from(*b).to_digit(16);
        *byte = (digit(high)? << 4 | digit(low)?) as u8;
        rest = match after {
            [b'-', after @ ..] if at % 2 == 1 && at < 15 => after,
            after => after,
        };
    }
    rest.is_empty().then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_as_int8in_reads_them() {
        for (text, value) in [
            (&b"42"[..], Some(42)),
            (b"-42", Some(-42)),
            (b"+7", Some(7)),
            (b"9223372036854775807", Some(i64::MAX)),
            (b"-9223372036854775808", Some(i64::MIN)),
            (b"9223372036854775808", None),
            (b"", None),
            (b"-", None),
            (b"4 2", None),
            (b"0x10", None),
            (b"42.0", None),
        ] {
            assert_eq!(integer(text), value, "{}", shown(text));
        }
    }

    #[test]
    fn decimals_without_fraction() {
        for (text, value) in [
            (&b"42"[..], Some(42)),
            (b"42.0", Some(42)),
            (b"42.50", None),
            (b"4.2e1", Some(42)),
            (b"4.25e1", None),
            (b"420e-1", Some(42)),
            (b".5e1", Some(5)),
            (b"5.", Some(5)),
            (b"1e18", Some(1_000_000_000_000_000_000)),
            (b"1e19", None),
            (b"1e999999999", None),
            (b"-9223372036854775808", Some(i64::MIN)),
            (b".", None),
            (b"1e", None),
            (b"NaN", None),
        ] {
            assert_eq!(decimal(text, false), value, "{}", shown(text));
        }
        assert_eq!(decimal(b"9223372036854775808", true), Some(i64::MIN));
        assert_eq!(decimal(b"42", true), Some(-42));
    }

    #[test]
    fn numeric_as_sent() {
        // select encode(numeric_send(v), 'hex')
        let hex = |text: &str| -> Vec<u8> {
            text.as_bytes()
                .chunks(2)
                .map(|c| u8::from_str_radix(std::str::from_utf8(c).unwrap(), 16).unwrap())
                .collect()
        };
        assert_eq!(numeric_bytes(&hex("0001000000000000002a")), Some(42));
        assert_eq!(numeric_bytes(&hex("0001000040000000002a")), Some(-42));
        assert_eq!(numeric_bytes(&hex("0000000000000000")), Some(0));
        // 10000 is one digit of weight 1; 42.5 has a fraction.
        assert_eq!(numeric_bytes(&hex("00010001000000000001")), Some(10_000));
        assert_eq!(numeric_bytes(&hex("0002000000000001002a1388")), None);
        assert_eq!(numeric_bytes(&hex("000100000000")), None);
        assert_eq!(numeric_bytes(&hex("00000000c0000000")), None, "NaN");
    }

    #[test]
    fn uuids() {
        let value = Some([
            0xa0, 0xee, 0xbc, 0x99, 0x9c, 0x0b, 0x4e, 0xf8, 0xbb, 0x6d, 0x6b, 0xb9, 0xbd, 0x38,
            0x0a, 0x11,
        ]);
        for text in [
            "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
            "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11",
            "{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}",
            "a0eebc999c0b4ef8bb6d6bb9bd380a11",
            "a0ee-bc99-9c0b-4ef8-bb6d-6bb9-bd38-0a11",
            "{a0eebc99-9c0b4ef8-bb6d6bb9-bd380a11}",
        ] {
            assert_eq!(uuid(text.as_bytes()), value, "{text}");
        }
        for text in [
            "",
            "a0eebc99",
            "{a0eebc999c0b4ef8bb6d6bb9bd380a11",
            "a-0eebc999c0b4ef8bb6d6bb9bd380a11",
            "a0eebc999c0b4ef8bb6d6bb9bd380a11-",
        ] {
            assert_eq!(uuid(text.as_bytes()), None, "{text}");
        }
    }
}
