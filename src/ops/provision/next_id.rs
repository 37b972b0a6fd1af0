//! `next_id()` of a shard: ids that sort by time, carry their shard and never repeat. Their bits are `shardmap::id`'s.
//!
//! A sequence counts sequence numbers: its value is `milliseconds << 10 | number`, so the id follows from it, and taking
//! the next value is atomic and needs no lock. When the clock has gone on, the sequence must jump; but `setval` is no
//! compare-and-set, and a jump into values that others are drawing from would repeat ids. Hence guards: of each 8 ms
//! only the first 4 hold values that may be used (bit 12 is 0), the others never are.
//!
//! * A value with bit 12 clear is the caller's alone, whoever jumps. It is used as it is if it belongs to the present
//!   8 ms or is ahead of the clock (which went back, or gave out more ids than its milliseconds hold).
//! * Else the caller takes the jump's lock. Under it the sequence jumps to the present millisecond, or, when that lies
//!   in a guard or behind the sequence, to the next 8 ms. So a jump always crosses a guard into values that nobody has
//!   drawn: to draw from them before, sessions would have to run through the guard's 4096 values, and each that draws
//!   one stops to wait for the lock.
//! * If another session is jumping just now, a value that is only a little behind the clock is used as it is. So nobody
//!   waits, except for the first id after a pause and, behind a guard, after 4096 ids in 8 ms.
//!
//! So ids are up to 8 ms off the clock (a quarter of a second behind it at worst), a shard makes up to 512 a millisecond and runs ahead of the clock beyond that.
//! The lock is an advisory one (Postgres has no other that ends before the transaction does) and is let go by ending a
//! subtransaction with an error, so that no cancel or failure can leave it held.

use crate::shardmap::ShardId;
use crate::shardmap::id::{EPOCH_MS, SEQUENCE_BITS, SHARD_BITS};

/// The sequence's name in the shard's schema.
pub(super) const SEQUENCE: &str = "presplit_next_id";
/// First key of the advisory lock; the second is the shard. The letters `pres`.
const LOCK: i32 = 0x7072_6573;
/// How far a value may lag behind the clock and be used while another session jumps: 256 ms.
const MAX_LAG: i64 = 256 << SEQUENCE_BITS;

/// Makes the sequence and the function in `schema` (as it stands in a statement, quoted if it must be). Can be repeated.
pub(super) fn ddl(schema: &str, shard: ShardId) -> String {
    let sequence = format!("{schema}.{SEQUENCE}");
    // Inside the function's body the name is in a string literal.
    let literal = format!("'{}'", sequence.replace('\'', "''"));
    let shard_part = shard.0 << SEQUENCE_BITS;
    let time_shift = SHARD_BITS + SEQUENCE_BITS;
    format!(
        "CREATE SEQUENCE IF NOT EXISTS {sequence};
CREATE OR REPLACE FUNCTION {schema}.next_id() RETURNS bigint LANGUAGE plpgsql VOLATILE AS $presplit$
DECLARE
  clock bigint := (extract(epoch FROM pg_catalog.clock_timestamp()) * 1000 - {EPOCH_MS})::bigint << {SEQUENCE_BITS};
  n bigint := pg_catalog.nextval({literal});
BEGIN
  IF n & 4096 <> 0 OR n < (clock & -8192) THEN
    BEGIN
      IF n & 4096 <> 0 OR n < clock - {MAX_LAG} THEN
        PERFORM pg_catalog.pg_advisory_xact_lock({LOCK}, {shard});
      ELSIF NOT pg_catalog.pg_try_advisory_xact_lock({LOCK}, {shard}) THEN
        RAISE SQLSTATE 'SMID0';
      END IF;
      n := pg_catalog.nextval({literal});
      IF n & 4096 <> 0 OR n < (clock & -8192) THEN
        n := CASE WHEN n > clock OR clock & 4096 <> 0 THEN (greatest(n, clock) | 8191) + 1 ELSE clock END;
        PERFORM pg_catalog.setval({literal}, n);
      END IF;
      RAISE SQLSTATE 'SMID0';
    EXCEPTION WHEN SQLSTATE 'SMID0' THEN NULL;
    END;
  END IF;
  RETURN (n >> {SEQUENCE_BITS} << {time_shift}) | {shard_part} | (n & {sequence_mask});
END $presplit$;
",
        sequence_mask = (1 << SEQUENCE_BITS) - 1,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_must_be_quoted_stay_quoted_inside_the_body() {
        let sql = ddl("\"Odd's_7\"", ShardId(7));
        assert!(
            sql.contains("CREATE SEQUENCE IF NOT EXISTS \"Odd's_7\".presplit_next_id;"),
            "{sql}"
        );
        assert!(
            sql.contains("nextval('\"Odd''s_7\".presplit_next_id')"),
            "{sql}"
        );
        assert!(sql.contains("| 7168 |"), "{sql}");
    }
}
