//! A client of the bank that speaks through a usual driver, which believes a COMMIT that is no error.

use std::time::{Duration, Instant};

use rand::Rng;
use rand::rngs::StdRng;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error, NoTls, Statement, Transaction};

use super::client::{judge, legs};
use super::{Bank, Fate, Trace, Transfer};

/// No answer takes longer, unless something hangs.
const HANG: Duration = Duration::from_secs(20);

pub fn run(bank: &Bank, n: usize, mut rng: StdRng) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut proxy = n;
        while let Some(mut teller) = Teller::connect(bank, &mut proxy, &mut rng).await {
            while !bank.is_over() && !teller.client.is_closed() {
                let end = tokio::time::timeout(HANG, teller.transfer(bank, &mut rng)).await;
                if end.is_err() {
                    bank.fault("a driver hangs".to_owned());
                }
            }
        }
    });
}

struct Teller {
    client: Client,
    update: Statement,
    insert: Statement,
}

impl Teller {
    async fn connect(bank: &Bank, proxy: &mut usize, rng: &mut StdRng) -> Option<Teller> {
        let began = Instant::now();
        while !bank.is_over() {
            *proxy += 1;
            match tokio::time::timeout(HANG, Teller::to(bank, *proxy)).await {
                Ok(Ok(teller)) => return Some(teller),
                Ok(Err(why)) if began.elapsed() > Duration::from_secs(30) => {
                    bank.fault(format!("a driver can't connect for 30 s: {why:?}"));
                }
                Ok(Err(_)) => {
                    tokio::time::sleep(Duration::from_millis(rng.random_range(5..40))).await;
                }
                Err(_) => bank.fault("a driver hangs at login".to_owned()),
            }
        }
        None
    }

    async fn to(bank: &Bank, proxy: usize) -> Result<Teller, Error> {
        let mut config = tokio_postgres::Config::new();
        let addr = bank.addr(proxy);
        config.host(addr.ip().to_string()).port(addr.port());
        let (client, connection) = config.user("app").dbname("app").connect(NoTls).await?;
        tokio::spawn(connection);
        let update = "UPDATE accounts SET balance = balance + $1 WHERE user_id = $2";
        let insert = "INSERT INTO transfers (user_id, id, amount) VALUES ($1, $2, $3)";
        let (update, insert) = (client.prepare(update).await?, client.prepare(insert).await?);
        Ok(Teller {
            client,
            update,
            insert,
        })
    }

    async fn transfer(&mut self, bank: &Bank, rng: &mut StdRng) {
        let (id, legs) = (bank.id(), legs(rng));
        let mut transfer = Transfer {
            trace: Trace::Transfers,
            legs: legs.clone(),
            // What stands if it hangs and is dropped.
            fate: Fate::Unknown,
            how: "driver".to_owned(),
        };
        bank.transfers.lock().unwrap().insert(id, transfer.clone());
        let mut committing = false;
        let done = self.transaction(rng, id, &legs, &mut committing).await;
        (transfer.fate, transfer.how) = match done {
            Ok(true) => (Fate::There, "driver, committed".to_owned()),
            Ok(false) => (Fate::Absent, "driver, rolled back".to_owned()),
            Err(why) => {
                let fate = match why.as_db_error() {
                    Some(db) => judge(bank, db.code().code(), db.message(), committing, false),
                    None if committing => Fate::Unknown,
                    None => Fate::Absent,
                };
                (fate, format!("driver, committing {committing}: {why:?}"))
            }
        };
        bank.transfers.lock().unwrap().insert(id, transfer);
    }

    /// Whether it was committed.
    async fn transaction(
        &mut self,
        rng: &mut StdRng,
        id: i64,
        legs: &[(i64, i64)],
        committing: &mut bool,
    ) -> Result<bool, Error> {
        let mut transaction = self.client.transaction().await?;
        let (first, rest) = legs.split_at(1);
        leg(&transaction, &self.update, &self.insert, id, first[0]).await?;
        if rng.random_bool(0.3) {
            let savepoint = transaction.savepoint("here").await?;
            leg(&savepoint, &self.update, &self.insert, id, rest[0]).await?;
            savepoint.rollback().await?;
        }
        if rng.random_bool(0.3) {
            let savepoint = transaction.savepoint("there").await?;
            for next in rest {
                leg(&savepoint, &self.update, &self.insert, id, *next).await?;
            }
            savepoint.commit().await?;
        } else {
            for next in rest {
                leg(&transaction, &self.update, &self.insert, id, *next).await?;
            }
        }
        if rng.random_bool(0.1) {
            transaction.rollback().await?;
            return Ok(false);
        }
        *committing = true;
        transaction.commit().await?;
        Ok(true)
    }
}

/// Both statements of an account, in one write.
async fn leg(
    transaction: &Transaction<'_>,
    update: &Statement,
    insert: &Statement,
    id: i64,
    (user, amount): (i64, i64),
) -> Result<(), Error> {
    let update_values: [&(dyn ToSql + Sync); 2] = [&amount, &user];
    let insert_values: [&(dyn ToSql + Sync); 3] = [&user, &id, &amount];
    let (changed, added) = tokio::join!(
        transaction.execute(update, &update_values),
        transaction.execute(insert, &insert_values)
    );
    assert_eq!((changed?, added?), (1, 1));
    Ok(())
}
