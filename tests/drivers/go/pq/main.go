// lib/pq under database/sql: see ../../steps.txt. It pings with an empty statement, prepares without names in one go, and asks
// for text unless told otherwise.
package main

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"os"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/lib/pq"
)

const (
	text  = "Grüße 東京 🚀 \\ ' \" $1 %s -- /* {} \\N \t."
	data  = `{"a": 1, "b": [true, null, "ü'\"\\"], "c": {"x": 1.5}}`
	price = "12345678901234.567891"
	big   = "1234567890123456789012345678901234567890.0123456789"
)

var (
	ctx   = context.Background()
	url   = os.Getenv("DATABASE_URL") + "?sslmode=disable"
	first int64
	users []int64
)

type missing string

func (m missing) Error() string { return string(m) }

func same(got, expected interface{}) {
	if !reflect.DeepEqual(got, expected) {
		panic(fmt.Errorf("got %v, expected %v", got, expected))
	}
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func fails(code string, err error) *pq.Error {
	var e *pq.Error
	if !errors.As(err, &e) || string(e.Code) != code {
		panic(fmt.Errorf("expected %s, got %v", code, err))
	}
	return e
}

// What a connection, a pool and a transaction all do.
type querier interface {
	ExecContext(ctx context.Context, query string, args ...interface{}) (sql.Result, error)
	QueryContext(ctx context.Context, query string, args ...interface{}) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...interface{}) *sql.Row
}

func do(q querier, query string, args ...interface{}) int64 {
	result, err := q.ExecContext(ctx, query, args...)
	must(err)
	n, err := result.RowsAffected()
	must(err)
	return n
}

func failing(q querier, code, query string, args ...interface{}) *pq.Error {
	_, err := q.ExecContext(ctx, query, args...)
	return fails(code, err)
}

func number(q querier, query string, args ...interface{}) (n int64) {
	must(q.QueryRowContext(ctx, query, args...).Scan(&n))
	return n
}

func word(q querier, query string, args ...interface{}) (s string) {
	must(q.QueryRowContext(ctx, query, args...).Scan(&s))
	return s
}

func numbers(q querier, query string, args ...interface{}) []int64 {
	rows, err := q.QueryContext(ctx, query, args...)
	must(err)
	defer rows.Close()
	found := []int64{}
	for rows.Next() {
		var n int64
		must(rows.Scan(&n))
		found = append(found, n)
	}
	must(rows.Err())
	return found
}

func words(q querier, query string, args ...interface{}) []string {
	rows, err := q.QueryContext(ctx, query, args...)
	must(err)
	defer rows.Close()
	found := []string{}
	for rows.Next() {
		var s string
		must(rows.Scan(&s))
		found = append(found, s)
	}
	must(rows.Err())
	return found
}

func captions(q querier, caption string) int64 {
	return number(q, "SELECT count(*) FROM photos WHERE user_id = ANY($1) AND caption = $2", pq.Array(users), caption)
}

// The connection that the steps use: the pool holds but one.
func begin(db *sql.DB) *sql.Tx {
	tx, err := db.BeginTx(ctx, nil)
	must(err)
	return tx
}

func connect(c *sql.DB) {
	fmt.Println("version 1.10.7 (Debian)")
	must(c.PingContext(ctx))
	same(word(c, "SHOW client_encoding"), "UTF8")
	for _, user := range users {
		do(c, "DELETE FROM things WHERE user_id = $1", user)
		do(c, "DELETE FROM photos WHERE user_id = $1", user)
		do(c, "DELETE FROM users WHERE id = $1", user)
	}
}

func create(c *sql.DB) {
	for _, user := range users {
		same(do(c, "INSERT INTO users (id, name) VALUES ($1, $2)", user, fmt.Sprint("user ", user)), int64(1))
		same(number(c, "INSERT INTO photos (user_id, caption) VALUES ($1, $2) RETURNING id", user, "first") > 0, true)
	}
}

