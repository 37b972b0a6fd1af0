\set user_id random(1, :rows)
SELECT balance FROM accounts WHERE user_id = :user_id;
