//! From an accepted socket to a session: startup, authentication, what the client is told at login.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::batch::Batch;
use super::checks::check_setting;
use super::clients::Database;
use super::context::{Context, WorkerContext};
use super::date_style::date_style;
use super::ends::{Client, Link};
use super::errors::Fault;
use super::prepareds::Prepareds;
use super::replies::Replies;
use super::{Session, bring};
use crate::pool::{Checkout, HostPools, Settings, set_config};
use crate::shardmap::{HostId, Password, ShardMap, User};
use crate::wire::auth::{self, Verifier};
use crate::wire::backend;
use crate::wire::error::{ErrorFields, SqlState};
use crate::wire::options;
use crate::wire::startup::{HandshakeFault, StartupParams};
use crate::wire::stream::Stream;

/// Logs a client in and runs its session to the end.
pub async fn serve(
    context: Arc<Context>,
    worker: Arc<WorkerContext>,
    mut stream: Stream,
    params: StartupParams,
    limit: Duration,
) {
    let peer = stream.peer();
    let map = context.map.current();
    let mut out = Vec::new();
    let Some(user) = admit(
        &context,
        &map,
        &mut stream,
        &mut out,
        &params,
        Database::App,
        limit,
    )
    .await
    else {
        return;
    };
    match open(
        context.clone(),
        worker,
        stream,
        &params,
        &user,
        map,
        peer.clone(),
        out,
        limit,
    )
    .await
    {
        Ok(session) => {
            session.context.stats.logged_in();
            session.run().await;
        }
        Err((mut stream, fault)) => {
            let mut out = Vec::new();
            let fields = match fault {
                Fault::Fatal(f) | Fault::Statement(f) | Fault::Server(f) => *f,
                Fault::Client(_) | Fault::Skipped => return,
            };
            tracing::info!(%peer, "login refused: {fields}");
            context.stats.login_refused();
            ErrorFields {
                severity: crate::wire::error::Severity::Fatal,
                ..fields
            }
            .write(&mut out);
            let _ = stream.write_all(&out).await;
        }
    }
}

/// Finds out who the client is, within `limit`. `out` then holds what is to be sent in front of AuthenticationOk.
/// `None`: it was turned away and told why.
pub(crate) async fn admit(
    context: &Context,
    map: &ShardMap,
    stream: &mut Stream,
    out: &mut Vec<u8>,
    params: &StartupParams,
    database: Database,
    limit: Duration,
) -> Option<User> {
    let logged_in =
        tokio::time::timeout(limit, log_in(context, map, stream, out, params, database)).await;
    let fault = match logged_in {
        Ok(Ok(user)) => return Some(user),
        Ok(Err(fault)) => Some(fault),
        Err(_) => None,
    };
    context.stats.login_refused();
    if let Some(fault) = fault {
        tracing::info!(peer = stream.peer(), "login refused: {fault}");
        fault.write(out);
        let _ = stream.write_all(out).await;
    }
    None
}

/// Checks who the client is and what it asks for.
async fn log_in(
    context: &Context,
    map: &ShardMap,
    stream: &mut Stream,
    out: &mut Vec<u8>,
    params: &StartupParams,
    database: Database,
) -> Result<User, HandshakeFault> {
    params.negotiate(out);
    let name = params.user()?;
    if params.wants_replication() {
        return Err(ErrorFields::fatal(
            SqlState::FEATURE_NOT_SUPPORTED,
            "replication connections are not supported",
        )
        .hint("Connect to the host itself.")
        .into());
    }
    if map.users.is_empty() {
        return Err(no_users().into());
    }
    let user = map.users.get(name);
    match user.map(|u| &u.password) {
        Some(Password::Trust) => {}
        Some(Password::Scram(verifier)) => {
            let verifier: Option<Verifier> = verifier.parse().ok();
            auth::scram(stream, out, name, verifier.as_ref(), &context.mock).await?;
        }
        None => auth::scram(stream, out, name, None, &context.mock).await?,
    }
    let name = params.database().unwrap_or_default();
    if database == Database::App && name != map.proxy.database {
        return Err(ErrorFields::fatal(
            SqlState::INVALID_CATALOG_NAME,
            format!("database \"{name}\" does not exist"),
        )
        .hint(format!(
            "Databases here: {:?} (the app's), \"presplit\" (the proxy's own commands).",
            map.proxy.database
        ))
        .into());
    }
    // An unknown user has been refused by now.
    user.cloned().ok_or_else(|| no_users().into())
}

