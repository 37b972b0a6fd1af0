//! Postgres' order of values as the order of bytes: a value in its binary form becomes bytes that compare (as
//! `memcmp` does) as the type's `<` operator compares the values.

/// How values of a type become bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ByteOrder {
    /// Signed whole numbers of any size: integers, dates, times, timestamps.
    Signed,
    /// float4, float8: -0 equals 0, NaN is the greatest.
    Float,
    /// numeric
    Numeric,
    /// Bytes as they are, all of one length: bool, uuid, oid, "char".
    Fixed,
    /// Bytes as they are, of any length: bytea, text by its bytes.
    Bytes,
    /// `char(n)` by its bytes: blanks at the end do not count.
    Padded,
}

impl ByteOrder {
    /// The order of the type of this OID (pg_type.dat), if it is one of those above. `texts_by_bytes`: the collation
    /// compares texts by their bytes.
    pub fn of(type_oid: u32, texts_by_bytes: bool) -> Option<ByteOrder> {
        match type_oid {
            // int8, int2, int4, date, time, timestamp, timestamptz, money
            20 | 21 | 23 | 1082 | 1083 | 1114 | 1184 | 790 => Some(ByteOrder::Signed),
            700 | 701 => Some(ByteOrder::Float),
            1700 => Some(ByteOrder::Numeric),
            // bool, "char", oid, uuid
            16 | 18 | 26 | 2950 => Some(ByteOrder::Fixed),
            // bytea; name is always compared by its bytes
            17 | 19 => Some(ByteOrder::Bytes),
            25 | 1043 if texts_by_bytes => Some(ByteOrder::Bytes),
            1042 if texts_by_bytes => Some(ByteOrder::Padded),
            _ => None,
        }
    }

    /// Appends a value that is no null. Values of one order that are not equal never begin with one another.
    pub fn write(self, value: &[u8], out: &mut Vec<u8>) {
        match self {
            ByteOrder::Signed => {
                let from = out.len();
                out.extend_from_slice(value);
                if let Some(first) = out.get_mut(from) {
                    *first ^= 0x80;
                }
            }
            ByteOrder::Float => write_float(value, out),
            ByteOrder::Numeric => write_numeric(value, out),
            ByteOrder::Fixed => out.extend_from_slice(value),
            ByteOrder::Bytes => write_bytes(value, out),
            ByteOrder::Padded => {
                let blanks = value.iter().rev().take_while(|b| **b == b' ').count();
                write_bytes(&value[..value.len() - blanks], out);
            }
        }
    }
}

/// A zero byte is doubled (as 0, 255), and 0, 0 ends it: a text comes before those that it begins.
fn write_bytes(value: &[u8], out: &mut Vec<u8>) {
    for byte in value {
        out.push(*byte);
        if *byte == 0 {
            out.push(0xFF);
        }
    }
    out.extend_from_slice(&[0, 0]);
}

fn write_float(value: &[u8], out: &mut Vec<u8>) {
    let number = match *value {
        [a, b, c, d] => f64::from(f32::from_be_bytes([a, b, c, d])),
        [a, b, c, d, e, f, g, h] => f64::from_be_bytes([a, b, c, d, e, f, g, h]),
        _ => f64::NAN,
    };
    let bits = match number {
        n if n.is_nan() => u64::MAX,
        0.0 => 1 << 63,
        n if n.is_sign_negative() => !n.to_bits(),
        n => n.to_bits() | 1 << 63,
    };
    out.extend_from_slice(&bits.to_be_bytes());
}

