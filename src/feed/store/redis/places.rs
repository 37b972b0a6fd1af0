//! Where the keys of an id are: by the map of partitions that is written, or by what a cluster says.

use std::sync::Arc;

use super::cluster::Cluster;
use super::keys::{self, PARTITIONS};
use super::node::Node;
use super::replicas::Replicas;
use crate::feed::store::StoreFault;

/// Where some keys are that may stand in one call.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) node: Arc<Node>,
    /// Those that are read in its place.
    pub(super) replicas: Option<Arc<Replicas>>,
    /// A cluster takes keys of one partition in a call; otherwise all of a node may stand together.
    pub(super) partition: Option<u8>,
}

/// All places.
#[derive(Debug)]
pub(super) enum Places {
    /// As the settings say: the nodes, and the node of each partition.
    Written(Vec<Place>, Box<[u16; PARTITIONS]>),
    Cluster(Box<Cluster>),
}

impl Places {
    pub(super) async fn of(&self, id: i64) -> Result<Place, StoreFault> {
        let partition = keys::partition(id);
        match self {
            Places::Written(places, partitions) => {
                Ok(places[usize::from(partitions[usize::from(partition)])].clone())
            }
            Places::Cluster(cluster) => Ok(Place {
                node: cluster.node(partition).await?,
                replicas: None,
                partition: Some(partition),
            }),
        }
    }

    /// Those that hold anything, always in the same order; of a cluster that changes, what was moved is absent in any case.
    pub(super) async fn nodes(&self) -> Result<Vec<Arc<Node>>, StoreFault> {
        match self {
            Places::Written(places, _) => Ok(places.iter().map(|p| p.node.clone()).collect()),
            Places::Cluster(cluster) => cluster.nodes().await,
        }
    }

    /// The places of these ids, each with where its ids stand among them.
    pub(super) async fn by_place(
        &self,
        ids: impl Iterator<Item = i64>,
    ) -> Result<Vec<(Place, Vec<usize>)>, StoreFault> {
        let group = |id: i64| {
            let partition = usize::from(keys::partition(id));
            match self {
                Places::Written(_, partitions) => usize::from(partitions[partition]),
                Places::Cluster(_) => partition,
            }
        };
        let groups = match self {
            Places::Written(places, _) => places.len(),
            Places::Cluster(_) => PARTITIONS,
        };
        let mut by_group: Vec<(i64, Vec<usize>)> = vec![(0, Vec::new()); groups];
        for (at, id) in ids.enumerate() {
            let (any, all) = &mut by_group[group(id)];
            *any = id;
            all.push(at);
        }
        let mut by_place = Vec::new();
        for (id, all) in by_group {
            if !all.is_empty() {
                by_place.push((self.of(id).await?, all));
            }
        }
        Ok(by_place)
    }
}