fn no_users() -> ErrorFields {
    ErrorFields::fatal(SqlState::INVALID_AUTHORIZATION, "no user may log in: shardmap.toml has no [users]")
        .hint("Add [users.NAME] with a password verifier; without a password only while `listen` is a loopback address.")
}

/// Makes the session and sends what a client is told at login.
#[allow(clippy::too_many_arguments)]
async fn open(
    context: Arc<Context>,
    worker: Arc<WorkerContext>,
    stream: Stream,
    params: &StartupParams,
    user: &User,
    map: Arc<ShardMap>,
    peer: String,
    mut out: Vec<u8>,
    limit: Duration,
) -> Result<Session, (Stream, Fault)> {
    let role = user.server_user.clone().map(|name| {
        (
            name,
            user.server_password.as_ref().map(|p| p.expose().to_owned()),
        )
    });
    let pools = pools_for(&context, &map, role.as_ref());
    let startup = match startup_settings(params) {
        Ok(startup) => startup,
        Err(fault) => return Err((stream, fault)),
    };
    let welcome = tokio::time::timeout(
        limit,
        context.welcomes.get(
            &map,
            &pools,
            &worker,
            role.as_ref().map(|r| r.0.as_str()),
            &startup,
        ),
    );
    let (startup, reported) = match welcome.await {
        Ok(Ok(known)) => known,
        Ok(Err(fault)) => return Err((stream, fault)),
        Err(_) => {
            let fields =
                ErrorFields::fatal(SqlState::CANNOT_CONNECT_NOW, "no host answered in time");
            return Err((stream, Fault::fatal(fields)));
        }
    };
    let cancel = context.cancel_keys.register(params.minor, map.proxy.id);
    backend::auth_ok(&mut out);
    for (name, value) in reported.iter() {
        backend::parameter_status(&mut out, name, value);
    }
    backend::backend_key_data(&mut out, cancel.key());
    backend::ready(&mut out, b'I');
    let info = context.clients.add(
        Database::App,
        params.user().unwrap_or_default(),
        peer,
        params.get("application_name").unwrap_or_default(),
    );
    let mut client = Client::new(stream);
    client.outbox = out;
    client.reported = reported;
    let mut session = Session {
        context,
        worker,
        client,
        info,
        cancel,
        role,
        map,
        map_swaps: None,
        pools,
        links: Vec::new(),
        active: 0,
        replies: Replies::default(),
        block: None,
        batch: Batch::default(),
        statements: Prepareds::default(),
        holding: None,
        settings: startup.clone(),
        reading: Default::default(),
        startup,
        pins: super::pins::Pins::default(),
        temporary: None,
        hint: None,
        riding: None,
        rides_not: false,
        commits: false,
        swallow: 0,
    };
    // A client that is gone by now is found out by the first read.
    let _ = session.client.flush().await;
    Ok(session)
}

/// The pools of a map's hosts for a client's role.
pub(super) fn pools_for(
    context: &Context,
    map: &ShardMap,
    role: Option<&(String, Option<String>)>,
) -> HostPools {
    context.pools.for_map(
        map,
        role.map(|r| r.0.as_str()),
        role.and_then(|r| r.1.as_deref()),
    )
}

