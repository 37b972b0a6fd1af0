//! Tables bound through each other, and the names they go by.

use super::*;

#[test]
fn joins() {
    check(&[
        (
            "SELECT * FROM photos p JOIN users u ON u.id = p.user_id WHERE u.id = 5",
            "5",
        ),
        (
            "SELECT * FROM photos p JOIN users u ON u.id = p.user_id WHERE p.user_id = 5",
            "5",
        ),
        (
            "SELECT * FROM photos p, users u WHERE u.id = p.user_id AND u.id = 5",
            "5",
        ),
        (
            "SELECT * FROM photos JOIN likes USING (user_id) WHERE user_id = 5",
            "5",
        ),
        (
            "SELECT * FROM photos p JOIN likes l USING (user_id) WHERE l.user_id = 5",
            "5",
        ),
        (
            "SELECT * FROM photos p JOIN likes l ON l.user_id = p.user_id AND p.user_id = 5",
            "5",
        ),
        (
            "SELECT * FROM photos p JOIN likes l ON l.photo_id = p.id WHERE p.user_id = 5 AND l.user_id = 5",
            "5",
        ),
        (
            "SELECT * FROM photos p JOIN likes l ON l.photo_id = p.id WHERE p.user_id = 5 AND l.user_id = 21",
            "5",
        ),
        (
            "SELECT * FROM photos p JOIN likes l ON l.photo_id = p.id WHERE p.user_id = 5 AND l.user_id = 6",
            "SR002",
        ),
        (
            "SELECT * FROM photos p JOIN likes l ON l.photo_id = p.id WHERE p.user_id = 5",
            "SR001",
        ),
        (
            "SELECT * FROM likes l JOIN photos p ON p.id = l.photo_id WHERE p.id = 5120 AND l.user_id = 5",
            "5",
        ),
        (
            "SELECT * FROM likes l JOIN photos p ON p.id = l.photo_id WHERE l.photo_id = 5120 AND l.user_id = 5",
            "5",
        ),
        // Outer joins: a condition on the side that is filled with nulls binds that side, not the other.
        (
            "SELECT * FROM users u LEFT JOIN photos p ON p.user_id = u.id WHERE u.id = 5",
            "5",
        ),
        (
            "SELECT * FROM users u LEFT JOIN photos p ON p.user_id = u.id AND p.user_id = 5",
            "all",
        ),
        (
            "SELECT * FROM users u LEFT JOIN photos p ON p.user_id = 5 AND u.id = 5",
            "SR001",
        ),
        (
            "SELECT * FROM users u LEFT JOIN photos p ON u.id = 5 AND p.user_id = u.id",
            "all",
        ),
        (
            "SELECT * FROM users u RIGHT JOIN photos p ON p.user_id = u.id WHERE p.user_id = 5",
            "5",
        ),
        (
            "SELECT * FROM users u RIGHT JOIN photos p ON p.user_id = u.id AND u.id = 5",
            "all",
        ),
        (
            "SELECT * FROM users u FULL JOIN photos p ON p.user_id = u.id AND u.id = 5 AND p.user_id = 5",
            "SR004",
        ),
        (
            "SELECT * FROM users u FULL JOIN photos p ON p.user_id = u.id WHERE u.id = 5 AND p.user_id = 5",
            "5",
        ),
        (
            "SELECT * FROM users u LEFT JOIN photos p ON true WHERE u.id = 5",
            "SR001",
        ),
        (
            "SELECT * FROM users u LEFT JOIN photos p USING (id) WHERE u.id = 5",
            "SR002",
        ),
        (
            "SELECT * FROM (SELECT 1 AS one) x LEFT JOIN (photos p JOIN users u ON u.id = p.user_id AND u.id = 5) ON true",
            "5",
        ),
        (
            "SELECT * FROM photos p LEFT JOIN likes l ON l.user_id = p.user_id LEFT JOIN users u ON u.id = l.user_id WHERE p.user_id = 5",
            "5",
        ),
        // The key need not be known where an id is: what is joined by key is in the same shard.
        (
            "SELECT count(*) FROM photos p LEFT JOIN users u ON u.id = p.user_id WHERE p.id = 5120",
            "5",
        ),
        (
            "SELECT count(*) FROM photos p JOIN users u ON u.id = p.user_id JOIN likes l ON l.user_id = u.id WHERE p.id = 5120",
            "5",
        ),
        (
            "SELECT count(*) FROM users u JOIN (SELECT user_id AS u FROM photos WHERE id = 5120 LIMIT 1) p ON u.id = p.u",
            "5",
        ),
        (
            "SELECT count(*) FROM photos p JOIN (SELECT * FROM users LIMIT 1) u ON u.id = p.user_id WHERE p.id = 5120",
            "SR001",
        ),
        (
            "SELECT count(*) FROM photos p LEFT JOIN users u ON u.id = p.user_id WHERE u.id IN (SELECT user_id FROM likes) AND p.id = 5120",
            "5",
        ),
        (
            "SELECT count(*) FROM photos p LEFT JOIN users u ON u.name = p.caption WHERE p.id = 5120",
            "SR001",
        ),
        (
            "SELECT count(*) FROM users u LEFT JOIN photos p ON u.id = p.user_id AND p.id = 5120",
            "all",
        ),
        (
            "UPDATE users SET name = 'x' FROM photos p WHERE p.id = 5120 AND p.user_id = users.id",
            "5",
        ),
        // A merged column of a join that adds rows is not that of its left side.
        (
            "SELECT * FROM (SELECT * FROM photos WHERE user_id = 5) a RIGHT JOIN likes b USING (user_id) JOIN \"Album\" c USING (user_id)",
            "SR001",
        ),
        (
            "SELECT * FROM photos NATURAL JOIN \"Album\" WHERE photos.user_id = 5",
            "5",
        ),
        (
            "SELECT * FROM photos p JOIN countries c ON c.code = p.caption WHERE p.user_id = 5",
            "5",
        ),
        (
            "SELECT * FROM countries c LEFT JOIN users u ON u.country = c.code AND u.id = 5",
            "5",
        ),
        (
            "SELECT * FROM users u JOIN invoices i ON i.user_id = u.id WHERE u.id = 8",
            "8",
        ),
        (
            "SELECT * FROM users u JOIN invoices i ON i.user_id = u.id WHERE u.id = 5",
            "SR002",
        ),
        (
            "SELECT * FROM users u JOIN invoices i ON i.user_id = u.id",
            "SR004",
        ),
        (
            "SELECT * FROM invoices i JOIN rates r ON r.code = 'x'",
            "SR002",
        ),
        (
            "SELECT * FROM photos p CROSS JOIN follows f WHERE p.user_id = 5 AND f.source_id = p.user_id",
            "5",
        ),
    ]);
}

