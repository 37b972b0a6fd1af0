//! No two statements of different meaning share a plan: texts of one shape, by exchanging literals in statements of ORMs
//! and in mutations of them, are read again, and what comes of it is what the plan of the first gives.

use super::*;
use crate::sql::control;
use crate::sql::mutate::{Mutations, corpus};
use crate::sql::plan::{Plan, Unreadable};

/// What a plan cache holds of a text.
#[derive(Debug)]
struct Kept {
    plan: Result<Plan, Unreadable>,
    bound: Bound,
    shape: Shape,
    /// What the session does about it by itself.
    control: Option<String>,
    pieces: usize,
}

/// What is kept of a text, if it is for all texts of its shape.
fn kept(world: &World, sql: &str) -> Option<Kept> {
    let mut shape = Shape::default();
    shape.scan(sql.as_bytes()).ok()?;
    if shape.opaque {
        return None;
    }
    let control = control::parse(sql.as_bytes(), &shape);
    let depends = control.as_ref().is_some_and(|c| c.depends_on_literals());
    let hangs = control.is_none() && control::hangs_on_literals(sql.as_bytes(), &shape);
    let (bound, shape) = world.bound(sql);
    if depends || hangs || bound.per_text {
        return None;
    }
    Some(Kept {
        plan: parse::plan(sql, &shape, &Limits::default()),
        pieces: shape.pieces(sql.as_bytes()).count(),
        control: control.map(|c| format!("{c:?}")),
        bound,
        shape,
    })
}

/// Where `sql` goes by `bound`, and as what text.
fn outcome(world: &World, bound: &Bound, sql: &str, shape: &Shape, given: &Given) -> String {
    let values = Values {
        text: sql.as_bytes(),
        holes: &shape.holes,
        params: Some(given),
    };
    let mut out = Vec::new();
    splice(values.text, values.holes, &bound.edits, "s", &mut out);
    let out = String::from_utf8_lossy(&out);
    let route = decide(bound, &values, &world.map, None);
    let recipe = route.as_ref().ok().map(|_| recipe(bound, &values));
    format!("{route:?}\n{recipe:?}\n{out}")
}

/// What is wrong with serving `other` by what was kept of `first`.
fn fault(world: &World, first: &Kept, other: &str, given: &Given) -> Option<String> {
    let Some(own) = kept(world, other) else {
        return Some("it is of its own".to_owned());
    };
    if (&own.control, own.pieces) != (&first.control, first.pieces) {
        return Some(format!("{:?} and {:?}", first.control, own.control));
    }
    if first.plan != own.plan {
        return Some(format!("{:?}\n  and {:?}", first.plan, own.plan));
    }
    let cached = outcome(world, &first.bound, other, &own.shape, given);
    let fresh = outcome(world, &own.bound, other, &own.shape, given);
    (cached != fresh).then(|| format!("{cached}\n  and {fresh}"))
}

#[test]
fn texts_of_one_shape_have_one_plan() {
    let asked = std::env::var("MUTATIONS").ok().and_then(|n| n.parse().ok());
    let mutations: usize = asked.unwrap_or(20_000);
    let world = world();
    let given = Given((1..=9).map(|n| text(&n.to_string())).collect());
    let corpus = corpus();
    let mut texts = Mutations::new(&corpus, 4);
    let (mut compared, mut of_its_own, mut wrong) = (0, 0, Vec::new());
    for round in 0..mutations {
        let sql = match round < corpus.len() * 20 {
            true => corpus[round % corpus.len()].clone(),
            false => texts.text(2),
        };
        let mut shape = Shape::default();
        if shape.scan(sql.as_bytes()).is_err() || shape.holes.is_empty() {
            continue;
        }
        let other = texts.other_literals(&sql, &shape.holes);
        let mut again = Shape::default();
        if again.scan(other.as_bytes()).is_err() || again.key != shape.key {
            continue;
        }
        let Some(first) = kept(&world, &sql) else {
            of_its_own += 1;
            continue;
        };
        compared += 1;
        if let Some(fault) = fault(&world, &first, &other, &given) {
            wrong.push(format!("{sql:?}\n{other:?}\n  {fault}"));
        }
        assert!(wrong.len() < 10, "{}", wrong.join("\n"));
    }
    println!("{compared} pairs compared, {of_its_own} kept for one text only");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(compared > mutations / 3, "{compared}");
}