/// The settings that the startup packet asks for.
fn startup_settings(params: &StartupParams) -> Result<Settings, Fault> {
    // As Postgres takes them: `options` first, whatever stands before it (postinit.c).
    let mut all = Vec::new();
    for (_, value) in params.params.iter().filter(|(name, _)| name == "options") {
        all.extend(options::settings(value).map_err(Fault::Fatal)?);
    }
    let others = params.params.iter();
    all.extend(
        others
            .filter(|(n, _)| !["user", "database", "replication", "options"].contains(&n.as_str()))
            .cloned(),
    );
    let mut settings = Settings::default();
    for (name, value) in all {
        let name = name.to_ascii_lowercase();
        check_setting(&name, Some(&value))?;
        let set = match &*name {
            "datestyle" => date_style(settings.get(&name), &value),
            _ => set_config(&name, &value).into(),
        };
        settings = settings.with(&name, set);
    }
    Ok(settings)
}

/// What a server reports at login (ParameterStatus) under given settings: learned once, then told to every client that
/// asks for the same.
#[derive(Default)]
pub struct Welcomes(Mutex<HashMap<Welcomed, Reported>>);

/// The role that we are at the hosts, if not the one of their urls, and the settings.
type Welcomed = (Option<String>, Settings);

/// Parameters and their values, in the order that a server reports them.
type Reported = Arc<Vec<(String, String)>>;

/// Sets of settings remembered; apps use few.
const WELCOMES: usize = 1000;

impl Welcomes {
    /// The same settings, shared with all who have them (so that comparing is comparing pointers), and what is reported.
    async fn get(
        &self,
        map: &Arc<ShardMap>,
        pools: &HostPools,
        worker: &WorkerContext,
        role: Option<&str>,
        settings: &Settings,
    ) -> Result<(Settings, Reported), Fault> {
        let welcomed = (role.map(str::to_owned), settings.clone());
        let known = self
            .lock()
            .get_key_value(&welcomed)
            .map(|(w, r)| (w.1.clone(), r.clone()));
        if let Some(known) = known {
            return Ok(known);
        }
        let template = map.owner(map.template());
        let others = (0..map.hosts.len())
            .map(|h| HostId(h as u16))
            .filter(|h| *h != template);
        let mut fault = None;
        for host in std::iter::once(template).chain(others) {
            match learn(map, pools, worker, settings, host).await {
                Ok(learned) => {
                    let learned = Arc::new(learned);
                    let mut known = self.lock();
                    if known.len() >= WELCOMES {
                        known.clear();
                    }
                    known.insert(welcomed.clone(), learned.clone());
                    // Another may have been faster.
                    let shared = known.get_key_value(&welcomed);
                    let settings = shared.map_or(settings, |(welcomed, _)| &welcomed.1);
                    return Ok((settings.clone(), learned));
                }
                // A setting that is wrong on one host is wrong on all.
                Err(f @ Fault::Fatal(_)) => return Err(f),
                Err(f) => fault = fault.or(Some(f)),
            }
        }
        // A map has at least one host.
        Err(fault.unwrap_or_else(Session::no_tables))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Welcomed, Reported>> {
        self.0
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// Brings a server connection to these settings and notes what it then reports.
async fn learn(
    map: &Arc<ShardMap>,
    pools: &HostPools,
    worker: &WorkerContext,
    settings: &Settings,
    host: HostId,
) -> Result<Vec<(String, String)>, Fault> {
    let pool = pools.of(host).clone();
    let wish = Checkout {
        worker: worker.id,
        settings,
        statement: None,
    };
    let conn = pool
        .checkout(wish, &[])
        .await
        .map_err(|fault| Fault::checkout(&pool.host, fault))?;
    let mut link = Link::new(host, map.clone(), pool, conn);
    let mut replies = Replies::default();
    if let Some(conn) = &mut link.conn {
        bring::push_settings(&mut link.outbox, &mut replies, conn, settings);
    }
    if !replies.is_empty() {
        super::relay::learn_parameters(&mut link, &mut replies).await?;
    }
    // The server says only what has changed; the connection remembers all that it ever said.
    let reported = link.conn()?.parameters.clone();
    link.release();
    Ok(reported)
}
