\set user_id random(1, :rows)
\set delta random(-1000, 1000)
BEGIN;
UPDATE accounts SET balance = balance + :delta WHERE user_id = :user_id;
SELECT balance FROM accounts WHERE user_id = :user_id;
INSERT INTO history (user_id, delta) VALUES (:user_id, :delta);
END;
