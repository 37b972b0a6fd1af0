// pgx 4 and its pool: see ../../steps.txt. It prepares under names, sends and reads binary, and batches in one write.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"reflect"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgconn"
	"github.com/jackc/pgtype"
	"github.com/jackc/pgx/v4"
	"github.com/jackc/pgx/v4/pgxpool"
)

const (
	text  = "Grüße 東京 🚀 \\ ' \" $1 %s -- /* {} \\N \t."
	data  = `{"a": 1, "b": [true, null, "ü'\"\\"], "c": {"x": 1.5}}`
	price = "12345678901234.567891"
	big   = "1234567890123456789012345678901234567890.0123456789"
)

var (
	ctx   = context.Background()
	url   = os.Getenv("DATABASE_URL")
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

func fails(code string, err error) *pgconn.PgError {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) || pg.Code != code {
		panic(fmt.Errorf("expected %s, got %v", code, err))
	}
	return pg
}

// What a connection and a transaction both do.
type querier interface {
	Exec(ctx context.Context, sql string, arguments ...interface{}) (pgconn.CommandTag, error)
	Query(ctx context.Context, sql string, arguments ...interface{}) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, arguments ...interface{}) pgx.Row
}

func do(q querier, sql string, arguments ...interface{}) int64 {
	tag, err := q.Exec(ctx, sql, arguments...)
	must(err)
	return tag.RowsAffected()
}

func failing(q querier, code, sql string, arguments ...interface{}) *pgconn.PgError {
	_, err := q.Exec(ctx, sql, arguments...)
	return fails(code, err)
}

func number(q querier, sql string, arguments ...interface{}) (n int64) {
	must(q.QueryRow(ctx, sql, arguments...).Scan(&n))
	return n
}

func word(q querier, sql string, arguments ...interface{}) (s string) {
	must(q.QueryRow(ctx, sql, arguments...).Scan(&s))
	return s
}