#[test]
fn names_and_aliases() {
    check(&[
        // The alias is a table's name: the key is that of the table behind it.
        (
            "SELECT * FROM follows photos WHERE photos.source_id = 5",
            "5",
        ),
        (
            "SELECT * FROM follows photos WHERE photos.target_id = 5",
            "all",
        ),
        (
            "SELECT * FROM follows photos WHERE photos.user_id = 5",
            "all",
        ),
        ("SELECT * FROM photos p WHERE photos.user_id = 5", "all"),
        ("SELECT * FROM photos \"P\" WHERE p.user_id = 5", "all"),
        ("SELECT * FROM photos WHERE \"User_ID\" = 5", "all"),
        ("SELECT * FROM photos AS p(a, b) WHERE p.b = 5", "5"),
        (
            "SELECT * FROM photos AS p(user_id, b) WHERE p.user_id = 5120",
            "5",
        ),
        ("SELECT * FROM photos AS p(user_id, b) WHERE p.b = 5", "5"),
        ("SELECT user_id AS x FROM photos WHERE x = 5", "all"),
        ("SELECT 5 AS user_id FROM photos", "all"),
        ("SELECT * FROM photos, likes WHERE user_id = 5", "SR004"),
        (
            "SELECT * FROM photos \"photos\" WHERE \"photos\".user_id = 5",
            "5",
        ),
        (
            "SELECT * FROM photos semi JOIN likes final ON semi.user_id = final.user_id WHERE final.user_id = 5",
            "5",
        ),
        ("SELECT * FROM photos sample WHERE sample.user_id = 5", "5"),
        (
            "SELECT p.user_id qualify FROM photos p WHERE p.user_id = 5",
            "5",
        ),
        ("SELECT top.id FROM photos top WHERE top.user_id = 5", "5"),
        ("SELECT * FROM ph\u{f6}tos WHERE user_id = 5", "SR003"),
        ("SELECT * FROM nowhere WHERE user_id = 5", "SR003"),
        ("SELECT * FROM lost", "SR003"),
        ("SELECT * FROM other.photos WHERE user_id = 5", "SR003"),
        ("SELECT * FROM a.b.photos WHERE user_id = 5", "SR006"),
        ("SELECT * FROM public.photos WHERE user_id = 5", "5"),
        (
            "SELECT public.photos.id FROM public.photos WHERE public.photos.user_id = 5",
            "5",
        ),
        ("SELECT * FROM shard_0003.photos", "3"),
        ("SELECT * FROM shard_0003.photos WHERE user_id = 19", "3"),
        ("SELECT * FROM shard_0003.photos WHERE user_id = 5", "SR002"),
        (
            "SELECT * FROM shard_0003.photos, shard_0004.photos p",
            "SR002",
        ),
        ("SELECT * FROM shard_0016.photos", "SR003"),
        ("SELECT * FROM shard_0003.nowhere", "SR003"),
        (
            "UPDATE shard_0003.photos SET caption = 'x' WHERE id = 3072",
            "3",
        ),
    ]);
}
