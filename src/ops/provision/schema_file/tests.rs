//! Schema files, and where their statements go.

use super::*;

fn rules() -> BTreeMap<String, TableRule> {
    let rule = |kind, host: Option<&str>| TableRule {
        kind: Some(kind),
        host: host.map(str::to_owned),
        ..TableRule::default()
    };
    BTreeMap::from([
        ("countries".to_owned(), rule(Kind::Reference, None)),
        ("invoices".to_owned(), rule(Kind::Unsharded, Some("b"))),
        (
            "photos".to_owned(),
            TableRule {
                ids: vec!["id".to_owned()],
                ..TableRule::default()
            },
        ),
    ])
}

fn places(sql: &str) -> Vec<(String, Place)> {
    read(sql, &rules())
        .unwrap()
        .into_iter()
        .map(|s| (s.label, s.place))
        .collect()
}

fn on_b() -> Place {
    Place {
        shards: false,
        public: Some(Public::Host("b".to_owned())),
    }
}

#[test]
fn tables_and_what_belongs_to_them_go_where_the_map_says() {
    let sql = r#"
            CREATE TYPE mood AS ENUM ('a;b', 'c');
            create table if not exists countries (code text); -- one; two
            CREATE TABLE Photos (id bigint, note text DEFAULT ';');
            CREATE UNIQUE INDEX ON photos (id);
            CREATE TABLE invoices (x int);
            CREATE INDEX inv ON ONLY invoices (x);
            COMMENT ON INDEX inv IS 'x';
            COMMENT ON COLUMN countries.code IS 'y';
            CREATE TABLE invoices_1 PARTITION OF invoices DEFAULT;
            ALTER TABLE ONLY photos ADD CHECK (id > 0);
            GRANT SELECT ON TABLE invoices TO PUBLIC;
            CREATE VIEW v AS SELECT 1;"#;
    let every = Place::EVERY_PUBLIC;
    let all = places(sql);
    let expected = [
        ("type mood", &every),
        ("table countries", &every),
        ("table photos", &Place::SHARDS),
        ("index on photos", &Place::SHARDS),
        ("table invoices", &on_b()),
        ("index inv", &on_b()),
        ("comment inv", &on_b()),
        ("comment countries", &every),
        ("table invoices_1", &on_b()),
        ("alter photos", &Place::SHARDS),
        ("grant invoices", &on_b()),
        ("view v", &Place::SHARDS),
    ];
    let all: Vec<_> = all
        .iter()
        .map(|(label, place)| (label.as_str(), place))
        .collect();
    assert_eq!(all, expected);
}

#[test]
fn sequences_and_functions_go_where_they_are_used() {
    let sql = "
        CREATE SEQUENCE invoice_no;
        CREATE SEQUENCE of_photos;
        CREATE SEQUENCE unused;
        CREATE SEQUENCE given OWNED BY invoices.x;
        CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
        CREATE FUNCTION plain(a int) RETURNS int LANGUAGE sql AS 'SELECT 1';
        CREATE TABLE invoices (x bigint DEFAULT nextval('invoice_no'));
        CREATE TABLE photos (x bigint DEFAULT nextval('of_photos'));
        CREATE TRIGGER t BEFORE UPDATE ON invoices FOR EACH ROW EXECUTE FUNCTION touch();
        COMMENT ON FUNCTION touch() IS 'x';";
    let all: HashMap<String, Place> = places(sql).into_iter().collect();
    let both = Place {
        shards: true,
        public: Some(Public::Host("b".to_owned())),
    };
    assert_eq!(all["sequence invoice_no"], on_b());
    assert_eq!(all["sequence of_photos"], Place::SHARDS);
    assert_eq!(all["sequence unused"], Place::SHARDS);
    assert_eq!(all["sequence given"], on_b());
    assert_eq!(all["function touch"], both);
    assert_eq!(all["function plain"], Place::SHARDS);
    assert_eq!(all["trigger invoices"], on_b());
    assert_eq!(all["comment touch"], both);
}

#[test]
fn every_statement_that_can_not_be_placed_is_named_with_its_line() {
    let sql = "CREATE TABLE photos (id int);\nDROP TABLE photos;\nCREATE TABLE public.users (id int);\n\
               SET search_path = '';\nCREATE INDEX CONCURRENTLY i ON photos (id);\nALTER TABLE missing ADD x int;\n\
               CREATE TEMP TABLE t (a int);\nGRANT USAGE ON SCHEMA public TO x;\nCREATE TABLE (";
    let faults = read(sql, &rules()).unwrap_err();
    let lines: Vec<&str> = faults
        .iter()
        .map(|f| f.split(':').next().unwrap())
        .collect();
    assert_eq!(
        lines,
        [
            "line 2", "line 3", "line 4", "line 5", "line 6", "line 7", "line 8", "line 9"
        ],
        "{faults:#?}"
    );
    assert!(
        faults[1].contains("public. in front of a name"),
        "{}",
        faults[1]
    );
    assert!(faults[4].contains("missing is not made"), "{}", faults[4]);
}

#[test]
fn an_open_string_is_a_fault_with_its_line() {
    assert_eq!(
        read("SELECT 1;\n'abc", &rules()).unwrap_err(),
        ["line 2: this quote, string or comment does not end"]
    );
}