func read(c *sql.DB) {
	for _, user := range users {
		same(word(c, "SELECT name FROM users WHERE id = $1", user), fmt.Sprint("user ", user))
		photo := number(c, "SELECT id FROM photos WHERE user_id = $1", user)
		same(number(c, "SELECT user_id FROM photos WHERE id = $1", photo), user)
	}
	same(numbers(c, "SELECT id FROM users WHERE id IN ($1, $2) ORDER BY id", users[0], users[5]), []int64{users[0], users[5]})
	joined := "SELECT u.name || '/' || p.caption FROM users u JOIN photos p ON p.user_id = u.id WHERE u.id = $1"
	same(word(c, joined, users[3]), fmt.Sprintf("user %d/first", users[3]))
	same(c.QueryRowContext(ctx, "SELECT name FROM users WHERE id = $1", first+999).Scan(new(string)), sql.ErrNoRows)
}

func update(c *sql.DB) {
	for _, user := range users {
		same(do(c, "UPDATE photos SET caption = $1 WHERE user_id = $2", "updated", user), int64(1))
	}
	same(do(c, "UPDATE photos SET caption = 'updated' WHERE user_id = ANY($1)", pq.Array(users[:4])), int64(4))
}

func remove(c *sql.DB) {
	do(c, "INSERT INTO photos (user_id, caption) VALUES ($1, 'gone')", users[2])
	same(do(c, "DELETE FROM photos WHERE user_id = $1 AND caption = 'gone'", users[2]), int64(1))
	same(do(c, "DELETE FROM photos WHERE user_id = $1 AND caption = 'gone'", users[2]), int64(0))
}

func scatter(c *sql.DB) {
	same(number(c, "SELECT count(*) FROM photos WHERE user_id BETWEEN $1 AND $2", users[0], users[15]), int64(16))
	found := numbers(c, "SELECT id FROM users WHERE id BETWEEN $1 AND $2 ORDER BY id DESC LIMIT 10", users[0], users[15])
	same([]interface{}{len(found), found[0], found[9]}, []interface{}{10, users[15], users[6]})
}

func prepared(c *sql.DB) {
	by, err := c.Prepare("SELECT name, (SELECT count(*) FROM photos WHERE user_id = $1) FROM users WHERE id = $1")
	must(err)
	rename, err := c.Prepare("UPDATE users SET name = $2 WHERE id = $1")
	must(err)
	for turn := 0; turn < 3; turn++ {
		for _, user := range users {
			var name string
			var photos int64
			must(by.QueryRow(user).Scan(&name, &photos))
			same([]interface{}{name, photos}, []interface{}{fmt.Sprint("user ", user), int64(1)})
			_, err = rename.Exec(user, fmt.Sprint("user ", user))
			must(err)
		}
	}
	must(by.Close())
	must(rename.Close())
}

func commit(c *sql.DB) {
	tx := begin(c)
	for _, n := range []int{0, 4, 1} {
		do(tx, "UPDATE users SET name = 'committed' WHERE id = $1", users[n])
	}
	must(tx.Commit())
	same(number(c, "SELECT count(*) FROM users WHERE name = 'committed' AND id = ANY($1)", pq.Array(users)), int64(3))
	tx, err := c.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelSerializable, ReadOnly: true})
	must(err)
	same(word(tx, "SELECT name FROM users WHERE id = $1", users[4]), "committed")
	must(tx.Commit())
}

func rollback(c *sql.DB) {
	tx := begin(c)
	for _, n := range []int{0, 4} {
		do(tx, "UPDATE users SET name = 'never' WHERE id = $1", users[n])
	}
	must(tx.Rollback())
	same(number(c, "SELECT count(*) FROM users WHERE name = 'never' AND id = ANY($1)", pq.Array(users)), int64(0))
}