func numbers(q querier, sql string, arguments ...interface{}) []int64 {
	rows, err := q.Query(ctx, sql, arguments...)
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

func words(q querier, sql string, arguments ...interface{}) []string {
	rows, err := q.Query(ctx, sql, arguments...)
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
	return number(q, "SELECT count(*) FROM photos WHERE user_id = ANY($1) AND caption = $2", users, caption)
}

func connect(c *pgx.Conn) {
	fmt.Println("version 4 (Debian)")
	same(c.PgConn().ParameterStatus("client_encoding"), "UTF8")
	for _, user := range users {
		do(c, "DELETE FROM things WHERE user_id = $1", user)
		do(c, "DELETE FROM photos WHERE user_id = $1", user)
		do(c, "DELETE FROM users WHERE id = $1", user)
	}
}

func create(c *pgx.Conn) {
	for _, user := range users {
		same(do(c, "INSERT INTO users (id, name) VALUES ($1, $2)", user, fmt.Sprint("user ", user)), int64(1))
		same(number(c, "INSERT INTO photos (user_id, caption) VALUES ($1, $2) RETURNING id", user, "first") > 0, true)
	}
}

func read(c *pgx.Conn) {
	for _, user := range users {
		same(word(c, "SELECT name FROM users WHERE id = $1", user), fmt.Sprint("user ", user))
		photo := number(c, "SELECT id FROM photos WHERE user_id = $1", user)
		same(number(c, "SELECT user_id FROM photos WHERE id = $1", photo), user)
	}
	same(numbers(c, "SELECT id FROM users WHERE id IN ($1, $2) ORDER BY id", users[0], users[5]), []int64{users[0], users[5]})
	joined := "SELECT u.name || '/' || p.caption FROM users u JOIN photos p ON p.user_id = u.id WHERE u.id = $1"
	same(word(c, joined, users[3]), fmt.Sprintf("user %d/first", users[3]))
	same(c.QueryRow(ctx, "SELECT name FROM users WHERE id = $1", first+999).Scan(new(string)), pgx.ErrNoRows)
}

func update(c *pgx.Conn) {
	for _, user := range users {
		same(do(c, "UPDATE photos SET caption = $1 WHERE user_id = $2", "updated", user), int64(1))
	}
	same(do(c, "UPDATE photos SET caption = 'updated' WHERE user_id = ANY($1)", users[:4]), int64(4))
}

func remove(c *pgx.Conn) {
	do(c, "INSERT INTO photos (user_id, caption) VALUES ($1, 'gone')", users[2])
	same(do(c, "DELETE FROM photos WHERE user_id = $1 AND caption = 'gone'", users[2]), int64(1))
	same(do(c, "DELETE FROM photos WHERE user_id = $1 AND caption = 'gone'", users[2]), int64(0))
}

func scatter(c *pgx.Conn) {
	same(number(c, "SELECT count(*) FROM photos WHERE user_id BETWEEN $1 AND $2", users[0], users[15]), int64(16))
	found := numbers(c, "SELECT id FROM users WHERE id BETWEEN $1 AND $2 ORDER BY id DESC LIMIT 10", users[0], users[15])
	same([]interface{}{len(found), found[0], found[9]}, []interface{}{10, users[15], users[6]})
}

func prepared(c *pgx.Conn) {
	by, err := c.Prepare(ctx, "by user", "SELECT name, (SELECT count(*) FROM photos WHERE user_id = $1) FROM users WHERE id = $1")
	must(err)
	same(by.ParamOIDs, []uint32{pgtype.Int8OID})
	_, err = c.Prepare(ctx, "rename", "UPDATE users SET name = $2 WHERE id = $1")
	must(err)
	for turn := 0; turn < 3; turn++ {
		for _, user := range users {
			var name string
			var photos int64
			must(c.QueryRow(ctx, "by user", user).Scan(&name, &photos))
			same([]interface{}{name, photos}, []interface{}{fmt.Sprint("user ", user), int64(1)})
			same(do(c, "rename", user, fmt.Sprint("user ", user)), int64(1))
		}
	}
	must(c.Deallocate(ctx, "rename"))
	must(c.Deallocate(ctx, "by user"))
}

func commit(c *pgx.Conn) {
	must(c.BeginFunc(ctx, func(tx pgx.Tx) error {
		for _, n := range []int{0, 4, 1} {
			do(tx, "UPDATE users SET name = 'committed' WHERE id = $1", users[n])
		}
		return nil
	}))
	same(number(c, "SELECT count(*) FROM users WHERE name = 'committed' AND id = ANY($1)", users), int64(3))
	options := pgx.TxOptions{IsoLevel: pgx.Serializable, AccessMode: pgx.ReadOnly, DeferrableMode: pgx.Deferrable}
	must(c.BeginTxFunc(ctx, options, func(tx pgx.Tx) error {
		same(word(tx, "SELECT name FROM users WHERE id = $1", users[4]), "committed")
		return nil
	}))
}

func rollback(c *pgx.Conn) {
	tx, err := c.Begin(ctx)
	must(err)
	for _, n := range []int{0, 4} {
		do(tx, "UPDATE users SET name = 'never' WHERE id = $1", users[n])
	}
	must(tx.Rollback(ctx))
	same(number(c, "SELECT count(*) FROM users WHERE name = 'never' AND id = ANY($1)", users), int64(0))
}

func savepoint(c *pgx.Conn) {
	tx, err := c.Begin(ctx)
	must(err)
	for _, user := range users[4:6] {
		do(tx, "INSERT INTO photos (user_id, caption) VALUES ($1, 'before')", user)
		inner, err := tx.Begin(ctx)
		must(err)
		do(inner, "INSERT INTO photos (user_id, caption) VALUES ($1, 'undone')", user)
		failing(inner, "23505", "INSERT INTO users (id, name) VALUES ($1, 'twice')", user)
		must(inner.Rollback(ctx))
		must(tx.BeginFunc(ctx, func(tx pgx.Tx) error {
			do(tx, "UPDATE users SET name = 'inside' WHERE id = $1", user)
			return nil
		}))
	}
	must(tx.Commit(ctx))
	same(words(c, "SELECT caption FROM photos WHERE user_id = $1 ORDER BY id", users[4]), []string{"updated", "before"})
}

func batch(c *pgx.Conn) {
	queued := &pgx.Batch{}
	for n := 0; n < 3; n++ {
		for _, user := range users {
			queued.Queue("INSERT INTO photos (user_id, caption) VALUES ($1, $2)", user, fmt.Sprint("batch ", n))
		}
	}
	for _, user := range users {
		queued.Queue("UPDATE photos SET caption = 'many' WHERE user_id = $1 AND caption = 'batch 2' RETURNING user_id", user)
	}
	results := c.SendBatch(ctx, queued)
	for n := 0; n < 48; n++ {
		tag, err := results.Exec()
		must(err)
		same(tag.RowsAffected(), int64(1))
	}
	for _, user := range users {
		var got int64
		must(results.QueryRow().Scan(&got))
		same(got, user)
	}
	must(results.Close())
	same(captions(c, "many"), int64(16))
}

func batchError(c *pgx.Conn) {
	queued := &pgx.Batch{}
	for _, n := range []int{0, 4, 0, 1} {
		queued.Queue("INSERT INTO things (user_id, id) VALUES ($1, 5)", users[n])
	}
	results := c.SendBatch(ctx, queued)
	var err error
	for n := 0; n < 4 && err == nil; n++ {
		_, err = results.Exec()
	}
	fails("23505", err)
	results.Close()
	same(number(c, "SELECT count(*) FROM things WHERE id = 5 AND user_id = ANY($1)", users), int64(0))
}

type breaks struct{ left int }

func (b *breaks) Next() bool { b.left--; return true }
func (b *breaks) Values() ([]interface{}, error) {
	if b.left < 0 {
		return nil, errors.New("the client breaks off")
	}
	return []interface{}{users[0], "lost"}, nil
}
func (b *breaks) Err() error { return nil }

func copyIn(c *pgx.Conn) {
	// In binary.
	rows := [][]interface{}{}
	for _, user := range users {
		rows = append(rows, []interface{}{user, "copied \t\\ ü🚀"})
	}
	n, err := c.CopyFrom(ctx, pgx.Identifier{"photos"}, []string{"user_id", "caption"}, pgx.CopyFromRows(rows))
	must(err)
	same(n, int64(16))
	csv := ""
	for _, user := range users {
		csv += fmt.Sprintf("%d,30,\n", user)
	}
	tag, err := c.PgConn().CopyFrom(ctx, strings.NewReader(csv), "COPY things (user_id, id, note) FROM STDIN (FORMAT csv)")
	must(err)
	same(tag.RowsAffected(), int64(16))
	same(captions(c, "copied \t\\ ü🚀"), int64(16))
	_, err = c.CopyFrom(ctx, pgx.Identifier{"photos"}, []string{"user_id", "caption"}, &breaks{1})
	same(err != nil, true)
	same(captions(c, "lost"), int64(0))
}

func copyOut(c *pgx.Conn) {
	var out bytes.Buffer
	_, err := c.PgConn().CopyTo(ctx, &out, fmt.Sprintf("COPY (SELECT name, NULL FROM users WHERE id = %d) TO STDOUT", users[9]))
	must(err)
	same(out.String(), fmt.Sprintf("user %d\t\\N\n", users[9]))
	out.Reset()
	_, err = c.PgConn().CopyTo(ctx, &out, fmt.Sprintf("COPY (SELECT id FROM users WHERE id BETWEEN %d AND %d) TO STDOUT", users[0], users[15]))
	must(err)
	lines := strings.Fields(out.String())
	sort.Strings(lines)
	same(lines, strings.Fields(strings.Trim(fmt.Sprint(users), "[]")))
}

func cursor(c *pgx.Conn) {
	// pgx has no fetch size: a cursor in SQL, in a transaction.
	tx, err := c.Begin(ctx)
	must(err)
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
	must(tx.Commit(ctx))
	// A result that is not read to its end.
	rows, err := c.Query(ctx, "SELECT id FROM users WHERE id BETWEEN $1 AND $2", users[0], users[15])
	must(err)
	same(rows.Next(), true)
	rows.Close()
	must(rows.Err())
}

func uniqueViolation(c *pgx.Conn) {
	e := failing(c, "23505", "INSERT INTO users (id, name) VALUES ($1, 'twice')", users[6])
	same([]string{e.TableName, e.ConstraintName}, []string{"users", "users_pkey"})
	same(word(c, "SELECT name FROM users WHERE id = $1", users[6]), fmt.Sprint("user ", users[6]))
}

func syntaxError(c *pgx.Conn) {
	failing(c, "42601", "SELEC 1")
	failing(c, "42601", "SELECT name FRM users WHERE id = $1", users[0])
	failing(c, "42703", "SELECT nothing FROM users WHERE id = $1", users[0])
	same(number(c, "SELECT 1"), int64(1))
}

func failedTransaction(c *pgx.Conn) {
	tx, err := c.Begin(ctx)
	must(err)
	do(tx, "INSERT INTO photos (user_id, caption) VALUES ($1, 'lost')", users[0])
	failing(tx, "22012", "SELECT 1 / (id - id) FROM users WHERE id = $1", users[0])
	failing(tx, "25P02", "SELECT 1")
	same(errors.Is(tx.Commit(ctx), pgx.ErrTxCommitRollback), true)
	same(captions(c, "lost"), int64(0))
}

func cancel(c *pgx.Conn) {
	for _, sql := range []string{"SELECT pg_sleep(60)", fmt.Sprint("SELECT pg_sleep(60) FROM users WHERE id = ", users[0])} {
		done := make(chan bool)
		go func() {
			for {
				select {
				case <-done:
					return
				case <-time.After(100 * time.Millisecond):
					_ = c.PgConn().CancelRequest(ctx)
				}
			}
		}()
		failing(c, "57014", sql)
		done <- true
		_, _ = c.Exec(ctx, "SELECT 1")
		same(number(c, "SELECT 1"), int64(1))
	}
}

func put(c *pgx.Conn, id int, column string, values ...interface{}) {
	for _, user := range users[:8] {
		for n, value := range values {
			do(c, "INSERT INTO things (user_id, id, "+column+") VALUES ($1, $2, $3)", user, id+n, value)
		}
	}
}

// Into `into`, a pointer, for each user.
func got(c *pgx.Conn, id int, columns string, expected interface{}) {
	for _, user := range users[:8] {
		into := reflect.New(reflect.TypeOf(expected))
		must(c.QueryRow(ctx, "SELECT "+columns+" FROM things WHERE user_id = $1 AND id = $2", user, id).Scan(into.Interface()))
		same(into.Elem().Interface(), expected)
	}
}

func arrays(c *pgx.Conn) {
	one, three, most := int32(1), int32(-3), int32(2147483647)
	a, b, quote, empty, null, odd := "a", "b c", "quo\"te", "", "NULL", "ünï,{}\\"
	ints, texts := []*int32{&one, nil, &three, &most}, []*string{&a, &b, &quote, &empty, nil, &null, &odd}
	put(c, 100, "numbers", ints, []int32{})
	put(c, 110, "words", texts)
	got(c, 100, "numbers", ints)
	got(c, 101, "numbers", []int32{})
	got(c, 110, "words", texts)
	same(numbers(c, "SELECT id FROM users WHERE id = ANY($1) ORDER BY id", users[3:9]), users[3:9])
	same(number(c, "SELECT id FROM things WHERE user_id = $1 AND $2 = ANY(words)", users[1], "b c"), int64(110))
}

func json(c *pgx.Conn) {
	document := map[string]interface{}{"a": 1.0, "b": []interface{}{true, nil, "ü'\"\\"}, "c": map[string]interface{}{"x": 1.5}}
	put(c, 200, "data", document)
	put(c, 201, "doc", []byte(data))
	got(c, 200, "data", document)
	got(c, 201, "doc", document)
	for _, user := range users[:8] {
		same(number(c, "SELECT id FROM things WHERE user_id = $1 AND data ->> 'a' = $2 AND data ? 'c'", user, "1"), int64(200))
	}
}

func timestamps(c *pgx.Conn) {
	at := time.Date(2024, 2, 29, 12, 34, 56, 789012000, time.UTC)
	local := time.Date(2024, 12, 31, 23, 59, 59, 999999000, time.UTC)
	day := time.Date(1999, 12, 31, 0, 0, 0, 0, time.UTC)
	put(c, 300, "at", at)
	put(c, 301, "local", local)
	put(c, 302, "day", day)
	got(c, 301, "local", local)
	got(c, 302, "day", day)
	do(c, "SET TIME ZONE 'Asia/Kathmandu'")
	got(c, 300, "at::text", "2024-02-29 18:19:56.789012+05:45")
	for _, user := range users[:8] {
		var back time.Time
		must(c.QueryRow(ctx, "SELECT at FROM things WHERE user_id = $1 AND id = 300", user).Scan(&back))
		same(back.Equal(at), true)
	}
	same(c.PgConn().ParameterStatus("TimeZone"), "Asia/Kathmandu")
	do(c, "RESET TIME ZONE")
}

func numerics(c *pgx.Conn) {
	put(c, 400, "price", price, "-"+price)
	put(c, 410, "big", big)
	put(c, 420, "ratio", math.Inf(1), math.NaN(), 0.1)
	got(c, 401, "price::text", "-"+price)
	got(c, 410, "big::text", big)
	got(c, 420, "ratio", math.Inf(1))
	got(c, 422, "ratio", 0.1)
	for _, user := range users[:8] {
		var exact pgtype.Numeric
		var none float64
		must(c.QueryRow(ctx, "SELECT big FROM things WHERE user_id = $1 AND id = 410", user).Scan(&exact))
		same([]interface{}{exact.Int.String() + "", exact.Exp}, []interface{}{strings.Replace(big, ".", "", 1), int32(-10)})
		must(c.QueryRow(ctx, "SELECT ratio FROM things WHERE user_id = $1 AND id = 421", user).Scan(&none))
		same(math.IsNaN(none), true)
	}
	total := "SELECT sum(price)::text FROM things WHERE user_id BETWEEN $1 AND $2 AND id = 400"
	same(word(c, total, users[0], users[15]), "98765431209876.543128")
}

func null(c *pgx.Conn) {
	columns := "numbers, words, data, doc, at, local, day, price, big, ratio, bytes, flag, note"
	places := ""
	for n := 2; n < 15; n++ {
		places += ", $" + strconv.Itoa(n)
	}
	for _, user := range users[:8] {
		values := make([]interface{}, 14)
		values[0] = user
		do(c, "INSERT INTO things (user_id, id, "+columns+") VALUES ($1, 500"+places+")", values...)
		rows, err := c.Query(ctx, "SELECT "+columns+" FROM things WHERE user_id = $1 AND id = 500", user)
		must(err)
		same(rows.Next(), true)
		back, err := rows.Values()
		must(err)
		same(back, make([]interface{}, 13))
		rows.Close()
		same(number(c, "SELECT id FROM things WHERE user_id = $1 AND id >= 500 AND note IS NULL", user), int64(500))
	}
}

func bytea(c *pgx.Conn) {
	all := make([]byte, 256)
	for n := range all {
		all[n] = byte(n)
	}
	put(c, 600, "bytes", all, []byte{}, bytes.Repeat(all, 400))
	got(c, 600, "bytes", all)
	got(c, 601, "bytes", []byte{})
	got(c, 602, "bytes", bytes.Repeat(all, 400))
}

func unicode(c *pgx.Conn) {
	put(c, 700, "note", text)
	got(c, 700, "note", text)
	got(c, 700, "length(note)", int32(len([]rune(text))))
	same(number(c, "SELECT id FROM things WHERE user_id = $1 AND note = $2", users[0], text), int64(700))
	same(word(c, fmt.Sprintf("SELECT '東🚀''' FROM things WHERE user_id = %d AND note LIKE '%%🚀%%'", users[0])), "東🚀'")
}

func pool(*pgx.Conn) {
	connections, err := pgxpool.Connect(ctx, url+"?pool_max_conns=16&application_name=pool")
	must(err)
	defer connections.Close()
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
				must(connections.Ping(ctx))
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

// Without prepared statements: the simple protocol, or names that are described and not prepared.
func alsoOtherWays(*pgx.Conn) {
	for _, option := range []string{"statement_cache_mode=describe", "statement_cache_capacity=0"} {
		c, err := pgx.Connect(ctx, url+"?"+option)
		must(err)
		for _, user := range users {
			same(number(c, "SELECT id FROM users WHERE id = $1", user), user)
			same(number(c, "SELECT id FROM users WHERE id = $1", pgx.QuerySimpleProtocol(true), user), user)
		}
		must(c.Close(ctx))
	}
}

func alsoNotifications(c *pgx.Conn) {
	channel := fmt.Sprint("of_pgx_", first)
	do(c, "LISTEN "+channel)
	other, err := pgx.Connect(ctx, url)
	must(err)
	for n := 0; n < 3; n++ {
		do(other, "SELECT pg_notify($1, $2)", channel, fmt.Sprint("é", n))
	}
	must(other.Close(ctx))
	soon, stop := context.WithTimeout(ctx, 20*time.Second)
	defer stop()
	for n := 0; n < 3; n++ {
		heard, err := c.WaitForNotification(soon)
		must(err)
		same(heard.Payload, fmt.Sprint("é", n))
	}
	same(number(c, "SELECT id FROM users WHERE id = $1", users[4]), users[4])
	do(c, "UNLISTEN *")
}

func main() {
	first, _ = strconv.ParseInt(os.Getenv("FIRST"), 10, 64)
	for n := int64(0); n < 16; n++ {
		users = append(users, first+n)
	}
	steps := []struct {
		name string
		step func(*pgx.Conn)
	}{
		{"connect", connect}, {"create", create}, {"read", read}, {"update", update}, {"delete", remove}, {"scatter", scatter},
		{"prepared", prepared}, {"commit", commit}, {"rollback", rollback}, {"savepoint", savepoint}, {"batch", batch},
		{"batch_error", batchError}, {"copy_in", copyIn}, {"copy_out", copyOut}, {"cursor", cursor},
		{"unique_violation", uniqueViolation}, {"syntax_error", syntaxError}, {"failed_transaction", failedTransaction},
		{"cancel", cancel}, {"arrays", arrays}, {"json", json}, {"timestamps", timestamps}, {"numerics", numerics}, {"null", null},
		{"bytea", bytea}, {"unicode", unicode}, {"pool", pool}, {"also without prepared statements", alsoOtherWays},
		{"also notifications", alsoNotifications},
	}
	failed := false
	var c *pgx.Conn
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
						_ = c.Close(ctx)
					}
					c = nil
				}
			}()
			if c == nil {
				fresh, err := pgx.Connect(ctx, url)
				must(err)
				c = fresh
			}
			step.step(c)
		}()
	}
	if failed {
		os.Exit(1)
	}
}
