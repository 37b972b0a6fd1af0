//! SET, RESET, SHOW and DISCARD, and what they tell the client.

use super::{Script, WRITE, compare, step, twins};
use crate::support::Proxy;
use crate::support::raw::{b, dp, ds, e, p, q, s};

fn settings() -> Vec<Script> {
    let of =
        |sql: &'static [&'static str]| sql.iter().map(|sql| step(&[q(sql)], 1)).collect::<Vec<_>>();
    vec![
        (
            "SET, SHOW, RESET",
            of(&[
                "SET work_mem TO '7MB'",
                "SHOW work_mem",
                "SET work_mem TO DEFAULT",
                "SHOW work_mem",
                "SET SESSION work_mem = 7000",
                "RESET work_mem",
                "SHOW work_mem",
            ]),
        ),
        (
            "spellings of their own",
            of(&[
                "SET TIME ZONE 'Europe/Vienna'",
                "SHOW timezone",
                "SHOW TIME ZONE",
                "SET TIME ZONE LOCAL",
                "SHOW timezone",
                "SET NAMES 'LATIN1'",
                "SHOW client_encoding",
                "SET client_encoding = 'utf-8'",
                "SHOW client_encoding",
                "SET client_encoding TO \"'iso 8859-15'\"",
                "SHOW client_encoding",
                "SET client_encoding TO 'utf8nothing'",
                "SHOW client_encoding",
                "RESET client_encoding",
                "SHOW client_encoding",
            ]),
        ),
        (
            "lists",
            of(&[
                "SET DateStyle = 'SQL', 'DMY'",
                "SHOW datestyle",
                "SET search_path TO a, b, \"C d\"",
                "SHOW search_path",
                "RESET ALL",
                "SHOW search_path",
            ]),
        ),
        (
            "errors",
            of(&[
                "SET nosuch = 1",
                "SET work_mem = 'x'",
                "SHOW nosuch",
                "RESET nosuch",
                "SET work_mem",
                "SET LOCAL",
            ]),
        ),
        (
            "custom ones",
            of(&[
                "SET app.me = '42'",
                "SHOW app.me",
                "SELECT current_setting('app.me')",
                "RESET app.me",
                "SHOW app.me",
                "SET app.user = 1",
                "SHOW app.nosuch",
            ]),
        ),
        (
            "set_config",
            of(&[
                "SELECT set_config('work_mem', '7MB', false)",
                "SHOW work_mem",
                "BEGIN",
                "SELECT set_config('work_mem', '8MB', true)",
                "SHOW work_mem",
                "COMMIT",
                "SHOW work_mem",
                "SELECT pg_catalog.set_config('search_path', '', false)",
                "SHOW search_path",
            ]),
        ),
        (
            "several set_config at once",
            of(&[
                "SELECT set_config('work_mem', '7MB', false), set_config('app.a', 'x', false)",
                // asyncpg, before it looks types up.
                "SELECT current_setting('work_mem') AS cur, set_config('work_mem', '6MB', false) AS new",
                "SHOW work_mem",
                "SELECT current_setting('app.nothing', true), pg_catalog.set_config('app.a', 'y', false)",
                "SHOW app.a",
                "SHOW work_mem",
                "SHOW app.a",
                "SELECT caption FROM photos WHERE user_id = 5 ORDER BY id",
                "SHOW app.a",
            ]),
        ),
        (
            "characteristics",
            of(&[
                "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
                "SHOW transaction_read_only",
                WRITE,
                "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE",
                "SHOW transaction_read_only",
                "SHOW default_transaction_read_only",
            ]),
        ),
        (
            "role",
            of(&[
                "SET ROLE app",
                "SELECT current_user",
                "SET ROLE NONE",
                "SET ROLE nosuch",
                "RESET ROLE",
                "SELECT current_user",
            ]),
        ),
        (
            "SHOW in the extended protocol",
            vec![step(
                &[
                    p("", "SHOW work_mem"),
                    ds(""),
                    b("", "", &[]),
                    dp(""),
                    e("", 0),
                    s(),
                ],
                1,
            )],
        ),
        (
            "timeouts",
            of(&[
                "SET statement_timeout = 50",
                "SELECT pg_sleep(1)",
                "SELECT 1",
                "SET statement_timeout = 0",
                "SELECT pg_sleep(0.06) IS NULL",
            ]),
        ),
        ("seed", of(&["SET SEED TO 0.5", "SELECT 1", "RESET seed"])),
        (
            "constraints",
            of(&[
                "SET CONSTRAINTS ALL DEFERRED",
                "BEGIN",
                "SET CONSTRAINTS ALL IMMEDIATE",
                "SELECT 1",
                "COMMIT",
            ]),
        ),
        (
            "notices",
            of(&["DO $$ BEGIN RAISE NOTICE 'hello'; END $$ /* presplit: key=1 */"]),
        ),
        (
            "cursors and discards",
            of(&[
                "DISCARD PLANS",
                "DISCARD SEQUENCES",
                "DISCARD TEMP",
                "CLOSE ALL",
                "CLOSE nosuch",
                "UNLISTEN *",
            ]),
        ),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_are_those_of_postgres() {
    compare(settings(), &Proxy::start(&twins().await.hosts)).await;
}