func savepoint(c *sql.DB) {
	tx := begin(c)
	for _, user := range users[4:6] {
		do(tx, "INSERT INTO photos (user_id, caption) VALUES ($1, 'before')", user)
		do(tx, "SAVEPOINT one")
		do(tx, "INSERT INTO photos (user_id, caption) VALUES ($1, 'undone')", user)
		failing(tx, "23505", "INSERT INTO users (id, name) VALUES ($1, 'twice')", user)
		do(tx, "ROLLBACK TO SAVEPOINT one")
		do(tx, "UPDATE users SET name = 'inside' WHERE id = $1", user)
		do(tx, "RELEASE SAVEPOINT one")
	}
	must(tx.Commit())
	same(words(c, "SELECT caption FROM photos WHERE user_id = $1 ORDER BY id", users[4]), []string{"updated", "before"})
}

func batch(c *sql.DB) {
	// Several statements in one text, and rows of many users in one statement.
	several := []string{}
	for n := 0; n < 2; n++ {
		for _, user := range users {
			several = append(several, fmt.Sprintf("INSERT INTO photos (user_id, caption) VALUES (%d, 'batch %d')", user, n))
		}
	}
	do(c, strings.Join(several, "; "))
	places, values := []string{}, []interface{}{}
	for n, user := range users {
		places = append(places, fmt.Sprintf("($%d, $%d)", 2*n+1, 2*n+2))
		values = append(values, user, "many")
	}
	same(numbers(c, "INSERT INTO photos (user_id, caption) VALUES "+strings.Join(places, ", ")+" RETURNING user_id", values...), users)
	rows, err := c.Query(fmt.Sprintf("SELECT id FROM users WHERE id = %d; SELECT id FROM users WHERE id = %d", users[0], users[4]))
	must(err)
	for _, n := range []int{0, 4} {
		var got int64
		same(rows.Next(), true)
		must(rows.Scan(&got))
		same([]interface{}{got, rows.Next()}, []interface{}{users[n], false})
		same(rows.NextResultSet(), n == 0)
	}
	must(rows.Close())
	same(captions(c, "many"), int64(16))
}

func batchError(c *sql.DB) {
	several := []string{}
	for _, n := range []int{0, 4, 0, 1} {
		several = append(several, fmt.Sprintf("INSERT INTO things (user_id, id) VALUES (%d, 5)", users[n]))
	}
	failing(c, "23505", strings.Join(several, "; "))
	same(number(c, "SELECT count(*) FROM things WHERE id = 5 AND user_id = ANY($1)", pq.Array(users)), int64(0))
}

func copyIn(c *sql.DB) {
	tx := begin(c)
	photos, err := tx.Prepare(pq.CopyIn("photos", "user_id", "caption"))
	must(err)
	for _, user := range users {
		_, err = photos.Exec(user, "copied \t\\ ü🚀")
		must(err)
	}
	result, err := photos.Exec()
	must(err)
	n, err := result.RowsAffected()
	same([]interface{}{n, err}, []interface{}{int64(16), nil})
	must(photos.Close())
	things, err := tx.Prepare(pq.CopyIn("things", "user_id", "id", "note"))
	must(err)
	for _, user := range users {
		_, err = things.Exec(user, 30, nil)
		must(err)
	}
	must(things.Close())
	must(tx.Commit())
	same(captions(c, "copied \t\\ ü🚀"), int64(16))
	// It knows no other end of a COPY than a good one: a bad row ends it.
	tx = begin(c)
	broken, err := tx.Prepare(pq.CopyIn("photos", "user_id", "caption"))
	must(err)
	_, err = broken.Exec(users[0], "lost")
	must(err)
	_, err = broken.Exec("no number", "lost")
	if err == nil {
		_, err = broken.Exec()
	}
	fails("22P02", err)
	_ = broken.Close()
	must(tx.Rollback())
	same(captions(c, "lost"), int64(0))
}

func copyOut(c *sql.DB) {
	panic(missing("lib/pq has no COPY TO STDOUT"))
}

