//! Feeds against what Postgres says they must be: the only way to look at those that are in this process' memory.

use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::App;
use super::problem::{Code, Problem};
use super::types::{Id, Json};
use crate::feed::verify::{Difference, Unseen, Verdict, Verifier};

/// The most feeds of one call.
const MOST: usize = 200;

/// Which feeds to look at: one of both.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct WhichFeeds {
    /// Whose: at most 200.
    users: Option<Vec<Id>>,
    /// So many at random, at most 200.
    #[schema(maximum = 200)]
    sample: Option<usize>,
}

/// What was found.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(super) struct Verified {
    /// Feeds that are what Postgres says.
    equal: usize,
    /// Feeds that are not there, or are being built.
    absent: usize,
    /// Those that are not what Postgres says.
    differ: Vec<Differing>,
}

/// A feed that is not what Postgres says.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Differing {
    /// Whose.
    user_id: Id,
    /// Must be in it, and are not.
    missing: Vec<Id>,
    /// Are in it, and nothing says why.
    surplus: Vec<Id>,
    /// Stand twice, or in front of newer ones.
    misplaced: Vec<Id>,
    /// It has more ids than a feed may have.
    too_long: bool,
}

impl From<Unseen> for Problem {
    fn from(unseen: Unseen) -> Problem {
        match unseen {
            Unseen::Db(fault) => fault.into(),
            Unseen::Store(fault) => Problem::new(
                Code::StoreUnavailable,
                fault.to_string(),
                "feeds can't be looked at while the store can't be asked: repeat the call in a moment",
            ),
        }
    }
}

/// Compares feeds with Postgres.
#[utoipa::path(post, path = "/v1/verify", tag = "service", request_body = WhichFeeds,
    responses((status = 200, body = Verified), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn verify(
    State(app): State<App>,
    Json(which): Json<WhichFeeds>,
) -> Result<axum::Json<Verified>, Problem> {
    let verifier = Verifier::new(app.db.clone(), app.store.clone());
    let users = match (which.users, which.sample) {
        (Some(users), None) if users.len() <= MOST => users.into_iter().map(|u| u.0).collect(),
        (None, Some(most)) if most <= MOST => verifier.sample(most).await.map_err(Unseen::Store)?,
        _ => {
            return Err(Problem::bad(format!(
                "say either users, at most {MOST}, or sample, at most {MOST}"
            )));
        }
    };
    let mut verified = Verified::default();
    for user in users {
        match verifier.look(user).await? {
            Verdict::Equal => verified.equal += 1,
            Verdict::Absent => verified.absent += 1,
            Verdict::Differs(Difference {
                missing,
                surplus,
                misplaced,
                too_long,
            }) => {
                let ids = |ids: Vec<i64>| ids.into_iter().map(Id).collect();
                verified.differ.push(Differing {
                    user_id: Id(user),
                    missing: ids(missing),
                    surplus: ids(surplus),
                    misplaced: ids(misplaced),
                    too_long,
                });
            }
        }
    }
    Ok(axum::Json(verified))
}
