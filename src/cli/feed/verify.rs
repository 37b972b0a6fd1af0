//! `presplit feed verify`: every feed that the store has against what Postgres says it must be.

use std::sync::Arc;

use clap::Args;
use futures_util::{StreamExt, stream};
use presplit::feed::UserId;
use presplit::feed::config::StoreConfig;
use presplit::feed::db::Db;
use presplit::feed::store::Store;
use presplit::feed::verify::{Unseen, Verdict, Verifier};

use super::Place;

/// Feeds looked at side by side.
const SIDE_BY_SIDE: usize = 8;

#[derive(Args)]
pub(super) struct Verify {
    #[command(flatten)]
    place: Place,
    /// Looks at this user's feed alone; may be said several times.
    #[arg(long, value_name = "ID", conflicts_with = "sample")]
    user: Vec<UserId>,
    /// Looks at this many feeds, taken at random, instead of at all.
    #[arg(long, value_name = "N")]
    sample: Option<usize>,
}

#[derive(Default)]
struct Sum {
    equal: usize,
    absent: usize,
    differ: usize,
}

/// Says what differs, and fails if anything does.
pub(super) fn verify(args: &Verify) -> Result<(), String> {
    let mut config = super::config(args.place.map.as_deref())?;
    if let StoreConfig::Memory(_) = config.store {
        return Err("without [feed.redis] feeds are in the service's process, which alone can look at them: curl -X POST -H 'Content-Type: application/json' -d '{\"sample\": 200}' http://127.0.0.1:6480/v1/verify".to_owned());
    }
    let store = super::patient_store(&mut config.store)?;
    let db = Db::new(&args.place.db()).map_err(|e| e.to_string())?;
    let runtime =
        tokio::runtime::Runtime::new().map_err(|e| format!("can't start the runtime: {e}"))?;
    runtime
        .block_on(look(args, db, store))
        .map_err(|e| e.to_string())?
}

async fn look(args: &Verify, db: Db, store: Arc<dyn Store>) -> Result<Result<(), String>, Unseen> {
    let verifier = Verifier::new(db, store);
    let mut sum = Sum::default();
    if !args.user.is_empty() {
        some(&verifier, &args.user, &mut sum).await?;
    } else if let Some(most) = args.sample {
        some(&verifier, &verifier.sample(most).await?, &mut sum).await?;
    } else {
        some(&verifier, &verifier.all().await?, &mut sum).await?;
    }
    let (under_way, dead) = verifier.under_way().await?;
    let Sum {
        equal,
        absent,
        differ,
    } = sum;
    println!(
        "{} feeds: {equal} equal, {differ} differ, {absent} absent; outbox: {under_way} rows, {dead} of them set aside",
        equal + differ + absent
    );
    Ok(match differ {
        0 => Ok(()),
        n => Err(format!(
            "{n} feeds are not what Postgres says; a feed that is dropped is built anew when it is next read"
        )),
    })
}

async fn some(verifier: &Verifier, users: &[UserId], sum: &mut Sum) -> Result<(), Unseen> {
    let looks = stream::iter(users).map(|user| async move { (user, verifier.look(*user).await) });
    let mut looks = std::pin::pin!(looks.buffered(SIDE_BY_SIDE));
    while let Some((user, verdict)) = looks.next().await {
        match verdict? {
            Verdict::Equal => sum.equal += 1,
            Verdict::Absent => sum.absent += 1,
            Verdict::Differs(difference) => {
                sum.differ += 1;
                println!("{user}: {difference}");
            }
        }
    }
    Ok(())
}