func cursor(c *sql.DB) {
	// lib/pq has no fetch size: a cursor in SQL, in a transaction.
	tx := begin(c)
	do(tx, fmt.Sprintf("DECLARE mine CURSOR FOR SELECT caption FROM photos WHERE user_id = %d ORDER BY id", users[0]))
	sizes := []int{}
	for {
		part := words(tx, "FETCH 2 FROM mine")
		if len(part) == 0 {
			break
		}
		sizes = append(sizes, len(part))
	}
	same(sizes, []int{2, 2, 1})
	do(tx, "CLOSE mine")
	must(tx.Commit())
	// A result that is not read to its end.
	rows, err := c.QueryContext(ctx, "SELECT id FROM users WHERE id BETWEEN $1 AND $2", users[0], users[15])
	must(err)
	same(rows.Next(), true)
	rows.Close()
	must(rows.Err())
}

func uniqueViolation(c *sql.DB) {
	e := failing(c, "23505", "INSERT INTO users (id, name) VALUES ($1, 'twice')", users[6])
	same([]string{e.Table, e.Constraint}, []string{"users", "users_pkey"})
	same(word(c, "SELECT name FROM users WHERE id = $1", users[6]), fmt.Sprint("user ", users[6]))
}

func syntaxError(c *sql.DB) {
	failing(c, "42601", "SELEC 1")
	failing(c, "42601", "SELECT name FRM users WHERE id = $1", users[0])
	failing(c, "42703", "SELECT nothing FROM users WHERE id = $1", users[0])
	same(number(c, "SELECT 1"), int64(1))
}

func failedTransaction(c *sql.DB) {
	tx := begin(c)
	do(tx, "INSERT INTO photos (user_id, caption) VALUES ($1, 'lost')", users[0])
	failing(tx, "22012", "SELECT 1 / (id - id) FROM users WHERE id = $1", users[0])
	failing(tx, "25P02", "SELECT 1")
	same(tx.Commit() != nil, true)
	same(captions(c, "lost"), int64(0))
}

func cancel(c *sql.DB) {
	for _, query := range []string{"SELECT pg_sleep(60)", fmt.Sprint("SELECT pg_sleep(60) FROM users WHERE id = ", users[0])} {
		soon, stop := context.WithTimeout(ctx, 200*time.Millisecond)
		_, err := c.ExecContext(soon, query)
		stop()
		fails("57014", err)
		same(number(c, "SELECT 1"), int64(1))
	}
}

func put(c *sql.DB, id int, column string, values ...interface{}) {
	for _, user := range users[:8] {
		for n, value := range values {
			do(c, "INSERT INTO things (user_id, id, "+column+") VALUES ($1, $2, $3)", user, id+n, value)
		}
	}
}

// Into `into`, a pointer, for each user.
func got(c *sql.DB, id int, columns string, expected interface{}) {
	for _, user := range users[:8] {
		into := reflect.New(reflect.TypeOf(expected))
		must(c.QueryRowContext(ctx, "SELECT "+columns+" FROM things WHERE user_id = $1 AND id = $2", user, id).Scan(into.Interface()))
		same(into.Elem().Interface(), expected)
	}
}

func arrays(c *sql.DB) {
	put(c, 100, "numbers", "{1,NULL,-3,2147483647}", pq.Array([]int64{}))
	put(c, 110, "words", pq.Array([]sql.NullString{{"a", true}, {"b c", true}, {"quo\"te", true}, {"", true}, {}, {"NULL", true}, {"ünï,{}\\", true}}))
	for _, user := range users[:8] {
		var ints []sql.NullInt64
		var texts []sql.NullString
		must(c.QueryRow("SELECT numbers FROM things WHERE user_id = $1 AND id = 100", user).Scan(pq.Array(&ints)))
		same(ints, []sql.NullInt64{{1, true}, {}, {-3, true}, {2147483647, true}})
		must(c.QueryRow("SELECT words FROM things WHERE user_id = $1 AND id = 110", user).Scan(pq.Array(&texts)))
		same([]interface{}{texts[2].String, texts[4].Valid, texts[6].String}, []interface{}{"quo\"te", false, "ünï,{}\\"})
		same(word(c, "SELECT numbers FROM things WHERE user_id = $1 AND id = 101", user), "{}")
	}
	same(numbers(c, "SELECT id FROM users WHERE id = ANY($1) ORDER BY id", pq.Array(users[3:9])), users[3:9])
	same(number(c, "SELECT id FROM things WHERE user_id = $1 AND $2 = ANY(words)", users[1], "b c"), int64(110))
}

