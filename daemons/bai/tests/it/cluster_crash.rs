//! `kill -9` of one of the two processes of a cluster while the other goes on.

use std::time::Duration;

use crate::backend::Backend;
use crate::cluster::Cluster;
use crate::patience::Dice;
use crate::sessions::{self, Burst, Kept, are_all_that_lives, occupied};

/// Who is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Agent,
    Manager,
}

impl Victim {
    /// Either side of the time after which the manager gives up to reach an agent.
    fn longest_absence(self) -> Duration {
        match self {
            Self::Agent => Duration::from_secs(5),
            Self::Manager => Duration::from_secs(1),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn process_kernels_outlive_their_agent() {
    survives_kills(Backend::Process, Victim::Agent, 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn containers_outlive_their_agent() {
    survives_kills(Backend::Docker, Victim::Agent, 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn process_kernels_outlive_the_manager() {
    survives_kills(Backend::Process, Victim::Manager, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn containers_outlive_the_manager() {
    survives_kills(Backend::Docker, Victim::Manager, 1).await;
}

async fn survives_kills(backend: Backend, victim: Victim, rounds: usize) {
    let Some(mut cluster) = Cluster::start(backend).await else { return };
    let mut dice = Dice::new();
    let kept = Kept::start(&cluster.client(), 3).await;
    for round in 0..sessions::rounds(rounds) {
        are_all_that_lives(&kept, &cluster.client(), &mut cluster.node).await;
        let burst = Burst::start(&cluster.client(), round).await;
        dice.wait(backend.creation_window()).await;
        match victim {
            Victim::Agent => cluster.kill_agent().await,
            Victim::Manager => cluster.kill_manager().await,
        }
        cluster.node.kernels();
        dice.wait(victim.longest_absence()).await;
        match victim {
            Victim::Agent => cluster.start_agent().await,
            Victim::Manager => cluster.start_manager().await,
        }
        kept.remember(&cluster.client()).await;
        burst.ends().await.settle(&cluster.client()).await;
    }
    are_all_that_lives(&kept, &cluster.client(), &mut cluster.node).await;
    kept.end(&cluster.client()).await;
    assert!(occupied(&cluster.client()).await.is_empty());
    cluster.node.is_clean().await;
    cluster.stop().await;
    cluster.node.is_clean().await;
}
