//! Where to send a statement: pure functions from (plan, values, map) to a route or a refusal.
