//! Runs what the generator makes, statement by statement, on both sides of a lane.

use rand::SeedableRng;
use rand::rngs::StdRng;

use super::compare::{answer_shown, difference, refusal};
use super::generator::{Effect, Gen, Statement, Unit};
use super::lane::Lane;
use super::message::{Sent, WAYS};
use super::report::{Outcome, Tally};
use crate::support::wire::Part;

/// Units between two resets. A difference is found again by running its epoch alone.
const UNITS: usize = 80;
/// Units between two looks at all rows.
const LOOK: usize = 20;

/// What to run.
#[derive(Clone, Debug)]
pub struct Job {
    pub seed: u64,
    pub statements: usize,
    /// This epoch alone.
    pub epoch: Option<usize>,
    /// Look at all rows after each unit, to find the write that made them differ.
    pub look_often: bool,
    /// Say what is sent.
    pub trace: bool,
}

/// More than this many differences of a lane say nothing new.
const ENOUGH: usize = 5;

/// What a seed and numbers below it make of each other.
fn mixed(parts: &[u64]) -> u64 {
    parts.iter().fold(0x9e37_79b9_7f4a_7c15, |hash, part| {
        (hash ^ part)
            .wrapping_mul(0xff51_afd7_ed55_8ccd)
            .rotate_left(31)
    })
}

/// Runs the job in this lane; the differences are in the tally.
pub fn run(lane: &mut Lane, number: usize, job: &Job) -> Tally {
    let mut tally = Tally::default();
    if job.epoch.is_none() {
        tally.differences = super::found::differences(lane);
    }
    let mut epoch = job.epoch.unwrap_or(0);
    let mut done = 0;
    while done < job.statements && tally.differences.len() < ENOUGH {
        let map = lane.map.clone();
        let mut g = Gen::new(mixed(&[job.seed, epoch as u64]), &map);
        lane.reset(&mut g);
        if let Err(what) = run_epoch(lane, &mut g, job, (number, epoch), &mut tally, &mut done) {
            let rerun = format!(
                "DIFFERENTIAL_SEED={} DIFFERENTIAL_LANE={} DIFFERENTIAL_EPOCH={epoch} make differential",
                job.seed, lane.split
            );
            tally.differences.push(format!("{what}\n  again: {rerun}"));
            lane.reconnect();
        }
        if job.epoch.is_some() {
            break;
        }
        epoch += 1;
    }
    tally
}

fn run_epoch(
    lane: &mut Lane,
    g: &mut Gen<'_>,
    job: &Job,
    (number, epoch): (usize, usize),
    tally: &mut Tally,
    done: &mut usize,
) -> Result<(), String> {
    let mut sent = 0;
    let mut last_write = String::new();
    for n in 0..UNITS {
        let unit = g.unit();
        *done += unit.statements.len();
        for (at, statement) in unit.statements.iter().enumerate() {
            sent += 1;
            let way = WAYS[(sent + number + epoch) % 3];
            let seed = mixed(&[job.seed, epoch as u64, sent as u64, way as u64]);
            let message = Sent::new(statement, way, &mut StdRng::seed_from_u64(seed));
            if job.trace {
                eprintln!("{sent} {}", message.shown);
            }
            if statement.effect == Effect::Write {
                last_write = message.shown.clone();
            }
            let where_it_was = format!(
                "lane {}, seed {}, epoch {epoch}, statement {sent}",
                lane.split, job.seed
            );
            let go_on = both(lane, statement, &message, tally).map_err(|what| {
                format!(
                    "{where_it_was} ({}):\n  {}\n  {what}",
                    statement.label, message.shown
                )
            })?;
            if !go_on {
                // The rest of a block that was refused isn't run; its numbers are kept.
                sent += unit.statements.len() - at - 1;
                break;
            }
        }
        let look = job.look_often && writes(&unit) || n % LOOK == LOOK - 1;
        if let Some(what) = look.then(|| lane.compare_rows()).flatten() {
            return Err(format!(
                "lane {}, seed {}, epoch {epoch}, at statement {sent}, last write {last_write}\n  {what}\n  (DIFFERENTIAL_LOOK=1 looks after each write)",
                lane.split, job.seed
            ));
        }
    }
    Ok(())
}

fn writes(unit: &Unit) -> bool {
    unit.statements.iter().any(|s| s.effect != Effect::Read)
}

/// The statement through presplit, and on the plain side unless it was refused. Whether to go on with its unit.
pub fn both(
    lane: &mut Lane,
    statement: &Statement,
    message: &Sent,
    tally: &mut Tally,
) -> Result<bool, String> {
    let ours = lane
        .ours
        .ask(&message.bytes)
        .map_err(|why| format!("presplit: {why}; it said:\n{}", lane.proxy.log()))?;
    if let Some(refused) = refusal(&ours)? {
        tally.count(statement, Outcome::refused(&refused), &message.shown);
        // Whatever was in it: both sides take it back.
        for wire in [&mut lane.plain, &mut lane.ours] {
            let end = wire.ask(&crate::support::raw::q("ROLLBACK"))?;
            if end.last() != Some(&Part::Ready('I')) {
                return Err(format!("ROLLBACK after {refused:?}: {end:?}"));
            }
        }
        return Ok(false);
    }
    let plain = lane
        .plain
        .ask(&message.bytes)
        .map_err(|why| format!("plain: {why}"))?;
    tally.count(statement, Outcome::answered(&plain), &message.shown);
    match difference(&plain, &ours, statement.order) {
        None => Ok(true),
        Some(what) => Err(format!(
            "{what}\n  plain:\n      {}\n  presplit:\n      {}",
            answer_shown(&plain),
            answer_shown(&ours)
        )),
    }
}
