//! What must not be run twice is not shared.

use super::*;

/// What a SELECT calls may not stand in it, or not be what it looks like.
#[tokio::test(flavor = "multi_thread")]
async fn what_may_have_an_effect_unseen_is_not_shared() {
    let hosts = Hosts::provisioned(1, 2).await;
    let direct = hosts.client(0).await;
    let objects = "
        CREATE EXTENSION dblink;
        CREATE FUNCTION public.upper(int) RETURNS text LANGUAGE sql AS $$ SELECT 'x' $$;
        CREATE FUNCTION public.noted(text, text) RETURNS text LANGUAGE sql AS $$ SELECT $1 $$;
        CREATE TABLE public.notes (n int);
        SET search_path = shard_0000, public;
        CREATE VIEW connected AS SELECT id, name, dblink_get_connections() AS c FROM users;
        CREATE VIEW plain AS SELECT id, name FROM users;
        SET search_path = shard_0001, public;
        CREATE VIEW connected AS SELECT id, name, dblink_get_connections() AS c FROM users;
        CREATE VIEW plain AS SELECT id, name FROM users;";
    direct.batch_execute(objects).await.unwrap();
    let map = hosts.map_text(1, "shared_connections = 1");
    let read = q("SELECT name FROM users WHERE id = 0");
    let world = world_by(&map).await;
    let insert = "INSERT INTO users (id, name) VALUES (0, 'u0')";
    world.raw().query(insert);
    world.warm(&mut world.raw()).await;
    let mut raw = world.raw();
    for (sql, shared) in [
        ("SELECT lower(name) FROM users WHERE id = 0", true),
        ("SELECT upper(name) FROM users WHERE id = 0", false),
        ("SELECT public.upper(1) FROM users WHERE id = 0", false),
        (
            "SELECT dblink_get_connections() FROM users WHERE id = 0",
            false,
        ),
        ("SELECT name FROM plain WHERE id = 0", true),
        ("SELECT name FROM connected WHERE id = 0", false),
    ] {
        assert_eq!(world.is_shared(&mut raw, &q(sql)).await, shared, "{sql}");
    }
    drop(world);
    let noted = "LANGUAGE sql AS $$ INSERT INTO public.notes VALUES (1); SELECT 'x' $$";
    for (make, drop_it) in [
        (
            "CREATE OPERATOR public.<+> (LEFTARG = text, RIGHTARG = text, FUNCTION = public.noted)"
                .to_owned(),
            "DROP OPERATOR public.<+> (text, text)",
        ),
        (
            format!("CREATE FUNCTION shard_0000.told(shard_0000.users) RETURNS text {noted}"),
            "DROP FUNCTION shard_0000.told",
        ),
        (
            "CREATE POLICY p ON shard_0000.users USING (public.noted(name, name) = name)"
                .to_owned(),
            "DROP POLICY p ON shard_0000.users",
        ),
        (
            "CREATE DOMAIN public.rare AS int CHECK (VALUE <> random())".to_owned(),
            "DROP DOMAIN public.rare",
        ),
    ] {
        direct.batch_execute(&make).await.unwrap();
        let world = world_by(&map).await;
        let mut raw = world.raw();
        for _ in 0..50 {
            assert!(!world.is_shared(&mut raw, &read).await, "{make}");
        }
        direct.batch_execute(drop_it).await.unwrap();
    }
    let world = world_by(&map).await;
    world.warm(&mut world.raw()).await;
}
