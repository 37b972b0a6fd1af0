\set user_id random(1, :rows)
SELECT a.user_id, a.balance, b.balance AS of_friend, count(i.body) AS items FROM accounts a JOIN accounts b ON b.user_id = a.user_id LEFT JOIN items i ON i.user_id = a.user_id AND i.body <> '' WHERE a.user_id = :user_id GROUP BY a.user_id, a.balance, b.balance ORDER BY a.balance LIMIT 20;
