//! The demo's feed service: in this process, its feeds in memory, some people who follow each other and have posted already.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::page;
use super::{Demo, Options};
use crate::feed::api::App;
use crate::feed::db::Fault;
use crate::feed::service::{Service, Settings};
use crate::feed::store::{MemoryLimits, MemoryStore};
use crate::feed::{UserId, graph, post};
use crate::shardmap::MapHandle;

/// The first so many of the demo's users are the page's people: as many as there are shards, one in each.
pub(super) const PEOPLE: UserId = 8;
/// Whom each follows: those so many places further on.
const FOLLOWS: [UserId; 3] = [1, 3, 6];
/// What they have posted, the oldest first.
const POSTS: [(UserId, &str); 10] = [
    (
        4,
        "Low tide this morning. Walked out to the lighthouse and back.",
    ),
    (2, "Bread is in the oven. Whoever is near, come by at four."),
    (7, "Reading on the train again, and missed my stop again."),
    (1, "The swifts are back over the harbour."),
    (6, "Anyone up for a swim before work tomorrow?"),
    (
        3,
        "Mended the old radio. It still prefers the shipping forecast.",
    ),
    (8, "Twelve kilometres, one thunderstorm, no regrets."),
    (5, "Planted the beans. Now we wait."),
    (2, "The bread is gone. You were quick."),
    (
        4,
        "Somebody left a chess problem on the pier: white to move, mate in three.",
    ),
];
/// How long the proxy and its hosts may take to answer at first.
const PATIENCE: Duration = Duration::from_secs(30);

/// A feed service that listens, with people in it, and the page.
#[derive(Debug)]
pub struct Feed {
    service: Service,
    page: axum::Router,
}

impl Demo {
    /// Takes the feed service's port and has the people follow each other and post, through the proxy, which must be running by now.
    ///
    /// # Errors
    /// The port is taken, or the proxy does not answer.
    pub async fn feed(&self, map: MapHandle, stop: CancellationToken) -> Result<Feed, String> {
        let service = Service::start(settings(&self.options), stop).await?;
        populate(service.app())
            .await
            .map_err(|fault| format!("the feed service has nobody in it: {fault}"))?;
        let page = page::router(map, &self.options);
        Ok(Feed { service, page })
    }
}

impl Feed {
    /// Serves API and page until it is to stop.
    pub async fn run(self) {
        self.service.run_beside(self.page).await;
    }
}

fn settings(options: &Options) -> Settings {
    let store = Arc::new(MemoryStore::new(MemoryLimits::default()));
    Settings {
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, options.feed_port())),
        ..Settings::new(options.proxy_url(), store)
    }
}

/// As callers of the API would. Repeats what failed because the proxy was not up yet; nothing of it is done twice.
async fn populate(app: &App) -> Result<(), Fault> {
    let began = Instant::now();
    loop {
        match try_populate(app).await {
            Err(fault) if fault.is_unavailable() && began.elapsed() < PATIENCE => {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            done => return done,
        }
    }
}

async fn try_populate(app: &App) -> Result<(), Fault> {
    for source in 1..=PEOPLE {
        let targets = FOLLOWS.map(|step| (source + step - 1) % PEOPLE + 1);
        graph::follow_all(&app.db, &*app.store, source, &targets).await?;
    }
    for (n, (author, text)) in POSTS.into_iter().enumerate() {
        let body = serde_json::json!({ "text": text }).to_string();
        let key = format!("demo-{n}");
        post::post(&app.db, &*app.store, &app.wake, author, &body, Some(&key)).await?;
    }
    Ok(())
}
