//! tokio-postgres, which is in this process.
use super::*;
pub async fn prove(
    _first: i64,
    _plain: &Cluster,
    _hosts: &Hosts,
    _proxy: &Proxy,
) -> Result<Run, String> {
    Ok(Run::NotHere("not yet".into()))
}