/// The binary form is: count of digits, weight of the first, sign, scale, digits of base 10,000 (numeric.c,
/// numeric_send). The scale does not count, nor do zeros at either end.
fn write_numeric(value: &[u8], out: &mut Vec<u8>) {
    let word = |at: usize| match value.get(at * 2..at * 2 + 2) {
        Some(&[a, b]) => u16::from_be_bytes([a, b]),
        _ => 0,
    };
    let (count, weight, sign) = (usize::from(word(0)), word(1) as i16, word(2));
    let digits: Vec<u16> = (0..count).map(|n| word(4 + n)).collect();
    let class = match sign {
        0xC000 => 5,                              // NaN
        0xD000 => 4,                              // Infinity
        0xF000 => 0,                              // -Infinity
        _ if digits.iter().all(|d| *d == 0) => 2, // zero
        0x4000 => 1,                              // negative
        _ => 3,
    };
    out.push(class);
    if !matches!(class, 1 | 3) {
        return;
    }
    let from = out.len();
    let zeros = digits.iter().take_while(|d| **d == 0).count();
    let end = digits.iter().rposition(|d| *d != 0).map_or(0, |at| at + 1);
    let weight = i32::from(weight) - zeros as i32 + 0x1_0000;
    out.extend_from_slice(&weight.to_be_bytes());
    for digit in &digits[zeros..end] {
        out.extend_from_slice(&(digit + 1).to_be_bytes());
    }
    out.extend_from_slice(&[0, 0]);
    if class == 1 {
        out[from..].iter_mut().for_each(|byte| *byte = !*byte);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(order: ByteOrder, value: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        order.write(value, &mut out);
        out
    }

    #[track_caller]
    fn ascending(order: ByteOrder, values: &[Vec<u8>]) {
        let written: Vec<Vec<u8>> = values.iter().map(|v| written(order, v)).collect();
        for (n, pair) in written.windows(2).enumerate() {
            assert!(pair[0] < pair[1], "{n}: {:?} {:?}", pair[0], pair[1]);
        }
    }

    #[test]
    fn whole_numbers() {
        let values = [i64::MIN, -256, -1, 0, 1, 255, 256, i64::MAX];
        ascending(ByteOrder::Signed, &values.map(|v| v.to_be_bytes().to_vec()));
        let values = [i16::MIN, -1, 0, i16::MAX];
        ascending(ByteOrder::Signed, &values.map(|v| v.to_be_bytes().to_vec()));
    }

    #[test]
    fn floats() {
        let values = [
            f64::NEG_INFINITY,
            -1e300,
            -1.5,
            -1e-300,
            0.0,
            1e-300,
            1.0,
            2.5,
            f64::INFINITY,
            f64::NAN,
        ];
        ascending(ByteOrder::Float, &values.map(|v| v.to_be_bytes().to_vec()));
        let zero = |v: f32| written(ByteOrder::Float, &v.to_be_bytes());
        assert_eq!(zero(0.0), zero(-0.0));
        assert!(zero(-1.5) < zero(1.25));
    }

    #[test]
    fn texts() {
        let values = ["", "\0", "a", "a\0", "a\0b", "a\u{1}", "ab", "b", "é"];
        ascending(ByteOrder::Bytes, &values.map(|v| v.as_bytes().to_vec()));
        let padded = |v: &str| written(ByteOrder::Padded, v.as_bytes());
        assert_eq!(padded("a  "), padded("a"));
        assert!(padded("a") < padded("a b "));
    }

    /// `(weight, sign, scale, digits)` as numeric_send writes them.
    fn numeric(weight: i16, sign: u16, scale: u16, digits: &[u16]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for word in [digits.len() as u16, weight as u16, sign, scale] {
            bytes.extend(word.to_be_bytes());
        }
        bytes.extend(digits.iter().flat_map(|d| d.to_be_bytes()));
        bytes
    }

    #[test]
    fn numerics() {
        let minus = 0x4000;
        let values = [
            numeric(0, 0xF000, 0, &[]),
            numeric(1, minus, 0, &[1, 1]),    // -10001
            numeric(1, minus, 0, &[1]),       // -10000
            numeric(0, minus, 1, &[1, 5000]), // -1.5
            numeric(0, minus, 0, &[1]),       // -1
            numeric(-1, minus, 4, &[1]),      // -0.0001
            numeric(0, 0, 0, &[]),            // 0
            numeric(-2, 0, 8, &[1]),          // 0.00000001
            numeric(-1, 0, 4, &[1]),
            numeric(0, 0, 0, &[1]),    // 1
            numeric(0, 0, 4, &[1, 1]), // 1.0001
            numeric(0, 0, 0, &[9999]),
            numeric(1, 0, 0, &[1]), // 10000
            numeric(1, 0, 0, &[1, 1]),
            numeric(0, 0xD000, 0, &[]),
            numeric(0, 0xC000, 0, &[]),
        ];
        ascending(ByteOrder::Numeric, &values);
        let same = |a: Vec<u8>, b: Vec<u8>| {
            assert_eq!(
                written(ByteOrder::Numeric, &a),
                written(ByteOrder::Numeric, &b)
            );
        };
        same(numeric(0, 0, 2, &[1, 0]), numeric(0, 0, 0, &[1]));
        same(numeric(0, 0, 5, &[]), numeric(0, 0, 0, &[0]));
        same(numeric(1, 0, 0, &[0, 7]), numeric(0, 0, 0, &[7]));
    }
}