func json(c *sql.DB) {
	put(c, 200, "data", data)
	put(c, 201, "doc", data)
	got(c, 200, "data::text", data)
	got(c, 201, "doc::text", data)
	for _, user := range users[:8] {
		same(number(c, "SELECT id FROM things WHERE user_id = $1 AND data ->> 'a' = $2 AND data ? 'c'", user, "1"), int64(200))
	}
}

func timestamps(c *sql.DB) {
	at := time.Date(2024, 2, 29, 12, 34, 56, 789012000, time.UTC)
	local := time.Date(2024, 12, 31, 23, 59, 59, 999999000, time.UTC)
	day := time.Date(1999, 12, 31, 0, 0, 0, 0, time.UTC)
	put(c, 300, "at", at)
	put(c, 301, "local", local)
	put(c, 302, "day", day)
	do(c, "SET TIME ZONE 'Asia/Kathmandu'")
	got(c, 300, "at::text", "2024-02-29 18:19:56.789012+05:45")
	for _, user := range users[:8] {
		var back time.Time
		must(c.QueryRowContext(ctx, "SELECT at FROM things WHERE user_id = $1 AND id = 300", user).Scan(&back))
		same(back.Equal(at), true)
		must(c.QueryRowContext(ctx, "SELECT local FROM things WHERE user_id = $1 AND id = 301", user).Scan(&back))
		same(back.UTC(), local)
		must(c.QueryRowContext(ctx, "SELECT day FROM things WHERE user_id = $1 AND id = 302", user).Scan(&back))
		same(back.UTC(), day)
	}
	do(c, "RESET TIME ZONE")
}

func numerics(c *sql.DB) {
	put(c, 400, "price", price, "-"+price)
	put(c, 410, "big", big)
	put(c, 420, "ratio", math.Inf(1), math.NaN(), 0.1)
	got(c, 401, "price::text", "-"+price)
	got(c, 410, "big::text", big)
	got(c, 420, "ratio", math.Inf(1))
	got(c, 422, "ratio", 0.1)
	for _, user := range users[:8] {
		var none float64
		must(c.QueryRowContext(ctx, "SELECT ratio FROM things WHERE user_id = $1 AND id = 421", user).Scan(&none))
		same(math.IsNaN(none), true)
	}
	total := "SELECT sum(price)::text FROM things WHERE user_id BETWEEN $1 AND $2 AND id = 400"
	same(word(c, total, users[0], users[15]), "98765431209876.543128")
}

func null(c *sql.DB) {
	columns := "numbers, words, data, doc, at, local, day, price, big, ratio, bytes, flag, note"
	places := ""
	for n := 2; n < 15; n++ {
		places += ", $" + strconv.Itoa(n)
	}
	for _, user := range users[:8] {
		values := make([]interface{}, 14)
		values[0] = user
		do(c, "INSERT INTO things (user_id, id, "+columns+") VALUES ($1, 500"+places+")", values...)
		rows, err := c.QueryContext(ctx, "SELECT "+columns+" FROM things WHERE user_id = $1 AND id = 500", user)
		must(err)
		same(rows.Next(), true)
		back, into := make([]interface{}, 13), make([]interface{}, 13)
		for n := range back {
			into[n] = &back[n]
		}
		must(rows.Scan(into...))
		same(back, make([]interface{}, 13))
		must(rows.Close())
		same(number(c, "SELECT id FROM things WHERE user_id = $1 AND id >= 500 AND note IS NULL", user), int64(500))
	}
}

