//! Who follows whom: changes of edges, and what is asked about them.

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CACHE_CONTROL;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::App;
use super::pages::PRIVATE;
use super::problem::{Code, Problem};
use super::types::{Id, InPath, InQuery, Json, Other, UserPage, UsersQuery, at_most};
use crate::feed::UserId;
use crate::feed::graph::{
    self, EDGES_MOST, FOLLOW_ALL_MOST, Outcome, RELATIONS_MOST, Side, Status,
};

/// What an edge is.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum EdgeStatus {
    /// The source sees the target's posts.
    Following,
    /// The source would like to; the target is private and has yet to accept.
    Requested,
    /// The source blocks the target.
    Blocking,
    /// There is none.
    None,
}

impl From<Status> for EdgeStatus {
    fn from(status: Status) -> EdgeStatus {
        match status {
            Status::Following => EdgeStatus::Following,
            Status::Requested => EdgeStatus::Requested,
            Status::Blocking => EdgeStatus::Blocking,
            Status::Gone => EdgeStatus::None,
        }
    }
}

/// An edge, as it is now.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Edge {
    /// What it is.
    status: EdgeStatus,
}

/// 200: it is so on both sides; 202: it is committed and holds for its source, the other side will follow.
fn answer(outcome: Outcome, nothing: &str) -> Result<Response, Problem> {
    let (code, status) = match outcome {
        Outcome::Now(status) => (StatusCode::OK, status),
        Outcome::ToCome(status) => (StatusCode::ACCEPTED, status),
        Outcome::Blocked => {
            return Err(Problem::new(
                Code::Blocked,
                "one of both users blocks the other: nothing was changed",
                "who blocks must unblock first",
            ));
        }
        Outcome::Nothing => {
            return Err(Problem::new(
                Code::NothingToChange,
                nothing,
                "nothing is left to do",
            ));
        }
    };
    let edge = Edge {
        status: status.into(),
    };
    Ok((code, axum::Json(edge)).into_response())
}

/// As [`answer`], of a call that is done just as well if there was nothing to change.
fn ended(outcome: Outcome) -> Result<Response, Problem> {
    answer(
        match outcome {
            Outcome::Nothing => Outcome::Now(Status::Gone),
            outcome => outcome,
        },
        "",
    )
}

fn apart(user: UserId, other: UserId) -> Result<(), Problem> {
    match user == other {
        true => Err(Problem::bad("both users are the same")),
        false => Ok(()),
    }
}

type Pair = (Id, Id);

