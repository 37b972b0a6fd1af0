//! The decision table of a host: whether it is there with its grants, and making it.

use tokio_postgres::Client;

use crate::ops::connect::said;
use crate::twophase::TABLE;

/// What a host lacks, and what would mend it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lack {
    /// What it lacks.
    pub why: String,
    /// What would mend it.
    pub mend: String,
}

/// Whether the table is there, PUBLIC may write to it, and the present role may read it and delete. The catalog is asked, for
/// `to_regclass` fails where the role may not look into the schema.
const LOOK: &str = "SELECT pg_catalog.has_schema_privilege('public', n.oid, 'USAGE') \
      AND pg_catalog.has_table_privilege('public', c.oid, 'INSERT'), \
    pg_catalog.has_schema_privilege(n.oid, 'USAGE') AND pg_catalog.has_table_privilege(c.oid, 'SELECT') \
      AND pg_catalog.has_table_privilege(c.oid, 'DELETE'), \
    current_user::pg_catalog.text \
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace \
  WHERE n.nspname OPERATOR(pg_catalog.=) 'presplit' AND c.relname OPERATOR(pg_catalog.=) 'decision'";

/// `None`: all is there.
pub(super) async fn lack(client: &Client) -> Result<Option<Lack>, tokio_postgres::Error> {
    let lack = |why: String, mend: String| Ok(Some(Lack { why, mend }));
    let Some(row) = client.query_opt(LOOK, &[]).await? else {
        return lack(
            "there is no table presplit.decision".to_owned(),
            "presplit provision makes it, as a role that may create schemas; so does the proxy if its own role may"
                .to_owned(),
        );
    };
    if !row.get::<_, bool>(0) {
        return lack(
            "not every role may insert into presplit.decision".to_owned(),
            "as its owner: GRANT USAGE ON SCHEMA presplit TO PUBLIC; GRANT INSERT ON presplit.decision TO PUBLIC"
                .to_owned(),
        );
    }
    if !row.get::<_, bool>(1) {
        let role: String = row.get(2);
        return lack(
            format!("role {role} may not read presplit.decision and delete from it"),
            format!("as its owner: GRANT SELECT, DELETE ON presplit.decision TO \"{role}\""),
        );
    }
    Ok(None)
}

/// Makes the table unless it is there with its grants. `Some`: it could not be made.
pub async fn make_table(client: &Client) -> Result<Option<Lack>, tokio_postgres::Error> {
    if lack(client).await?.is_none() {
        return Ok(None);
    }
    let made = client.batch_execute(TABLE).await;
    // Another proxy may have made it at the same moment, which lets our attempt fail.
    let left = lack(client).await?;
    Ok(left.map(|mut lack| {
        if let Err(fault) = made {
            lack.why = format!("{}, and it can't be mended: {}", lack.why, said(&fault));
        }
        lack
    }))
}