func bytea(c *sql.DB) {
	all := make([]byte, 256)
	for n := range all {
		all[n] = byte(n)
	}
	put(c, 600, "bytes", all, []byte{}, bytes.Repeat(all, 400))
	got(c, 600, "bytes", all)
	got(c, 601, "bytes", []byte{})
	got(c, 602, "bytes", bytes.Repeat(all, 400))
}

func unicode(c *sql.DB) {
	put(c, 700, "note", text)
	got(c, 700, "note", text)
	got(c, 700, "length(note)", int32(len([]rune(text))))
	same(number(c, "SELECT id FROM things WHERE user_id = $1 AND note = $2", users[0], text), int64(700))
	same(word(c, fmt.Sprintf("SELECT '東🚀''' FROM things WHERE user_id = %d AND note LIKE '%%🚀%%'", users[0])), "東🚀'")
}

func pool(*sql.DB) {
	connections, err := sql.Open("postgres", url+"&application_name=pool")
	must(err)
	defer connections.Close()
	connections.SetMaxOpenConns(16)
	faults := make(chan interface{}, 16)
	var all sync.WaitGroup
	for n := 0; n < 16; n++ {
		all.Add(1)
		go func(n int) {
			defer all.Done()
			defer func() {
				if e := recover(); e != nil {
					faults <- e
				}
			}()
			for turn := 0; turn < 10; turn++ {
				user := users[(n+turn)%16]
				same(number(connections, "SELECT id FROM users WHERE id = $1", user), user)
				same(word(connections, "SHOW application_name"), "pool")
				must(connections.Ping())
			}
		}(n)
	}
	all.Wait()
	select {
	case e := <-faults:
		panic(e)
	default:
	}
}

// Parameters in binary, and the statement in one message each.
func alsoBinaryParameters(*sql.DB) {
	c, err := sql.Open("postgres", url+"&binary_parameters=yes")
	must(err)
	defer c.Close()
	for _, user := range users {
		same(number(c, "SELECT id FROM users WHERE id = $1", user), user)
	}
}

func main() {
	first, _ = strconv.ParseInt(os.Getenv("FIRST"), 10, 64)
	for n := int64(0); n < 16; n++ {
		users = append(users, first+n)
	}
	steps := []struct {
		name string
		step func(*sql.DB)
	}{
		{"connect", connect}, {"create", create}, {"read", read}, {"update", update}, {"delete", remove}, {"scatter", scatter},
		{"prepared", prepared}, {"commit", commit}, {"rollback", rollback}, {"savepoint", savepoint}, {"batch", batch},
		{"batch_error", batchError}, {"copy_in", copyIn}, {"copy_out", copyOut}, {"cursor", cursor},
		{"unique_violation", uniqueViolation}, {"syntax_error", syntaxError}, {"failed_transaction", failedTransaction},
		{"cancel", cancel}, {"arrays", arrays}, {"json", json}, {"timestamps", timestamps}, {"numerics", numerics}, {"null", null},
		{"bytea", bytea}, {"unicode", unicode}, {"pool", pool}, {"also binary parameters", alsoBinaryParameters},
	}
	failed := false
	var c *sql.DB
	for _, step := range steps {
		func() {
			defer func() {
				switch e := recover().(type) {
				case nil:
					fmt.Println("ok", step.name)
				case missing:
					fmt.Printf("none %s: %s\n", step.name, e)
				default:
					failed = true
					fmt.Printf("fail %s: %s\n", step.name, strings.Join(strings.Fields(fmt.Sprint(e)), " "))
					if c != nil {
						_ = c.Close()
					}
					c = nil
				}
			}()
			if c == nil {
				fresh, err := sql.Open("postgres", url)
				must(err)
				fresh.SetMaxOpenConns(1)
				c = fresh
			}
			step.step(c)
		}()
	}
	if failed {
		os.Exit(1)
	}
}