/// Follow, or ask to if the target is private.
#[utoipa::path(put, path = "/v1/users/{user}/following/{target}", tag = "graph",
    params(("user" = String, Path, description = "Who follows"), ("target" = String, Path, description = "Whom")),
    responses((status = 200, body = Edge), (status = 202, body = Edge, description = "It holds for the user; the other side will follow"),
        (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn follow(
    State(app): State<App>,
    InPath((Id(user), Id(target))): InPath<Pair>,
) -> Result<Response, Problem> {
    apart(user, target)?;
    let outcome = graph::follow(&app.db, &*app.store, user, target).await?;
    answer(outcome, "the user can't follow this target")
}

/// Don't follow any more, nor ask to. Holds on the next read.
#[utoipa::path(delete, path = "/v1/users/{user}/following/{target}", tag = "graph",
    params(("user" = String, Path, description = "Who follows"), ("target" = String, Path, description = "Whom")),
    responses((status = 200, body = Edge), (status = 202, body = Edge, description = "It holds for the user; the other side will follow"),
        (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn unfollow(
    State(app): State<App>,
    InPath((Id(user), Id(target))): InPath<Pair>,
) -> Result<Response, Problem> {
    ended(graph::unfollow(&app.db, &*app.store, user, target).await?)
}

/// Let someone follow who has asked to.
#[utoipa::path(put, path = "/v1/users/{user}/requests/{source}", tag = "graph",
    params(("user" = String, Path, description = "Who is asked"), ("source" = String, Path, description = "Who asks")),
    responses((status = 200, body = Edge), (status = 202, body = Edge, description = "It is committed; the other side will follow"),
        (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn accept(
    State(app): State<App>,
    InPath((Id(user), Id(source))): InPath<Pair>,
) -> Result<Response, Problem> {
    let outcome = graph::accept(&app.db, &*app.store, user, source).await?;
    answer(outcome, "there is no such request")
}

/// Don't let someone follow who has asked to.
#[utoipa::path(delete, path = "/v1/users/{user}/requests/{source}", tag = "graph",
    params(("user" = String, Path, description = "Who is asked"), ("source" = String, Path, description = "Who asks")),
    responses((status = 200, body = Edge), (status = 202, body = Edge, description = "It is committed; the other side will follow"),
        (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn decline(
    State(app): State<App>,
    InPath((Id(user), Id(source))): InPath<Pair>,
) -> Result<Response, Problem> {
    let outcome = graph::decline(&app.db, &*app.store, user, source).await?;
    answer(outcome, "there is no such request")
}

/// Block: neither follows the other any more, nor can, nor sees the other's media.
#[utoipa::path(put, path = "/v1/users/{user}/blocked/{target}", tag = "graph",
    params(("user" = String, Path, description = "Who blocks"), ("target" = String, Path, description = "Whom")),
    responses((status = 200, body = Edge), (status = 202, body = Edge, description = "It holds for the user; the other side will follow"),
        (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn block(
    State(app): State<App>,
    InPath((Id(user), Id(target))): InPath<Pair>,
) -> Result<Response, Problem> {
    apart(user, target)?;
    let outcome = graph::block(&app.db, &*app.store, user, target).await?;
    answer(outcome, "the user can't block this target")
}

/// Don't block any more. Who followed before has to follow anew.
#[utoipa::path(delete, path = "/v1/users/{user}/blocked/{target}", tag = "graph",
    params(("user" = String, Path, description = "Who blocks"), ("target" = String, Path, description = "Whom")),
    responses((status = 200, body = Edge), (status = 202, body = Edge, description = "It holds for the user; the other side will follow"),
        (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn unblock(
    State(app): State<App>,
    InPath((Id(user), Id(target))): InPath<Pair>,
) -> Result<Response, Problem> {
    ended(graph::unblock(&app.db, &*app.store, user, target).await?)
}

/// Go on following without seeing the posts.
#[utoipa::path(put, path = "/v1/users/{user}/muted/{target}", tag = "graph",
    params(("user" = String, Path, description = "Who mutes"), ("target" = String, Path, description = "Whom, a followee")),
    responses((status = 200, body = Edge), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn mute(
    State(app): State<App>,
    InPath((Id(user), Id(target))): InPath<Pair>,
) -> Result<Response, Problem> {
    let outcome = graph::mute(&app.db, user, target, true).await?;
    answer(outcome, "the user does not follow this target")
}

/// See the posts again.
#[utoipa::path(delete, path = "/v1/users/{user}/muted/{target}", tag = "graph",
    params(("user" = String, Path, description = "Who mutes"), ("target" = String, Path, description = "Whom, a followee")),
    responses((status = 200, body = Edge), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn unmute(
    State(app): State<App>,
    InPath((Id(user), Id(target))): InPath<Pair>,
) -> Result<Response, Problem> {
    let outcome = graph::mute(&app.db, user, target, false).await?;
    answer(outcome, "the user does not follow this target")
}

/// Users to follow.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Targets {
    /// At most 1000.
    #[schema(max_items = 1000)]
    targets: Vec<Id>,
}

/// What became of each.
#[derive(Serialize, ToSchema)]
pub(super) struct Followed {
    /// In the order of their ids, each once.
    results: Vec<FollowedOne>,
}

/// What became of one.
#[derive(Serialize, ToSchema)]
pub(super) struct FollowedOne {
    /// Who.
    target: Id,
    /// What the edge is now. `blocked`: one of both blocks the other.
    result: FollowResult,
}

/// What an edge is after a call that was to make it.
#[derive(Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum FollowResult {
    /// It follows now.
    Following,
    /// The target has yet to accept.
    Requested,
    /// One of both blocks the other.
    Blocked,
    /// Nothing was changed.
    None,
}

/// Follow many at once.
#[utoipa::path(post, path = "/v1/users/{user}/follow_all", tag = "graph", request_body = Targets,
    params(("user" = String, Path, description = "Who follows")),
    responses((status = 200, body = Followed), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn follow_all(
    State(app): State<App>,
    InPath(Id(user)): InPath<Id>,
    Json(body): Json<Targets>,
) -> Result<axum::Json<Followed>, Problem> {
    let targets = at_most("targets", &body.targets, FOLLOW_ALL_MOST)?;
    let outcomes = graph::follow_all(&app.db, &*app.store, user, &targets).await?;
    let results = outcomes
        .into_iter()
        .map(|(target, outcome)| FollowedOne {
            target: Id(target),
            result: match outcome {
                Outcome::Now(Status::Following) | Outcome::ToCome(Status::Following) => {
                    FollowResult::Following
                }
                Outcome::Now(Status::Requested) | Outcome::ToCome(Status::Requested) => {
                    FollowResult::Requested
                }
                Outcome::Blocked => FollowResult::Blocked,
                _ => FollowResult::None,
            },
        })
        .collect();
    Ok(axum::Json(Followed { results }))
}

/// Whom the user follows.
#[utoipa::path(get, path = "/v1/users/{user}/following", tag = "graph",
    params(("user" = String, Path, description = "Whose"), UsersQuery),
    responses((status = 200, body = UserPage), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn following(
    app: State<App>,
    user: InPath<Id>,
    query: InQuery<UsersQuery>,
) -> Result<Response, Problem> {
    users(app, user, query, Side::Following).await
}

/// Who follows the user.
#[utoipa::path(get, path = "/v1/users/{user}/followers", tag = "graph",
    params(("user" = String, Path, description = "Whose"), UsersQuery),
    responses((status = 200, body = UserPage), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn followers(
    app: State<App>,
    user: InPath<Id>,
    query: InQuery<UsersQuery>,
) -> Result<Response, Problem> {
    users(app, user, query, Side::Followers).await
}

/// Who asks to follow the user.
#[utoipa::path(get, path = "/v1/users/{user}/requests", tag = "graph",
    params(("user" = String, Path, description = "Whose"), UsersQuery),
    responses((status = 200, body = UserPage), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn requests(
    app: State<App>,
    user: InPath<Id>,
    query: InQuery<UsersQuery>,
) -> Result<Response, Problem> {
    users(app, user, query, Side::Requests).await
}

/// Whom the user blocks.
#[utoipa::path(get, path = "/v1/users/{user}/blocked", tag = "graph",
    params(("user" = String, Path, description = "Whose"), UsersQuery),
    responses((status = 200, body = UserPage), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn blocked(
    app: State<App>,
    user: InPath<Id>,
    query: InQuery<UsersQuery>,
) -> Result<Response, Problem> {
    users(app, user, query, Side::Blocked).await
}

async fn users(
    State(app): State<App>,
    InPath(Id(user)): InPath<Id>,
    InQuery(query): InQuery<UsersQuery>,
    side: Side,
) -> Result<Response, Problem> {
    let limit = query.limit.unwrap_or(100);
    if limit == 0 || limit > EDGES_MOST {
        return Err(Problem::bad(format!(
            "limit is {limit}: it may be 1 to {EDGES_MOST}"
        )));
    }
    let after = query.after.map(|a| a.0);
    let others = graph::others(&app.db, user, side, after, limit).await?;
    let next = others.last().filter(|_| others.len() == limit);
    let page = UserPage {
        next: next.map(|o| Id(o.user)),
        users: others
            .iter()
            .map(|o| Other {
                user_id: Id(o.user),
                muted: o.muted,
            })
            .collect(),
    };
    Ok(([(CACHE_CONTROL, PRIVATE)], axum::Json(page)).into_response())
}

/// Users to be compared with one.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Others {
    /// At most 500.
    #[schema(max_items = 500)]
    others: Vec<Id>,
}

/// How a user stands to others.
#[derive(Serialize, ToSchema)]
pub(super) struct Relations {
    /// In the order asked for.
    relations: Vec<Relation>,
}

/// How a user stands to another.
#[derive(Serialize, ToSchema)]
pub(super) struct Relation {
    /// The other.
    other: Id,
    /// The user's edge to the other.
    to_other: EdgeStatus,
    /// The user does not see the other's posts.
    muted: bool,
    /// The other's edge to the user.
    from_other: EdgeStatus,
}

/// Do I follow them, do they follow me.
#[utoipa::path(post, path = "/v1/users/{user}/relations", tag = "graph", request_body = Others,
    params(("user" = String, Path, description = "Who asks")),
    responses((status = 200, body = Relations), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn relations(
    State(app): State<App>,
    InPath(Id(user)): InPath<Id>,
    Json(body): Json<Others>,
) -> Result<axum::Json<Relations>, Problem> {
    let others = at_most("others", &body.others, RELATIONS_MOST)?;
    let relations = graph::relations(&app.db, user, &others).await?;
    let relations = relations
        .iter()
        .map(|r| Relation {
            other: Id(r.other),
            to_other: r.out.into(),
            muted: r.muted,
            from_other: r.back.into(),
        })
        .collect();
    Ok(axum::Json(Relations { relations }))
}

/// How many.
#[derive(Serialize, ToSchema)]
pub(super) struct Counts {
    /// Media that are not deleted.
    posts: i64,
    /// Who follow the user.
    followers: i64,
    /// Whom the user follows.
    following: i64,
}

/// How many posts, followers, followees.
#[utoipa::path(get, path = "/v1/users/{user}/counts", tag = "graph", params(("user" = String, Path, description = "Whose")),
    responses((status = 200, body = Counts), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn counts(
    State(app): State<App>,
    InPath(Id(user)): InPath<Id>,
) -> Result<Response, Problem> {
    let counts = graph::counts(&app.db, &[user]).await?;
    let counts = counts.first().copied().unwrap_or_default();
    let counts = Counts {
        posts: counts.posts,
        followers: counts.followers,
        following: counts.following,
    };
    Ok(([(CACHE_CONTROL, PRIVATE)], axum::Json(counts)).into_response())
}

/// What a user has set.
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct UserState {
    /// Who wants to follow has to ask, and only followers see the media.
    private: bool,
}

/// What the user has set.
#[utoipa::path(get, path = "/v1/users/{user}/state", tag = "graph", params(("user" = String, Path, description = "Whose")),
    responses((status = 200, body = UserState), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn state(
    State(app): State<App>,
    InPath(Id(user)): InPath<Id>,
) -> Result<axum::Json<UserState>, Problem> {
    const SQL: &str = "SELECT 1 FROM user_state WHERE user_id = $1 AND private";
    let private = app.db.ask_one(SQL, &[&user]).await?.is_some();
    Ok(axum::Json(UserState { private }))
}

/// Sets it.
#[utoipa::path(put, path = "/v1/users/{user}/state", tag = "graph", request_body = UserState,
    params(("user" = String, Path, description = "Whose")),
    responses((status = 200, body = UserState), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn set_state(
    State(app): State<App>,
    InPath(Id(user)): InPath<Id>,
    Json(body): Json<UserState>,
) -> Result<axum::Json<UserState>, Problem> {
    graph::set_private(&app.db, user, body.private).await?;
    Ok(axum::Json(body))
}
